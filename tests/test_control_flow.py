"""Branches and loops at run time compute what ONNX Runtime computes; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from compiled import ROUNDING, Compiled, agrees, compile_net

from nncc.config import Config
from nncc.errors import ModelError
from nncc.ir import Branch, Call, Loop
from nncc.pipeline import plan, run

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


BRANCH = """
net (bool c, float[2,3] x, float[2,3] y) => (float[2,3] z, float[2,3] w) {
  k = Constant <value = float[3] {1, 2, 3}> ()
  s = Add(x, k)
  z, t = If (c) <
    then_branch = then () => (a, b) { m = Mul(s, y) a = Relu(m) b = Identity(x) },
    else_branch = other () => (d, e) { n = Sub(s, y) d = Exp(n) e = Add(d, k) }
  >
  w = Add(t, s)
}"""

FIBONACCI = """
net (int64 n, float[4] a, float[4] b) => (float[4] x, float[4] y) {
  yes = Constant <value = bool {1}> ()
  x, y = Loop (n, yes, a, b) <body = body
    (int64 i, bool c, float[4] p, float[4] q) => (bool d, float[4] r, float[4] s) {
    d = Identity(c)
    r = Identity(q)
    s = Add(p, q)
  }>
}"""

SWAP = """
net (int64 n, float[4] a, float[4] b) => (float[4] x, float[4] y) {
  x, y = Loop (n, , a, b) <body = body (int64 i, bool c, float[4] p, float[4] q) => (bool d, float[4] r, float[4] s) {
    d = Identity(c)
    r = Identity(q)
    s = Identity(p)
  }>
}"""

UNTIL = """
net (float[3] a, float limit) => (float[3] x, int64[1] steps) {
  yes = Constant <value = bool {1}> ()
  zero = Constant <value = int64[1] {0}> ()
  x, steps = Loop (, yes, a, zero) <body = body
    (int64 i, bool c, float[3] p, int64[1] n) => (bool d, float[3] r, int64[1] m) {
    one = Constant <value = int64[1] {1}> ()
    half = Constant <value = float {0.5}> ()
    r = Mul(p, half)
    m = Add(n, one)
    largest = ReduceMax<keepdims = 0>(r)
    d = Greater(largest, limit)
  }>
}"""

STACKED = """
net (float[2,3] a, float[TIMES,2,3] xs) =>
    (float[2,3] last, float[TIMES,2,3] sums, float[TIMES,2,3] before, int64[TIMES] number) {
  n = Constant <value = int64 {TIMES}> ()
  yes = Constant <value = bool {1}> ()
  last, sums, before, number = Loop (n, yes, a) <
    body = body (int64 i, bool c, float[2,3] p) => (bool d, float[2,3] r, float[2,3] s, float[2,3] t, int64 j) {
      d = Identity(c)
      x = Gather<axis = 0>(xs, i)
      r = Add(p, x)
      s = Mul(r, r)
      t = Identity(p)
      j = Mul(i, i)
    }
  >
}"""

SCAN = """
net (float[2] h, float[2,TIMES,3] xs, float[TIMES] ws) =>
    (float[2] last, float[2,TIMES] sums, float[TIMES,2] again) {
  axes = Constant <value = int64[1] {1}> ()
  last, sums, again = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [0, 1],
                            scan_output_axes = [1, 0], scan_output_directions = [0, 1],
    body = body (float[2] p, float[2,3] x, float w) => (float[2] r, float[2] s, float[2] t) {
      y = ReduceSum<keepdims = 0>(x, axes)
      z = Mul(y, w)
      r = Add(p, z)
      s = Tanh(r)
      t = Neg(r)
    }
  > (h, xs, ws)
}"""

NESTED = """
net (int64 n, float[3] a, float[3] b) => (float[3] x) {
  yes = Constant <value = bool {1}> ()
  x = Loop (n, yes, a) <body = body (int64 i, bool c, float[3] p) => (bool d, float[3] r) {
    d = Identity(c)
    q = Loop (i, c, p) <body = inner (int64 j, bool e, float[3] u) => (bool f, float[3] v) {
      f = Identity(e)
      w = Mul(u, b)
      v = Add(w, p)
    }>
    three = Constant <value = int64 {3}> ()
    late = Less(three, i)
    r = If (late) <
      then_branch = then () => (g) { g = Sub(q, a) },
      else_branch = other () => (k) { k = Tanh(q) }
    >
  }>
}"""


def steps(compiled: Compiled, kind: type) -> list:
    """The steps of a kind at the outermost level."""
    return [step for step in compiled.program.steps if isinstance(step, kind)]


def agrees_for(compiled: Compiled, name: str, *values: object) -> None:
    """Claim that the library computes what ONNX Runtime computes for each value of one input."""
    for value in values:
        found = compiled.comparisons(compiled.sample(**{name: np.asarray(value)}), ROUNDING)
        assert all(comparison.ok for comparison in found), f"{name} = {value}: {found}"


def test_one_of_two_branches_runs(tmp_path: Path) -> None:
    compiled = compile_net(model(BRANCH), tmp_path)
    agrees_for(compiled, "c", True, False)
    assert len(steps(compiled, Branch)) == 1


@pytest.mark.parametrize("text", [FIBONACCI, SWAP])
def test_values_carried_by_a_loop(text: str, tmp_path: Path) -> None:
    compiled = compile_net(model(text), tmp_path)
    agrees_for(compiled, "n", 0, 1, 2, 7)
    assert len(steps(compiled, Loop)) == 1


def test_a_negative_number_of_iterations_is_none(tmp_path: Path) -> None:
    compiled = compile_net(model(FIBONACCI), tmp_path)
    inputs = compiled.sample(n=np.array(-5))
    assert np.array_equal(compiled.run(inputs)["x"], inputs["a"])


def test_a_loop_runs_while_its_condition_holds(tmp_path: Path) -> None:
    compiled = compile_net(model(UNTIL), tmp_path)
    agrees_for(compiled, "limit", np.float32(100), np.float32(0.1), np.float32(1e-3))


@pytest.mark.parametrize(("times", "loops"), [(4, 0), (40, 1)])
@pytest.mark.parametrize("text", [STACKED, SCAN])
def test_slices_are_taken_and_stacked_where_a_loop_is_short_and_where_it_is_kept(
    text: str, times: int, loops: int, tmp_path: Path
) -> None:
    text = text.replace("TIMES", str(times)).replace("z = Mul(y, w)", "v = Tanh(y) z = Mul(v, w)")
    compiled = agrees(model(text), tmp_path, tolerance=2e-5 * times)  # sums of so many terms, squared
    assert len(steps(compiled, Loop)) == loops
    assert max(compiled.program.times) == (times if loops else 1)


def test_loops_and_branches_within_loops(tmp_path: Path) -> None:
    compiled = compile_net(model(NESTED), tmp_path)
    agrees_for(compiled, "n", 6, 3)
    (loop,) = steps(compiled, Loop)
    assert any(isinstance(step, Loop) for step in loop.steps) and any(isinstance(step, Branch) for step in loop.steps)
    assert "loop input[0] times" in compiled.program.text()
    assert all(isinstance(call, Call) for call in compiled.program.calls)
    assert len(compiled.artifact.description["calls"]) == len(compiled.program.calls)


GROWS = """
net (int64 n, float[1] a) => (float[1] sum) {
  yes = Constant <value = bool {1}> ()
  x = Loop (n, yes, a) <body = body (int64 i, bool c, float[k] p) => (bool d, float[m] r) {
    d = Identity(c)
    r = Concat<axis = 0>(p, a)
  }>
  total = ReduceSum<keepdims = 0>(x)
  one = Constant <value = int64[1] {1}> ()
  sum = Reshape(total, one)
}"""

UNKNOWN = """
net (int64 n, float[2] a) => (float sum) {
  yes = Constant <value = bool {1}> ()
  x, xs = Loop (n, yes, a) <body = body (int64 i, bool c, float[2] p) => (bool d, float[2] r, float[2] s) {
    d = Identity(c)
    r = Add(p, a)
    s = Identity(r)
  }>
  sum = ReduceSum<keepdims = 0>(xs)
}"""

DIFFERENT = """
net (bool c, float[2] a) => (float[2] y) {
  x = If (c) <
    then_branch = then () => (p) { p = Identity(a) },
    else_branch = other () => (q) { q = Concat<axis = 0>(a, a) }
  >
  axes = Constant <value = int64[1] {0}> ()
  s = ReduceSum(x, axes)
  y = Add(s, a)
}"""


def refusal(text: str, folder: Path, target: str = "native") -> str:
    with pytest.raises(ModelError) as caught:
        compile_net(model(text), folder, target)
    return f"{caught.value.message}\nhint: {caught.value.hint}"


def bind(name: str) -> str:
    return f"fix it with `--bind {name}=...`, if it is the same in every run"


def test_branches_of_different_shapes_are_refused(tmp_path: Path) -> None:
    assert refusal(DIFFERENT, tmp_path) == (
        f"in If `x`: one branch gives float32[2], the other float32[4]\nhint: {bind('c')}"
    )


def test_what_grows_in_a_loop_is_refused(tmp_path: Path) -> None:
    assert refusal(GROWS, tmp_path) == (
        f"in Loop `x`: `p` is float32[1] before an iteration and float32[2] after it\nhint: {bind('n')}"
    )


def test_a_stack_of_unknown_height_is_refused(tmp_path: Path) -> None:
    assert refusal(UNKNOWN, tmp_path) == (
        "in Loop `x`: how often it runs is known at run time only, and so the length of its output `xs`\nhint: "
        + bind("n")
    )


def test_gpus_do_not_decide_what_they_compute(tmp_path: Path) -> None:
    onnx.save(model(FIBONACCI), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        run(plan(tmp_path / "net.onnx", Config(target="cuda-sm80", until="specialize", verify=False)))
    assert f"{caught.value.message}\nhint: {caught.value.hint}" == (
        "the model decides at run time what it computes (1 x If, Loop or Scan), which cannot be compiled for "
        f"`cuda-sm80`\nhint: {bind('n')}"
    )


SCAN_8 = """
net (float[1,2] h, float[1,3,2] xs) => (float[1,2] last, float[1,3,2] sums) {
  last, sums = Scan ("", h, xs) <num_scan_inputs = 1,
    body = body (float[2] p, float[2] x) => (float[2] r, float[2] s) { r = Add (p, x) s = Identity (r) }>
}"""


def test_scans_over_batches_are_refused(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(HEAD.replace("17", "8") + SCAN_8), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        compile_net(tmp_path / "net.onnx", tmp_path)
    assert f"{caught.value.message}\nhint: {caught.value.hint}" == (
        "in Scan `last`: it is that of opset 8, over batches, which cannot be compiled\n"
        "hint: export the model again with a newer opset"
    )


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    inside = "y = Neg (x)"
    for level in range(9):
        other = f"else_branch = other{level} () => (y) {{ y = Exp (x) }}"
        inside = f"y = If (c) < then_branch = then{level} () => (y) {{ {inside} }}, {other} >"
    assert refusal(f"net (bool c, float[2] x) => (float[2] y) {{ {inside} }}", tmp_path) == (
        "the model's control flow is nested more than 8 deep, in `then0`\nhint: export it again with less of it"
    )
