"""Lists that are known while compiling leave nothing of themselves; ONNX Runtime agrees."""

from __future__ import annotations

from pathlib import Path

import onnx.parser
import pytest
from compiled import agrees, compile_net

from nncc.errors import ModelError

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'

SPLIT = """
net (float[7,2] a) => (float[3,2] x, float[1,2] y, float[2] z, int64 n) {
  three = Constant <value = int64 {3}> ()
  one = Constant <value = int64 {1}> ()
  last = Constant <value = int64 {-1}> ()
  parts = SplitToSequence <axis = 0> (a, three)
  x = SequenceAt (parts, one)
  y = SequenceAt (parts, last)
  n = SequenceLength (parts)
  rows = SplitToSequence <axis = 0, keepdims = 0> (a)
  z = SequenceAt (rows, three)
}"""

BUILT = """
net (float[2,3] a, float[2,3] b, float[1,3] c) => (float[5,3] x, float[2,2,3] y) {
  first = Constant <value = int64 {0}> ()
  none = SequenceEmpty ()
  p = SequenceInsert (none, a)
  q = SequenceInsert (p, c, first)
  r = SequenceInsert (q, b)
  x = ConcatFromSequence <axis = 0> (r)
  s = SequenceErase (r, first)
  t = Identity (s)
  y = ConcatFromSequence <axis = 0, new_axis = 1> (t)
}"""

LOOP = """
net (float[2] a, float[2] b) => (float[12] x) {
  n = Constant <value = int64 {6}> ()
  yes = Constant <value = bool {1}> ()
  none = SequenceEmpty ()
  all, last = Loop (n, yes, none, a) <body = body
    (int64 i, bool c, seq(float) s, float[2] p) => (bool d, seq(float) t, float[2] q) {
    d = Identity (c)
    q = Add (p, b)
    t = SequenceInsert (s, q)
  }>
  x = ConcatFromSequence <axis = 0> (all)
}"""

MAP = """
net (float[2] a, float[3] b, float[1] c) => (float[5] x, int64[2] n) {
  list = SequenceConstruct (a, b)
  sums, sizes = SequenceMap (list, c) <body = body (float[k] p, float[1] q) => (float[k] r, int64[1] s) {
    r = Add (p, q)
    s = Shape (r)
  }>
  x = ConcatFromSequence <axis = 0> (sums)
  n = ConcatFromSequence <axis = 0> (sizes)
}"""

OPTIONAL = """
net (float[2] a) => (float[2] x, bool y) {
  some = Optional (a)
  x = OptionalGetElement (some)
  y = OptionalHasElement (some)
}"""


@pytest.mark.parametrize("text", [SPLIT, BUILT, LOOP, MAP, OPTIONAL])
def test_lists_leave_nothing_of_themselves(text: str, tmp_path: Path) -> None:
    agrees(onnx.parser.parse_model(HEAD + text), tmp_path)


def test_a_position_known_at_run_time_is_refused(tmp_path: Path) -> None:
    text = SPLIT.replace("float[7,2] a", "float[7,2] a, int64 at").replace("(parts, one)", "(parts, at)")
    with pytest.raises(ModelError) as caught:
        compile_net(onnx.parser.parse_model(HEAD + text), tmp_path)
    assert f"{caught.value.message}\nhint: {caught.value.hint}" == (
        "the operator `SequenceAt` is used in a form that cannot be compiled: Only constant position supported for "
        "SequenceAt\nhint: fix it with `--bind at=...`, if it is the same in every run"
    )
