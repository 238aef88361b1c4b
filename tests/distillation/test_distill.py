"""`nncc.distill` on tiny networks: it learns, it keeps what it must, it is the same twice, and it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from students import FLOAT, arrays, classifier, data, saved

import nncc
from nncc.distillation.augment import augmented
from nncc.errors import NnccError

torch = pytest.importorskip("torch")

STEPS = {"epochs": 30, "batch": 16, "learning_rate": 0.01, "threads": 1}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with a teacher, a student whose weights have noise, and data."""
    monkeypatch.chdir(tmp_path)
    return classifier(Path("teacher.onnx")), classifier(Path("student.onnx"), noise=0.3), data(Path("d.npz"))


def test_the_student_learns_to_answer_as_the_teacher(files):
    teacher, student, samples = files
    found = nncc.distill(student, teacher, samples, **STEPS)
    assert found.path == Path("student.distilled.onnx")
    trained = found.outcome.trained
    assert trained.best_loss < 0.3 * trained.first_loss
    assert found.outcome.agreement["sqnr"][1] > found.outcome.agreement["sqnr"][0]
    assert found.outcome.terms == ("divergence of `logits`",)
    assert found.outcome.batched
    assert (found.outcome.seen, found.outcome.held_out, trained.steps) == (48, 16, 90)


def test_only_weights_change_in_the_file(files):
    teacher, student, samples = files
    nncc.distill(student, teacher, samples, "o.onnx", **STEPS)
    before, after = onnx.load(student), onnx.load("o.onnx")
    onnx.checker.check_model(after, full_check=True)
    record = {prop.key: prop.value for prop in after.metadata_props}
    assert json.loads(record["nncc.distill"])["samples"] == [48, 16]
    old, new = arrays(student), arrays("o.onnx")
    assert {n: (a.shape, a.dtype) for n, a in old.items()} == {n: (a.shape, a.dtype) for n, a in new.items()}
    assert all((old[name] != new[name]).any() for name in ("w1", "b1", "w2", "b2"))
    for model in (before, after):
        del model.graph.initializer[:], model.metadata_props[:]
        for message in (model, model.graph):
            message.ClearField("ir_version") if message is model else None
    assert [n.SerializeToString(deterministic=True) for n in before.graph.node] == [
        n.SerializeToString(deterministic=True) for n in after.graph.node
    ]
    assert before.graph.input == after.graph.input and before.graph.output == after.graph.output


def test_the_same_call_gives_the_same_bytes(files):
    teacher, student, samples = files
    for name in ("a.onnx", "b.onnx"):
        nncc.distill(student, teacher, samples, name, **STEPS | {"epochs": 3, "augment": ("flip", "mixup")})
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    nncc.distill(student, teacher, samples, "c.onnx", **STEPS | {"epochs": 3, "seed": 1, "augment": ("flip", "mixup")})
    assert Path("a.onnx").read_bytes() != Path("c.onnx").read_bytes()


def test_without_samples_held_out_weights_are_judged_by_variations_that_training_does_not_see(files):
    """Judged by what it is trained with, a student that knows it by heart would be the best."""
    teacher, student, samples = files
    few = [{"image": array[None]} for array in np.load(samples)["image"][:8]]
    steps = STEPS | {"epochs": 30, "held_out": 0}
    for words in ((), ("spread",)):
        found = nncc.distill(student, teacher, few, "o.onnx", **steps, augment=words).outcome
        assert (found.seen, found.held_out, found.varied) == (8, 8, 64 if words else 0)
        loss = [trained_loss(model, teacher, few, words) for model in (student, "o.onnx")]
        assert found.trained.first_loss == pytest.approx(loss[0], rel=0.2 if words else 1e-3)
        assert found.trained.best_loss == pytest.approx(loss[1], rel=0.2 if words else 1e-3)


def trained_loss(student, teacher, samples, words):
    """What `objective.loss` is over 400 other variations of each sample, by ONNX Runtime; logits counted alone."""
    sessions = [logits_of(path) for path in (student, teacher)]
    x, random = np.concatenate([sample["image"] for sample in samples]), np.random.default_rng(12345)
    batches = [augmented({"image": x}, words, random)["image"] for _ in range(400 if words else 1)]
    a, b = (np.concatenate([run(batch) for batch in batches]) for run in sessions)
    scale = sessions[1](x).var(ddof=1)
    s, t = (each / 2 - np.log(np.exp(each / 2).sum(-1, keepdims=True)) for each in (a, b))
    return 4 * (np.exp(t) * (t - s)).sum(-1).mean() + 0.05 * np.square(a - b).mean() / scale


def logits_of(path):
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", FLOAT, ["N", 4]))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(["logits"], {"image": x})[0]


def test_training_that_was_interrupted_goes_on_to_the_same_weights(files):
    """It is cut after the first evaluation by an error of the caller's."""
    teacher, student, samples = files
    nncc.distill(student, teacher, samples, "whole.onnx", **STEPS)

    def interrupt(done, total, what):
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nncc.distill(student, teacher, samples, "cut.onnx", checkpoint="state", tell=interrupt, **STEPS)
    assert not Path("cut.onnx").exists() and Path("state").exists()
    steps = []
    nncc.distill(student, teacher, samples, "cut.onnx", checkpoint="state", resume=True,
                 tell=lambda done, total, what: steps.append(done), **STEPS)  # fmt: skip
    assert steps[0] == 52, "51 steps are 17 epochs, after which the first evaluation was"
    whole, cut = arrays("whole.onnx"), arrays("cut.onnx")
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


def test_while_steps_are_large_the_average_of_weights_counts(files):
    """Training is cut half way, where the learning rate is half of one that is too large to settle with."""
    teacher, student, samples = files

    def interrupt(done, total, what):
        if done == 155:
            raise KeyboardInterrupt

    steps = STEPS | {"epochs": 100, "learning_rate": 0.1}
    with pytest.raises(KeyboardInterrupt):
        nncc.distill(student, teacher, samples, "o.onnx", checkpoint="state", tell=interrupt, **steps)
    state = torch.load("state", weights_only=True)
    assert state["steps"] == 153
    assert all(torch.equal(best, mean) for best, mean in zip(state["best"], state["average"], strict=True))
    assert not any(torch.equal(best, last) for best, last in zip(state["best"], state["numbers"], strict=True))


def test_zeros_stay_zero(files):
    teacher, student, samples = files
    model = onnx.load(student)
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            array = np.array(arrays(student)["w1"])
            array[:4] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, "w1"))
    onnx.save(model, student)
    found = nncc.distill(student, teacher, samples, "o.onnx", **STEPS)
    assert found.outcome.zeros_kept == 4 * 27
    after = arrays("o.onnx")["w1"]
    assert not after[:4].any() and (after[4:] != arrays(student)["w1"][4:]).all()


def test_a_quantized_student_stays_on_its_integers(files):
    teacher, student, samples = files
    nncc.quantize(student, samples, "q.onnx")
    found = nncc.distill("q.onnx", teacher, samples, "o.onnx", **STEPS)
    assert found.outcome.integers and found.outcome.trained.best_loss < 0.5 * found.outcome.trained.first_loss
    old, new = arrays("q.onnx"), arrays("o.onnx")
    assert {n: a.dtype for n, a in old.items()} == {n: a.dtype for n, a in new.items()}
    scales = [name for name in old if old[name].dtype == np.float32]
    assert scales and all(np.array_equal(old[name], new[name]) for name in scales)
    changed = {name: old[name].dtype.name for name in old if (old[name] != new[name]).any()}
    assert set(changed.values()) == {"int8", "int32"}, "weights and biases"


def test_a_batch_that_is_fixed_to_one_is_trained_in_batches_where_the_graph_allows_it(files):
    teacher, _, samples = files
    fixed = classifier(Path("fixed.onnx"), noise=0.3, batch=1)
    found = nncc.distill(fixed, teacher, samples, **STEPS)
    assert found.outcome.batched and found.outcome.trained.best_loss < 0.3 * found.outcome.trained.first_loss


def test_a_student_that_takes_no_batches_is_trained_sample_by_sample(tmp_path):
    """A matrix product over the leading axis mixes what would be a batch's samples."""
    rng = np.random.default_rng(0)
    for name, noise in (("teacher", 0.0), ("student", 0.2)):
        weights = rng.standard_normal((1, 5)) if not noise else weights  # noqa: F821
        nodes = [helper.make_node("Gemm", ["x", "w"], ["a"]), helper.make_node("Softmax", ["a"], ["b"], axis=0),
                 helper.make_node("Mul", ["b", "v"], ["y"])]  # fmt: skip
        constants = {
            "w": (weights.repeat(3, 0) + noise).astype(np.float32),
            "v": np.full((1, 5), 1 + noise, np.float32),
        }
        saved(tmp_path / f"{name}.onnx", nodes, [("x", FLOAT, [2, 3])], [("y", FLOAT, [2, 5])], constants)
    samples = [{"x": rng.standard_normal((2, 3)).astype(np.float32)} for _ in range(12)]
    found = nncc.distill(tmp_path / "student.onnx", tmp_path / "teacher.onnx", samples, **STEPS | {"batch": 4})
    assert not found.outcome.batched
    assert found.outcome.terms == ("squares of `y`",)
    assert found.outcome.trained.best_loss < 0.2 * found.outcome.trained.first_loss


def test_layers_inside_are_compared_where_that_is_asked_for(files):
    teacher, student, samples = files
    found = nncc.distill(student, teacher, samples, **STEPS | {"epochs": 2, "feature_weight": 1.0})
    assert found.outcome.terms == ("divergence of `logits`", "squares of `b`")


def test_a_student_without_layers_inside_has_its_error(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="only")]
    line = saved(tmp_path / "l.onnx", nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 2])],
                 {"w": np.ones((3, 2), np.float32)})  # fmt: skip
    rows = [{"x": np.ones((1, 3), np.float32)}]
    assert refused(line, line, rows, tmp_path / "o.onnx", feature_weight=0.5) == (
        "`feature_weight` is 0.5, but no layer inside the student corresponds to one of the teacher",
        "leave it out: outputs are compared without it",
    )


def test_a_student_of_no_numbers_has_its_error(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"]), helper.make_node("Log", ["a"], ["y"])]
    line = saved(tmp_path / "l.onnx", nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 2])],
                 {"w": np.full((3, 2), -1, np.float32)})  # fmt: skip
    rows = [{"x": np.ones((1, 3), np.float32)}]
    assert refused(line, line, rows, tmp_path / "o.onnx") == (
        "before training, the student gives `y` values that are not finite",
        "leave out the samples for which it does; or its weights are damaged: export it again",
    )


def test_a_time_budget_ends_training(files):
    teacher, student, samples = files
    found = nncc.distill(student, teacher, samples, **STEPS | {"epochs": 10**6, "time_budget": 0.3})
    assert found.outcome.trained.ended == "the time budget"


def test_weights_are_those_of_the_start_where_training_finds_nothing_better(files):
    teacher, _, samples = files
    found = nncc.distill(teacher, "teacher.onnx", samples, "o.onnx", **STEPS | {"epochs": 2, "learning_rate": 1.0})
    assert found.outcome.trained.best_loss == found.outcome.trained.first_loss
    old, new = arrays("teacher.onnx"), arrays("o.onnx")
    assert all(np.array_equal(old[name], new[name]) for name in old)


def refused(*words, **choices):
    with pytest.raises(NnccError) as caught:
        nncc.distill(*words, **STEPS | choices)
    return caught.value.message, caught.value.hint


SAME_OUTPUTS = "a student computes the same outputs as its teacher: give the model that it was made of"


def test_models_that_do_not_fit_have_their_errors(files):
    _, student, samples = files
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["a"]), helper.make_node("Flatten", ["a"], ["f"]),
             helper.make_node("Gemm", ["f", "w"], ["scores"])]  # fmt: skip
    wide = np.ones((3, 7), np.float32)
    image = ("image", FLOAT, ["N", 3, 6, 6])
    other = saved(Path("other.onnx"), nodes, [image], [("scores", FLOAT, ["N", 7])], {"w": wide})
    assert refused(student, other, samples) == ("`scores` of the student is 4, the teacher's is 7", SAME_OUTPUTS)
    two = saved(Path("two.onnx"), nodes, [image], [("scores", FLOAT, ["N", 7]), ("f", FLOAT, ["N", 3])], {"w": wide})
    assert refused(student, two, samples) == ("the student has 1 output, the teacher 2", SAME_OUTPUTS)
    renamed = classifier(Path("renamed.onnx"), names=("pixels", "scores"))
    assert refused(student, renamed, samples) == (
        "the student has the inputs `image` (float32 Nx3x6x6), the teacher `pixels` (float32 Nx3x6x6)",
        "a student takes what its teacher takes: give the model that it was made of",
    )
    larger = saved(Path("larger.onnx"), nodes, [("image", FLOAT, ["N", 3, 8, "W"])], [("scores", FLOAT, ["N", 7])],
                   {"w": wide})  # fmt: skip
    assert refused(student, larger, samples) == (
        "the student has the inputs `image` (float32 Nx3x6x6), the teacher `image` (float32 Nx3x8xW)",
        "a student takes what its teacher takes: give the model that it was made of",
    )
    bare = saved(Path("bare.onnx"), nodes[:1], [image], [("a", FLOAT, ["N", 3, 1, 1])], {})
    assert refused(bare, bare, samples, output="o.onnx") == (
        "the student has no weights that can be trained: constants of float32, or integers of such",
        None,
    )


def test_a_loss_that_is_no_number_ends_training(files):
    teacher, student, samples = files
    message, hint = refused(student, teacher, samples, learning_rate=1e30)
    assert message.startswith("training diverges: the loss is ") and message.endswith(" steps")
    assert hint == "give a smaller `--learning-rate`; layers that saturate can also do with a larger `--batch`"


def test_checkpoints_of_others_have_their_errors(files):
    teacher, student, samples = files
    words = {"checkpoint": "state", "epochs": 1}
    nncc.distill(student, teacher, samples, **STEPS | words)
    hint = "without `--resume` training starts from the beginning, and the checkpoint is replaced"
    other = {"resume": True, "batch": 8}
    assert refused(student, teacher, samples, **words, **other) == (
        "the checkpoint `state` is of another training: student, teacher, data or settings differ",
        hint,
    )
    Path("state").write_bytes(b"nothing of the kind")
    assert refused(student, teacher, samples, **words, resume=True) == (
        "`state` is no checkpoint of `nncc distill`",
        hint,
    )
    Path("state").unlink()
    assert refused(student, teacher, samples, **words, resume=True) == (
        "the checkpoint `state` cannot be read: No such file or directory",
        hint,
    )


def test_all_samples_may_serve_both_ends(files):
    teacher, student, samples = files
    assert refused(student, teacher, samples, held_out=-1) == ("`held_out` is -1; it cannot be negative", None)
    found = nncc.distill(student, teacher, samples, **STEPS | {"epochs": 2, "held_out": 0})
    assert (found.outcome.seen, found.outcome.held_out, found.outcome.trained.steps) == (64, 64, 8)


def test_augmentations_that_do_not_apply_have_their_errors(files, tmp_path):
    teacher, student, samples = files
    assert refused(student, teacher, samples, augment=("flop",)) == (
        "samples cannot be varied by `flop`",
        "did you mean `flip`?",
    )
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    line = saved(tmp_path / "l.onnx", nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 2])],
                 {"w": np.ones((3, 2), np.float32)})  # fmt: skip
    rows = [{"x": np.ones((1, 3), np.float32)}]
    assert refused(line, line, rows, "o.onnx", augment=("mixup", "shift"))[0] == (
        "`--augment shift` is for images of 1 or 3 channels; the input is 1x3"
    )
