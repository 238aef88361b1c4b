"""What the student is asked to match, and how far off it is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper
from students import FLOAT, classifier, saved

torch = pytest.importorskip("torch")

from nncc.distillation.batches import batches, held_out, one_by_one, stack, takes_batches  # noqa: E402
from nncc.distillation.objective import Term, features, loss, outputs, scaled  # noqa: E402
from nncc.distillation.settings import Settings  # noqa: E402
from nncc.errors import ModelError  # noqa: E402


def test_logits_count_where_both_end_in_a_softmax(tmp_path):
    with_softmax = onnx_ir.load(classifier(tmp_path / "a.onnx"))
    without = onnx_ir.load(classifier(tmp_path / "b.onnx", softmax=False))
    assert outputs(with_softmax, with_softmax) == (Term("divergence", "logits", "logits"),)
    assert outputs(without, without) == (Term("divergence", "scores", "scores"),)
    assert outputs(without, with_softmax) == (Term("squares", "scores", "scores"),), "one has probabilities"


def test_the_loss_of_equal_outputs_is_none_and_grows_with_the_difference():
    terms = (Term("divergence", "a", "a"),)
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]])
    settings = Settings(temperature=1.0, logits_weight=0.0)
    assert float(loss(terms, [logits], [logits], settings)) == 0.0
    p, q = torch.softmax(logits, -1), torch.softmax(torch.zeros(2, 3), -1)
    by_hand = (p * (p / q).log()).sum(-1).mean()
    assert float(loss(terms, [torch.zeros(2, 3)], [logits], settings)) == pytest.approx(float(by_hand), rel=1e-5)
    squares = (Term("squares", "a", "a", scale=4.0),)
    assert float(loss(squares, [logits + 2], [logits], settings)) == pytest.approx(1.0)


def test_fewer_channels_are_compared_by_what_they_span():
    """The teacher's five channels are mixtures of three: three others that span the same explain them all."""
    random = torch.Generator().manual_seed(0)
    base = torch.randn(4, 3, 6, 6, generator=random)
    mix, other = torch.randn(5, 3, generator=random), torch.randn(3, 3, generator=random)
    teacher = torch.einsum("oc,nchw->nohw", mix, base)
    same = torch.einsum("oc,nchw->nohw", other, base)
    (term,) = scaled([Term("squares", "s", "t", weight=0.5, inside=True)], [same], [teacher])
    assert (term.kind, term.axis) == ("span", 1)
    settings = Settings()
    assert float(loss([term], [same], [teacher], settings)) < 0.01
    unrelated = torch.randn(4, 3, 6, 6, generator=random)
    assert float(loss([term], [unrelated], [teacher], settings)) == pytest.approx(0.5, abs=0.05)


def test_layers_that_differ_in_more_are_left_out():
    terms = [Term("squares", "s", "t", weight=0.5, inside=True)]
    assert scaled(terms, [torch.ones(2, 3, 4)], [torch.ones(2, 5, 8)]) == ()


def test_layers_inside_may_differ_whatever_their_weight_and_outputs_may_not():
    narrow, wide = torch.ones(2, 3, 4), torch.ones(2, 5, 6)
    assert scaled([Term("squares", "s", "t", inside=True)], [narrow], [wide]) == ()
    with pytest.raises(ModelError):
        scaled([Term("squares", "s", "t", weight=0.5)], [narrow], [wide])


def test_layers_inside_correspond_by_name(tmp_path):
    graph = onnx_ir.load(classifier(tmp_path / "a.onnx"))
    assert features(graph, graph, ["a", "b", "logits"], 2.0) == (Term("squares", "b", "b", weight=2.0, inside=True),)


def test_batches_are_of_samples_of_one_shape_and_of_nearly_equal_size():
    samples = [{"x": np.zeros((1, size))} for size in [4] * 7 + [6] * 3]
    assert list(batches(samples, range(10), 3, None)) == [[0, 1, 2], [3, 4], [5, 6], [7, 8, 9]]
    mixed = list(batches(samples, range(10), 3, np.random.default_rng(0)))
    assert sorted(at for batch in mixed for at in batch) == list(range(10))
    assert all(len({samples[at]["x"].shape for at in batch}) == 1 for batch in mixed)


def test_a_tenth_is_held_out():
    train, held = held_out(1000, 0)
    assert len(held) == 100 and sorted(train + held) == list(range(1000))
    assert held_out(1000, 0) == (train, held) != held_out(1000, 1)
    assert [len(held_out(count, 0)[1]) for count in (40, 200)] == [10, 32], "a few more, where a tenth says little"
    assert held_out(31, 0) == (list(range(31)), list(range(31)))
    assert len(held_out(60_000, 0)[1]) == 2000


def test_how_many_samples_are_held_out():
    assert [len(part) for part in held_out(1000, 0)] == [900, 100]
    assert [len(part) for part in held_out(150, 0)] == [118, 32]
    assert [len(part) for part in held_out(150, 0, 10)] == [140, 10]
    for count, wanted in ((150, 0), (8, None), (8, 9)):
        assert held_out(count, 0, wanted) == (list(range(count)), list(range(count)))


def test_models_that_mix_samples_take_no_batches():
    samples = [{"x": np.random.default_rng(at).standard_normal((1, 4)).astype(np.float32)} for at in range(3)]
    rows = lambda feeds: [torch.from_numpy(feeds["x"]).square()]  # noqa: E731
    mean = lambda feeds: [torch.from_numpy(feeds["x"] - feeds["x"].mean(0))]  # noqa: E731
    assert takes_batches(rows, samples) and not takes_batches(mean, samples)
    assert not one_by_one(mean, samples[0])(stack(samples))[0].any()


def test_what_is_no_number_and_truth_values_are_batched_too():
    rows = [{"x": np.array([[each]], np.float32)} for each in (1, -1)]

    def run(feeds):
        x = torch.from_numpy(feeds["x"])
        return [torch.log(x), x > 0, x[:, :0]]

    assert takes_batches(run, rows)


def test_the_logits_of_a_quantized_model_are_found(tmp_path):
    """Its output is rounded behind the Softmax."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    path = saved(tmp_path / "q.onnx", nodes, [("x", FLOAT, ["N", 4])], [("y", FLOAT, ["N", 4])],
                 {"scale": np.float32(1 / 255)})  # fmt: skip
    graph = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(path)))
    assert outputs(graph, graph) == (Term("divergence", "x", "x"),)


def test_the_function_is_not_hidden_by_a_module_of_its_name():
    import nncc
    import nncc.distillation.api

    assert nncc.distill is nncc.distillation.api.distill
