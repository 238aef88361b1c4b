"""`nncc prune` and `nncc.prune` as their users meet them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import nncc
from nncc.cli import cli
from nncc.quant.session import Session


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The command line in this process and in a folder with a model, `m.onnx`, and samples, `c.npz`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    shapes = {"w1": (32, 3, 3, 3), "w2": (32, 1, 3, 3), "w3": (16, 32, 1, 1), "b3": (16,), "w4": (16, 5)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("Conv", ["b", "w2"], ["c"], name="depthwise", pads=[1, 1, 1, 1], group=32),
            helper.make_node("Conv", ["c", "w3", "b3"], ["d"], name="point"),
            helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
            helper.make_node("Flatten", ["e"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "w4"], ["scores"], name="last"),
        ],
        "m",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array((rng.standard_normal(s) / 3).astype(np.float32), n) for n, s in shapes.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    helper.set_model_props(proto, {"licence": "free"})
    onnx.save(proto, "m.onnx")
    np.savez("c.npz", image=rng.standard_normal((40, 3, 8, 8)).astype(np.float32))

    def call(*words, status=0):
        result = CliRunner().invoke(cli, ["prune", "m.onnx", "--calibration", "c.npz", "--multiple", "4",
                                          *[str(word) for word in words]])  # fmt: skip
        assert result.exit_code == status, result.stdout + result.stderr
        return result

    return call


def error(call, *words, status=1):
    return call(*words, status=status).stderr


def test_prune_says_what_went_and_what_stayed(call):
    text = call("--sparsity", "50%", "--target", "x86-64-v4").stdout
    lines = text.splitlines()
    assert lines[0].startswith("multiplications  107 k -> ") and lines[0].endswith("% fewer")
    assert "agreement        top1 " in text and "on 10 samples held out" in text
    assert "refit            weights fitted to what is left\n" in text
    assert "\nchannels, and the error of the outputs in dB where so many of a group alone go\n  32 -> " in text
    assert re.search(r"  32 -> \d+  first +25 % -\d+\.\d  50 % -\d+\.\d  75 % -\d+\.\d\n", text)
    assert "  5   last   `scores` is an output of the model\n" in text or "  `scores` is an output of the model" in text
    assert text.endswith(
        "\nwritten to m.pruned.onnx\n\nnext: nncc compile m.pruned.onnx --target x86-64-v4 --shape image=1x3x8x8\n"
    )
    text = call("--sparsity", "50%", "--target", "x86-64-v4", "--shape", "image=1x3x8x8").stdout
    assert text.endswith("\nnext: nncc compile m.pruned.onnx --target x86-64-v4\n"), "no dimension is open any more"


def test_the_file_is_plain_onnx_with_a_record(call):
    facts = json.loads(call("--sparsity", "50%", "-o", "s.onnx", "--json").stdout)
    assert facts["macs"]["after"] <= 0.5 * facts["macs"]["before"]
    assert facts["bytes"]["after"] == Path("s.onnx").stat().st_size
    made = onnx.load("s.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 11)], "the opset is what it was"
    record = {prop.key: prop.value for prop in made.metadata_props}
    assert record["licence"] == "free"
    done = json.loads(record["nncc.prune"])
    assert (done["goal"], done["structure"], done["seed"]) == ({"sparsity": 0.5}, "channels", 0)
    assert done["macs"] == [facts["macs"]["before"], facts["macs"]["after"]]
    after = {group["name"]: group["channels"] for group in facts["groups"]}
    assert all(after[name] == counts and counts[1] % 4 == 0 for name, counts in done["channels"].items())
    batch = np.zeros((3, 3, 8, 8), np.float32)
    assert Session(Path("s.onnx")).run({"image": batch}, ["scores"])[0].shape == (3, 5), "the batch is still open"


def test_the_same_call_gives_the_same_bytes(call):
    call("--sparsity", "30%", "-o", "a.onnx")
    call("--sparsity", "30%", "-o", "b.onnx")
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


def test_size_and_latency_are_goals(call):
    facts = json.loads(call("--size", "4KB", "--json").stdout)
    assert 4 * facts["parameters"]["after"] <= 4000
    board = "x86-64-v4,peak_gflops=0.1,dram_gbps=1"
    facts = json.loads(call("--latency", "1ms", "--target", board, "--json").stdout)
    assert facts["predicted_seconds"]["after"] <= 1e-3 < facts["predicted_seconds"]["before"]
    text = call("--latency", "1ms", "--target", board).stdout
    assert re.search(rf"\npredicted +2\.\d+ -> 0\.\d+ ms on one core of {board}\n", text)
    assert "\n                 by 0.1 GFLOP/s, 1 GB/s from memory: as the target says\n" in text


def test_the_peak_of_this_machine_is_measured_where_time_matters(call, monkeypatch):
    from nncc import roofline
    from nncc.errors import ToolError

    monkeypatch.setattr(roofline, "_kept", lambda *_: roofline.Roofline(0.1, ((1 << 30, 1.0),)))
    facts = json.loads(call("--latency", "1ms", "--json").stdout)
    assert facts["peak"] == {"gflops": 0.1, "dram_gbps": 1.0, "measured": True}
    assert "by 0.1 GFLOP/s, 1 GB/s from memory: measured here\n" in call("--max-drop", "5%").stdout
    assert json.loads(call("--sparsity", "20%", "--json").stdout)["peak"] is None

    def fails(*_):
        raise ToolError("no C compiler", "install gcc")

    monkeypatch.setattr(roofline, "_kept", fails)
    assert error(call, "--latency", "1ms") == "error: no C compiler\n\nhint: install gcc\n"
    assert json.loads(call("--max-drop", "5%", "--json").stdout)["peak"] is None


def test_max_drop_alone_prunes_as_much_as_holds(call):
    """The score falls with the parameters; with half of its range allowed, about half of them go."""
    Path("score.py").write_text(
        "import sys, onnx\n"
        "from onnx import numpy_helper\n"
        "print(sum(numpy_helper.to_array(t).size for t in onnx.load(sys.argv[1]).graph.initializer))\n"
    )
    metric = ("--metric", f"{sys.executable} score.py", "--no-refit")
    facts = json.loads(call(*metric, "--max-drop", "40%", "--json").stdout)
    assert facts["metric"]["before"] == 1760.0
    assert facts["floor"] <= facts["metric"]["after"] < 1.2 * facts["floor"]
    stderr = error(call, *metric, "--max-drop", "25%", "--sparsity", "70%")
    assert stderr.startswith("error: at `--sparsity 70.0%` the score is ")
    assert ", at least 1320 is asked for; the strongest pruning that holds removes " in stderr
    assert stderr.endswith("\n\nhint: ask for less, or allow more with `--max-drop`\n")
    stderr = error(call, *metric, "--max-drop", "0")
    assert stderr.startswith("error: nothing can be pruned within `--max-drop`: after 1 of ")
    assert stderr.endswith(
        " is asked for\n\nhint: allow more with `--max-drop`, give more calibration samples, or judge by a metric of "
        "your own: `--metric`\n"
    )


def test_a_goal_out_of_reach_fails_with_the_best_there_is(call):
    assert error(call, "--sparsity", "99%") == (
        "error: `--sparsity 99.0%` cannot be reached: of the multiplications at most 90.4% can go\n\n"
        "hint: ask for less; `--multiple 1` allows any count of channels, and the report of a smaller goal shows which "
        "groups are left and why\n"
    )


def test_sizes_and_times_out_of_reach_fail_with_the_best_there_is(call):
    hint = (
        "\n\nhint: ask for less; `--multiple 1` allows any count of channels, and the report of a smaller goal shows "
        "which groups are left and why\n"
    )
    assert error(call, "--size", "100") == (
        f"error: `--size 0.1KB` cannot be reached: the weights are at least 0.736KB{hint}"
    )
    stderr = error(call, "--latency", "1us", "--target", "x86-64-v4,peak_gflops=0.1,dram_gbps=1")
    assert stderr.startswith("error: `--latency 0.001ms` cannot be reached: the predicted time is at least 0.")
    assert stderr.endswith(f"ms{hint}")
    least = re.search(r"at least (0\.\d+ms)", stderr)[1]
    call("--latency", least.replace("ms", "5ms"), "--target", "x86-64-v4,peak_gflops=0.1,dram_gbps=1")


def test_a_model_is_pruned_around_what_cannot_be(call):
    """Shared weights, an unknown operator, control flow, heads of a computed size and open dimensions, all in one."""
    rng = np.random.default_rng(1)
    inside = helper.make_graph(
        [helper.make_node("Relu", ["flow"], ["inside"], name="inner")], "then", [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )  # fmt: skip
    shapes = {"w": (8, 3, 3, 3), "free": (8, 8, 1, 1), "shared": (8, 8, 1, 1), "deep": (8, 8, 1, 1),
              "flows": (8, 8, 1, 1), "counts": (8, 8, 1, 1), "last": (8, 8, 1, 1)}  # fmt: skip
    weights = [numpy_helper.from_array((rng.standard_normal(s) / 3).astype(np.float32), n) for n, s in shapes.items()]
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Conv", ["image", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"], name="relu"),
            node("Conv", ["b", "free"], ["c"], name="free"),
            node("Conv", ["c", "shared"], ["d"], name="one"),
            node("Conv", ["d", "shared"], ["e"], name="two"),
            node("Conv", ["e", "deep"], ["f"], name="deep"),
            node("SpaceToDepth", ["f"], ["g"], name="s2d", blocksize=1),
            node("Conv", ["g", "flows"], ["flow"], name="flows"),
            node("If", ["yes"], ["h"], name="if", then_branch=inside, else_branch=inside),
            node("Conv", ["h", "counts"], ["i"], name="counts"),
            node("Shape", ["i"], ["j"], name="sizes"),
            node("Gather", ["j", "axis"], ["k"], name="count"),
            node("Cast", ["k"], ["l"], name="cast", to=TensorProto.FLOAT),
            node("Div", ["i", "l"], ["m"], name="divide"),
            node("Conv", ["m", "last"], ["scores"], name="last"),
        ],
        "m",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 8, "H", "W"])],
        [*weights, numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.array(1), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "m.onnx")
    facts = json.loads(call("--sparsity", "20%", "--json").stdout)
    reasons = {group["name"]: group["reason"] for group in facts["groups"]}
    assert reasons == {
        "first": "",
        "free": "weights `shared` are shared with `two`",
        "one": "weights `shared` are shared with `two`",
        "two": "weights `shared` are shared with `one`",
        "deep": "`s2d` is a SpaceToDepth, of which channels cannot be removed",
        "flows": "`flow` is read inside of control flow",
        "counts": "`sizes` reads how many there are",
        "last": "`scores` is an output of the model",
    }
    wide = {"image": rng.standard_normal((2, 3, 5, 9)).astype(np.float32)}
    assert Session(Path("m.pruned.onnx")).run(wide, ["scores"])[0].shape == (2, 8, 5, 9)


def test_a_plot_is_drawn_and_refused_before_the_work(call):
    pytest.importorskip("matplotlib")
    text = call("--sparsity", "50%", "--plot", "s.svg").stdout
    assert "\ndrawn in s.svg\n" in text
    assert Path("s.svg").read_text().startswith("<?xml")
    assert error(call, "--sparsity", "50%", "--plot", "s.pdf", "-o", "other.onnx", status=2) == (
        "error: `--plot s.pdf` is no kind of picture\n\nhint: name a file `s.svg` or `s.png`\n"
    )
    assert not Path("other.onnx").exists()


def test_wrong_words_have_their_errors(call, tmp_path):
    assert error(call, "--sparsity", "50%", "--structure", "chanels", status=2) == (
        "error: structure `chanels` is not known; there is channels, block16x4, unstructured\n\n"
        "hint: did you mean `channels`?\n"
    )
    assert error(call, "--sparsity", "50%", "--importance", "magnitud", status=2) == (
        "error: channels cannot be ranked by `magnitud`\n\nhint: did you mean `magnitude`?\n"
    )
    assert error(call, "--sparsity", "50%", "--multiple", "0", status=2) == (
        "error: counts of channels cannot be multiples of 0\n\nhint: 1 allows any count\n"
    )
    assert error(call, "--sparsity", "50%", "--least", "0", status=2) == (
        "error: no layer can do with 0 channels\n\nhint: `--least 1` lets all go but one\n"
    )
    assert error(call, "--sparsity", "50%", "-o", "m.onnx", status=2) == (
        "error: `-o m.onnx` is the model itself\n\nhint: choose another file\n"
    )
    assert error(call, "--sparsity", "50%", "-o", tmp_path, status=2) == (
        f"error: `-o {tmp_path}` is a folder\n\nhint: give a file, for example `{tmp_path / 'm.pruned.onnx'}`\n"
    )
    assert error(call, "--sparsity", "50%", "-o", "no/m.onnx") == (
        "error: cannot write `no/m.onnx`: there is no folder `no`\n\nhint: make it first\n"
    )


def test_a_model_without_channels_to_spare_says_so(call):
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], name="only")],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.ones((3, 5), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "g.onnx")
    with pytest.raises(nncc.NnccError) as caught:
        nncc.prune("g.onnx", [{"x": np.ones((1, 3), np.float32)}], sparsity=0.5)
    assert caught.value.message == (
        "the model has no channels that can be removed: `only`: `y` is an output of the model"
    )
    assert caught.value.hint == (
        "`nncc show` shows the model; a layer between two others is needed, all of which nncc understands"
    )
    with pytest.raises(nncc.NnccError) as caught:
        nncc.prune("g.onnx", [], sparsity=0.5)
    assert (caught.value.message, caught.value.hint) == (
        "there are no calibration samples",
        "give at least one; some hundred, like real inputs, are better",
    )


def test_a_trained_network_keeps_its_answers(tmp_path):
    """The digits-like network of the tests on inputs of its own kind of statistics: half a million products go."""
    model = Path(__file__).parent / "models" / "fmnist_dsnet.onnx"
    rng = np.random.default_rng(0)
    samples = [{"input": rng.normal(0, 1, (1, 1, 28, 28)).astype(np.float32)} for _ in range(24)]
    found = {}
    for refit in (True, False):
        made = nncc.prune(model, samples, tmp_path / "p.onnx", sparsity=0.2, multiple=4, refit=refit)
        found[refit] = made.outcome.agreement["sqnr"]
    assert found[True] > found[False]
    assert found[True] > 0.9, "ten decibels"


def test_no_group_is_left_with_fewer_channels_than_asked(tmp_path):
    model = Path(__file__).parent / "models" / "fmnist_dsnet.onnx"
    samples = [{"input": np.random.default_rng(at).normal(0, 1, (1, 1, 28, 28)).astype(np.float32)} for at in range(4)]
    fewest = []
    for least in (None, 48):
        made = nncc.prune(model, samples, tmp_path / "p.onnx", sparsity=0.4, multiple=8, least=least).outcome
        left = [(len(group.units), int(made.keep[group.units].sum())) for group in made.found.prunable()]
        fewest.append(min(kept for whole, kept in left if kept < whole))
    assert fewest[0] < 48 <= fewest[1]
