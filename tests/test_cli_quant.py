"""`nncc quantize`, `nncc compare` and `nncc compile --quantize` as their users meet them."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from nncc.cli import cli
from nncc.cli.quant import _OBSERVERS, _PRECISIONS, quantize_command
from nncc.execute import open_library
from nncc.quant.recipe import Observer, Precision, Recipe
from nncc.verify import reference


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The command line in this process and in a folder with a model, `m.onnx`, and samples, `c.npz`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((8, 3, 3, 3)) / 5, "w2": rng.standard_normal((8, 5)) / 3}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["a"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
            helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
            helper.make_node("Gemm", ["d", "w2"], ["scores"], name="last"),
        ],
        "m",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "m.onnx")
    np.savez("c.npz", image=rng.standard_normal((20, 3, 8, 8)).astype(np.float32))

    def call(*words, status=0):
        result = CliRunner().invoke(cli, [str(word) for word in words])
        assert result.exit_code == status, result.stdout + result.stderr
        return result

    return call


def test_every_choice_of_a_recipe_is_a_flag_with_help():
    flags = {parameter.name: parameter for parameter in quantize_command.params}
    assert {field.name for field in dataclasses.fields(Recipe)} <= set(flags)
    assert all(flag.help for flag in quantize_command.params[1:])
    assert ("auto", *Observer.__args__) == _OBSERVERS and Precision.__args__ == _PRECISIONS


def test_quantize_says_what_came_of_it(call):
    text = call(
        "quantize", "m.onnx", "--calibration", "c.npz", "--observer", "minmax", "--target", "x86-64-v4-vnni"
    ).stdout
    assert text.startswith("int8       2 of 2 layers, 100.0 % of 13.9 k multiplications\n")
    assert "recipe     observer minmax, per channel, activations uint8\n" in text
    assert "on 5 samples held out\n" in text
    assert "predicted  layers 5.0x as fast on x86-64-v4-vnni\n" in text
    assert text.endswith(
        "\nwritten to m.int8.onnx\nhow, to edit and run again: m.quantize.toml\n"
        "\nnext: nncc compile m.int8.onnx --target x86-64-v4-vnni --shape image=1x3x8x8\n"
    )


def test_quantize_json_has_the_recipe_and_the_reasons(call):
    words = ("--float-node", "conv", "--equalize", "false", "-o", "q.onnx", "--json")
    facts = json.loads(
        call("quantize", "m.onnx", "--calibration", "c.npz", *words[:4], "-o", "q.onnx", "--json").stdout
    )
    assert facts["stays_float"] == [
        {"name": "conv", "op_type": "Conv", "macs_share": pytest.approx(13824 / 13864), "reason": "the recipe says so"}
    ]
    assert facts["recipe"]["float_nodes"] == ["conv"] and facts["layers"] == {"products": 2, "int8": 1}
    assert facts["samples"] == {"calibrated": 15, "held_out": 5}
    assert facts["model"] == "q.onnx" and facts["recipe_file"] == "q.quantize.toml"


def test_a_plot_has_each_layer_even_where_none_stays_float(call):
    pytest.importorskip("matplotlib")
    text = call("quantize", "m.onnx", "--calibration", "c.npz", "--observer", "minmax", "--plot", "s.svg").stdout
    assert "\ndrawn in s.svg\n" in text
    drawn = Path("s.svg").read_text()
    assert "<!-- conv -->" in drawn and "<!-- last -->" in drawn
    words = ("--precision", "weight_int8", "-o", "w.onnx", "--plot", "w.svg")
    text = call("quantize", "m.onnx", "--calibration", "c.npz", *words).stdout
    assert "\nno layer is in int8: nothing to draw in w.svg\n" in text


def test_a_metric_command_is_a_gate(call, tmp_path):
    (tmp_path / "score.py").write_text("import sys\nprint('score', 0.5 if 'candidate' in sys.argv[1] else 0.505)\n")
    metric = f"{shlex.quote(sys.executable)} score.py"
    words = ("quantize", "m.onnx", "--calibration", "c.npz", "--observer", "minmax", "--metric", metric)
    text = call(*words, "--max-drop", "1%").stdout
    assert "metric     0.505 in float, 0.5 now\n" in text
    assert "gate       at least 0.49995: holds, after 1 evaluation\n" in text
    message = call(*words, "--max-drop", "0.001", status=1).stderr
    assert message == (
        "error: no layer may be int8: the best score is 0.5, at least 0.504 is asked for\n"
        "\nhint: allow more with `--max-drop`, or give more calibration samples\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--node", "weight_int8"),
            "error: `--node weight_int8` is not NAME=PRECISION\n\nhint: for example `--node Conv_1=weight_int8`\n",
        ),
        (
            ("--image-mean", "a,b"),
            "error: `--image-mean a,b` is no list of numbers\n\nhint: for example `0.485,0.456,0.406` or `127/255`\n",
        ),
        (("--image-std", "1,0,1"), "error: `--image-std 1,0,1` has a zero, by which pixels would be divided\n"),
        (
            ("--image-size", "8x"),
            "error: `--image-size 8x` is no size\n\nhint: for example `224`, or height and width, `224x320`\n",
        ),
        (
            ("--metric-timeout", "soon"),
            "error: `--metric-timeout soon` is no time\n\nhint: for example `10m`, `90s` or `1h30m`\n",
        ),
    ],
)
def test_words_that_are_off_are_refused(call, words, message):
    assert call("quantize", "m.onnx", "--calibration", "c.npz", *words, status=2).stderr == message


def test_precisions_without_ranges_need_no_samples(call):
    text = call("quantize", "m.onnx", "--precision", "weight_int8").stdout
    assert "on 2 random inputs\n" in text and Path("m.int8.onnx").is_file()
    message = (
        "error: int8 needs samples of real inputs: activations have ranges by these\n"
        "\nhint: give some with `--calibration`, or choose a `--precision` that needs none: dynamic, weight_int8, "
        "weight_int4\n"
    )
    assert call("quantize", "m.onnx", status=2).stderr == message
    assert call("quantize", "m.onnx", "--precision", "dynamic", "--node", "conv=int8", status=2).stderr == message


def test_images_are_calibration_data(call, tmp_path):
    library = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'nncc[images]'")
    (tmp_path / "photos").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3)).astype(np.uint8)
        library.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    words = ("--image-mean", "127/255", "--image-std", "128/255,0.5,0.5", "--observer", "minmax", "--json")
    facts = json.loads(call("quantize", "m.onnx", "--calibration", "photos", *words).stdout)
    assert facts["samples"] == {"calibrated": 6, "held_out": 2}


# ---- compare ----------------------------------------------------------------------------------------------------


def test_compare_shows_layers_and_outputs(call):
    call("quantize", "m.onnx", "--calibration", "c.npz", "--observer", "minmax")
    text = call("compare", "m.onnx", "m.int8.onnx", "--inputs", "c.npz", "--samples", "4").stdout
    assert text.startswith("the worst layers first, over 4 samples\n\n") and "\nno layer is below 20 dB\n" in text
    facts = json.loads(call("compare", "m.onnx", "m.int8.onnx", "-i", "c.npz", "--isolate", "--json").stdout)
    assert facts["isolated"] and facts["samples"] == 20
    assert [each["tensor"] for each in facts["outputs"]] == ["scores"]


# ---- compile ----------------------------------------------------------------------------------------------------


def test_compiling_with_samples_is_quantizing_and_compiling(call, tmp_path):
    words = ("--shape", "image=1x3x8x8", "--shape", "image=1x3x8x8")
    call("quantize", "m.onnx", "--calibration", "c.npz", "--shape", "image=1x3x8x8", "-o", "q.onnx")
    text = call("compile", "m.onnx", *words, "--quantize", "c.npz", "-o", "out", "--save-stages", "s").stdout
    assert "\nquantized\n  int8       2 of 2 layers, 100.0 % of 13.9 k multiplications\n  recipe     " in text
    assert "; on 5 samples held out\n\nintegers all of the multiply-adds\n" in text
    assert sorted(path.name for path in (tmp_path / "s").iterdir())[:3] == [
        "0-import.onnx", "1-quantize.onnx", "2-simplify.onnx",
    ]  # fmt: skip
    with np.load("c.npz") as arrays:
        sample = {"image": arrays["image"][:1]}
    expected = reference(tmp_path / "q.onnx", sample)["scores"]
    assert np.array_equal(reference(tmp_path / "s" / "1-quantize.onnx", sample)["scores"], expected)
    found = open_library(tmp_path / "out" / "m.so", 1).run(sample)["scores"]
    # An activation on the edge between two steps may fall to either side: one step, a few parts in a thousand.
    assert abs(found - expected).max() < 0.01 * abs(expected).max()
    text = call("compare", "m.onnx", "out/m.so", "-i", "c.npz", "--samples", "3").stdout
    assert text.startswith("outputs\n") and "scores" in text
    message = call("compare", "m.onnx", "out/m.so", "-i", "c.npz", "--isolate", status=2).stderr
    assert message.startswith("error: `out/m.so` is a library: only its outputs can be compared\n")


def test_a_recipe_is_followed_by_a_compilation(call, tmp_path):
    (tmp_path / "r.toml").write_text('[recipe]\nfloat_nodes = ["conv"]\n')
    words = ("--shape", "image=1x3x8x8", "--quantize", "c.npz", "--recipe", "r.toml", "--until", "quantize")
    facts = json.loads(call("compile", "m.onnx", *words, "--save-stages", "s", "--json").stdout)["quantize"]
    assert facts["layers"] == {"products": 2, "int8": 1}
    assert [each["reason"] for each in facts["stays_float"]] == ["the recipe says so"]
    nodes = {node.name: node for node in onnx.load("s/1-quantize.onnx").graph.node}
    assert nodes["conv"].input[1] == "w1" and nodes["last"].input[1] != "w2"


def test_a_recipe_without_samples_is_refused(call):
    assert call("compile", "m.onnx", "--recipe", "r.toml", status=2).stderr == (
        "error: `--recipe` says how to quantize, but not with which samples\n\nhint: give some with `--quantize`\n"
    )
    assert call("compile", "m.onnx", "--until", "quantize", status=2).stderr == (
        "error: the stage `quantize` does not run unless it is asked for\n\nhint: with `--quantize`\n"
    )
