"""Recurrent layers and control flow under emulators: what they compute here, vectors of whatever width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from compiled import ROUNDING, Net, agrees

from nncc.codegen.toolchains import find_toolchain
from nncc.emulation import emulator
from nncc.errors import TargetError, ToolError
from nncc.target import resolve

LOOP = """<ir_version: 8, opset_import: ["" : 17]>
net (int64 n, float[5] a, float limit) => (float[5] x) {
  yes = Constant <value = bool {1}> ()
  x = Loop (n, yes, a) <body = body (int64 i, bool c, float[5] p) => (bool d, float[5] r) {
    half = Constant <value = float {0.5}> ()
    q = Mul (p, half)
    largest = ReduceMax <keepdims = 0> (q)
    d = Greater (largest, limit)
    r = If (d) < then_branch = then () => (u) { u = Add (q, a) }, else_branch = other () => (v) { v = Neg (q) } >
  }>
}"""


def lstm() -> Net:
    net, hidden = Net(), 37
    operands = [net.input(6, 5, 8), net.weight(2, 4 * hidden, 8), net.weight(2, 4 * hidden, hidden)]
    operands += [net.weight(2, 8 * hidden), net.input(5, dtype=np.int32, name="lengths")]
    net.output(*net.op("LSTM", *operands, outputs=3, hidden_size=hidden, direction="bidirectional"))
    return net


@pytest.mark.parametrize("target", ["arm64", "armv7", "riscv64"])
def test_boards_go_through_steps_alike(target: str, tmp_path: Path) -> None:
    try:
        emulator(resolve(target))
        find_toolchain(resolve(target))
    except (TargetError, ToolError) as error:
        pytest.skip(f"{error} ({error.hint})")
    lengths = np.array([6, 1, 0, 4, 5], np.int32)
    agrees(lstm(), tmp_path / "lstm", target, inputs={"lengths": lengths}, tolerance=4 * ROUNDING)
    inputs = {"n": np.array(9), "limit": np.array(0.1, np.float32), "a": np.array([1, 2, 3, -4, 0.5], np.float32)}
    agrees(onnx.parser.parse_model(LOOP), tmp_path / "loop", target, inputs=inputs)
