"""Lists of tensors that go in and come out are as many tensors of a library."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest
from compiled import compile_net

from nncc.errors import ModelError

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'

ADD = """
net (seq(float[k]) xs, float[1] y) => (seq(float[k]) sums, int64 n) {
  sums = SequenceMap (xs, y) <body = body (float[k] p, float[1] q) => (float[k] r) { r = Add (p, q) }>
  n = SequenceLength (xs)
}"""

OPTIONAL = """
net (optional(float[2]) x, float[2] y) => (float[2] z) {
  there = OptionalHasElement (x)
  z = If (there) <
    then_branch = then () => (a) { v = OptionalGetElement (x) a = Add (v, y) },
    else_branch = other () => (b) { b = Neg (y) }
  >
}"""


def saved(text: str, folder: Path) -> Path:
    onnx.save(onnx.parser.parse_model(HEAD + text), folder / "net.onnx")
    return folder / "net.onnx"


def test_a_list_is_as_many_inputs_and_outputs(tmp_path: Path) -> None:
    compiled = compile_net(saved(ADD, tmp_path), tmp_path, shape={"xs[0]": (3,), "xs[1]": (1,), "xs[2]": (4,)})
    assert [spec.name for spec in compiled.model.inputs] == ["xs[0]", "xs[1]", "xs[2]", "y"]
    assert [str(spec) for spec in compiled.model.outputs] == [
        "sums[0]: float32[3]", "sums[1]: float32[1]", "sums[2]: float32[4]", "n: int64[]"
    ]  # fmt: skip
    inputs = compiled.sample()
    outputs = compiled.run(inputs)
    for number in range(3):
        assert (outputs[f"sums[{number}]"] == inputs[f"xs[{number}]"] + inputs["y"]).all()
    assert outputs["n"] == 3


def test_an_empty_list_is_no_input(tmp_path: Path) -> None:
    compiled = compile_net(saved(ADD, tmp_path), tmp_path, shape={"xs[]": ()})
    assert [spec.name for spec in compiled.model.inputs] == ["y"]
    assert [spec.name for spec in compiled.model.outputs] == ["n"]


def test_what_is_optional_is_there_or_not(tmp_path: Path) -> None:
    path = saved(OPTIONAL, tmp_path)
    with_x = compile_net(path, tmp_path / "with", shape={"x": (2,)})
    inputs = with_x.sample()
    assert (with_x.run(inputs)["z"] == inputs["x"] + inputs["y"]).all()
    without = compile_net(path, tmp_path / "without", shape={"x[]": ()})
    assert (without.run({"y": inputs["y"]})["z"] == -inputs["y"]).all()


def refusal(text: str, folder: Path, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        compile_net(saved(text, folder), folder, **options)
    return f"{caught.value.message}\nhint: {caught.value.hint}"


def test_a_list_of_unknown_length_is_refused(tmp_path: Path) -> None:
    assert refusal(ADD, tmp_path) == (
        "input `xs` is a list of tensors\n"
        "hint: say how large each is, `--shape xs[0]=... --shape xs[1]=...`, or `--shape xs[]=` if it is always empty"
    )


def test_something_optional_of_which_nothing_is_said_is_refused(tmp_path: Path) -> None:
    assert refusal(OPTIONAL, tmp_path) == (
        "input `x` is optional\nhint: say how large it is, `--shape x=...`, or `--shape x[]=` if it is never there"
    )


def test_a_list_that_comes_out_with_an_unknown_length_is_refused(tmp_path: Path) -> None:
    text = """
    net (float[6] x, int64 size) => (seq(float[k]) parts) { parts = SplitToSequence <axis = 0> (x, size) }"""
    said = refusal(text, tmp_path)
    assert said.endswith("hint: fix it with `--bind size=...`, if it is the same in every run")


def test_a_list_of_more_tensors_than_a_graph_holds_is_refused(tmp_path: Path) -> None:
    text = """
net (float[4097] x) => (float[1] y) {
  parts = SplitToSequence (x)
  at = Constant <value_int: int = 1> ()
  y = SequenceAt (parts, at)
}"""
    assert refusal(text, tmp_path).startswith("`parts` makes a list of more than 4,096 tensors")
