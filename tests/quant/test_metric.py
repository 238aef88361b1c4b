"""What a model is worth: commands and their failures, drops, and agreement with the float model."""

from __future__ import annotations

import math
import shlex
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from quant_models import lopsided

from nncc.errors import ModelError, ToolError, UsageError
from nncc.frontend.read_graph import read_graph
from nncc.quant.metric import Agreement, Command, Noise, agreement_of, max_drop, scored
from nncc.quant.session import Session

HINT = "it is a command that takes the path of an ONNX file and prints a number last, higher is better"
PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def script(tmp_path):
    """Writes a Python program; gives the command that runs it."""

    def script(text):
        (tmp_path / "score.py").write_text(f"import sys\n{text}\n")
        return f"{PYTHON} {tmp_path / 'score.py'}"

    return script


# ---- commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "score"),
    [
        ("0.5", 0.5),
        ("n 850\\ntop1: 91.25%", 91.25),
        ("a 1 b -2.5e-1\\n\\n", -0.25),
        ("epoch3 loss=.5 acc=7", 7.0),
        ("{'top1': 0.75}", 0.75),
    ],
)
def test_the_last_number_of_the_last_line_counts(tmp_path, script, printed, score):
    assert Command(script(f"print('''{printed}''')"))(tmp_path / "m.onnx") == score


def test_the_path_is_appended_or_stands_where_the_command_says(tmp_path, script):
    command = script("print(len(sys.argv), len(sys.argv[-1]))")
    path = tmp_path / "a model.onnx"
    assert Command(command)(path) == len(str(path))
    assert Command(f"{command} --model={{model}} -x")(path) == len("-x")
    assert Command(f"{command} -x --model={{model}}")(path) == len(f"--model={path}")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "print('half way'); sys.exit('no such file: labels.txt')",
            "the metric `{words}` failed with status 1:\n  no such file: labels.txt",
            "run it by hand to see why",
        ),
        (
            "print('lost'); sys.exit(3)",
            "the metric `{words}` failed with status 3:\n  lost",
            "run it by hand to see why",
        ),
        (
            "import os; os.kill(os.getpid(), 9)",
            "the metric `{words}` failed with signal 9:\n  (it said nothing)",
            "run it by hand to see why",
        ),
        ("", "the metric `{words}` printed no number: it printed nothing", HINT),
        (
            "print(1.5); print('done'); print('warned', file=sys.stderr)",
            "the metric `{words}` printed no number: its last line is 'done'\n  warned",
            HINT,
        ),
        ("print('nan')", "the metric `{words}` gave nan, which nothing can be compared with", HINT),
        ("print('score -inf')", "the metric `{words}` gave -inf, which nothing can be compared with", HINT),
        (
            "import time; time.sleep(600)",
            "the metric `{words}` took longer than 1 s",
            "allow more with `--metric-timeout`",
        ),
    ],
)
def test_a_failing_command_is_an_error_with_its_words(tmp_path, script, text, message, hint):
    command, path = script(text), tmp_path / "m.onnx"
    with pytest.raises(ToolError) as caught:
        Command(command, seconds=1 if "sleep" in text else 120)(path)
    assert caught.value.message == message.replace("{words}", f"{command} {path}")
    assert caught.value.hint == hint


def test_what_a_command_started_ends_with_it(tmp_path, script):
    started = f"[{sys.executable!r}, '-c', 'import time; time.sleep(600)']"
    start = time.monotonic()
    with pytest.raises(ToolError):
        Command(script(f"import subprocess; subprocess.run({started})"), seconds=1)(tmp_path / "m.onnx")
    assert time.monotonic() - start < 300


def test_a_command_that_is_none_is_an_error(tmp_path):
    with pytest.raises(ToolError) as caught:
        Command("/no/such/program --x")(tmp_path / "m.onnx")
    path = tmp_path / "m.onnx"
    assert caught.value.message == f"the metric `/no/such/program --x {path}` cannot be run: No such file or directory"
    for text, message in (("", "`--metric` is empty"), ("a 'b", "`--metric a 'b` is no command: No closing quotation")):
        with pytest.raises(UsageError) as usage:
            Command(text)
        assert (usage.value.message, usage.value.hint) == (message, HINT)


def test_a_function_may_be_the_metric(tmp_path):
    def worth(path):
        return {"a": 2, "b": "much", "c": math.nan}[path.stem]

    assert scored(worth, tmp_path / "a.onnx") == 2.0
    for name, message in (
        ("b", "the metric `worth` gave 'much', which is no number"),
        ("c", "the metric `worth` gave nan, which nothing can be compared with"),
        ("d", "the metric `worth` failed: KeyError: 'd'"),
    ):
        with pytest.raises(ToolError) as caught:
            scored(worth, tmp_path / f"{name}.onnx")
        assert caught.value.message == message


# ---- drops ------------------------------------------------------------------------------------------------------


def test_a_drop_is_relative_with_a_percent_sign_and_absolute_without():
    assert max_drop("0.5%").floor(0.9) == pytest.approx(0.9 * 0.995)
    assert max_drop("0.005").floor(90.0) == pytest.approx(89.995)
    assert max_drop(0).floor(0.9) <= 0.9
    assert max_drop("1%").floor(-2.0) == pytest.approx(-2.02)
    assert (str(max_drop("0.5%")), str(max_drop(0.25))) == ("0.5%", "0.25")


@pytest.mark.parametrize("word", ["half", "-1%", "nan", "", "%", "inf"])
def test_what_is_no_drop_is_an_error(word):
    with pytest.raises(UsageError) as caught:
        max_drop(word)
    assert caught.value.message == f"`--max-drop {word}` is no drop"
    assert caught.value.hint == (
        "`0.5%` is half a percent of the float model's score, `0.005` as much in the metric's own unit"
    )


# ---- agreement --------------------------------------------------------------------------------------------------


def scaled(path, factor, shape=("N", 4), last=()):
    """y = x * factor, followed by the operators in `last`."""
    names = ["x0", *(f"v{n}" for n in range(len(last))), "y"]
    nodes = [helper.make_node("Mul", ["x", "factor"], [names[1] if last else "y"])]
    nodes += [helper.make_node(op, [names[n + 1]], [names[n + 2]]) for n, op in enumerate(last)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "scaled",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, (4,), factor)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_agreement_counts_rows_or_power(tmp_path):
    exact = Session(scaled(tmp_path / "a.onnx", (1.0, 1.0, 1.0, 1.0)))
    other = Session(scaled(tmp_path / "b.onnx", (1.0, 1.0, 1.0, 0.5)))
    samples = [{"x": np.float32([row])} for row in ([0, 0, 3, 4], [1, 0, 0, 0])]
    top1 = Agreement("top1", exact, samples)
    assert (top1(exact), top1(other)) == (1.0, 0.5)
    # Of the power 9 + 16 + 1 an error of (4 - 2)^2 is lost.
    assert Agreement("sqnr", exact, samples)(other) == pytest.approx(1 - 4 / 26)
    assert top1(other, "sqnr") == pytest.approx(1 - 4 / 26)


def test_a_model_that_gives_nan_agrees_in_nothing(tmp_path):
    exact = Session(scaled(tmp_path / "a.onnx", (1.0, 1.0, 1.0, 1.0)))
    broken = Session(scaled(tmp_path / "b.onnx", (1.0, 1.0, 1.0, math.nan)))
    assert Agreement("sqnr", exact, [{"x": np.ones((1, 4), np.float32)}])(broken) == -math.inf


def test_classifiers_are_told_by_their_last_operator(tmp_path):
    assert agreement_of(read_graph(lopsided(tmp_path / "l.onnx"))) == "top1"
    kinds = {(): "sqnr", ("Softmax",): "top1", ("Softmax", "Identity"): "top1", ("Sigmoid",): "sqnr"}
    for last, kind in kinds.items():
        assert agreement_of(read_graph(scaled(tmp_path / "s.onnx", (1.0,) * 4, last=last))) == kind


def test_a_model_without_floats_to_compare_is_an_error(tmp_path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
        "cast",
        [value("x", TensorProto.FLOAT, (1, 4))],
        [value("y", TensorProto.INT64, (1, 4))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "c.onnx")
    with pytest.raises(ModelError) as caught:
        Agreement("sqnr", Session(tmp_path / "c.onnx"), [])
    assert caught.value.message == "the model has no output of floats to compare"
    assert caught.value.hint == "give a metric of your own: `--metric`"


def test_noise_is_measured_at_the_logits_and_averaged_in_decibels(tmp_path):
    exact = read_graph(scaled(tmp_path / "a.onnx", (1.0,) * 4, last=("Softmax",)))
    other = read_graph(scaled(tmp_path / "b.onnx", (1.0, 1.0, 1.0, 0.9), last=("Softmax",)))
    noise = Noise(exact, [{"x": np.float32([row])} for row in ([0, 0, 0, 4], [3, 0, 0, 4])])
    # 0.16 of 16 and 0.16 of 25: the mean in decibels is the geometric mean.
    assert noise(other) == pytest.approx((0.16 / 16 * 0.16 / 25) ** 0.5, rel=1e-5)
    assert noise(exact) < 1e-20
    broken = read_graph(scaled(tmp_path / "c.onnx", (1.0, 1.0, 1.0, math.nan), last=("Softmax",)))
    assert noise(broken) > 1e100
