"""Quantized models under emulators: the same integers as ONNX Runtime's, whatever the processor multiplies with."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import compile_net
from quantized import attention, extremes, few_channels, inputs_of, many_kinds

from nncc.codegen.toolchains import find_toolchain
from nncc.emulation import emulator
from nncc.errors import TargetError, ToolError
from nncc.target import resolve

CASES = [
    ("arm64", "uint8"), ("arm64", "int8"), ("arm64-dotprod", "uint8"), ("arm64-dotprod", "int8"), ("armv7", "uint8"),
    ("riscv64", "int8"),
]  # fmt: skip
"""SMULL and SADALP, SDOT, which both take int8; plain arithmetic in vectors and in scalars, which takes either."""


@pytest.mark.parametrize("make", [many_kinds, few_channels, extremes, attention])
@pytest.mark.parametrize(("target", "data"), CASES)
def test_boards_give_the_same_integers(target, make, data, tmp_path):
    try:
        emulator(resolve(target))
        find_toolchain(resolve(target))
    except (TargetError, ToolError) as error:
        pytest.skip(f"{error} ({error.hint})")
    compiled = compile_net(make(data), tmp_path, target)
    inputs = compiled.sample(**inputs_of(make))
    found = compiled.run(inputs)
    for name, value in compiled.expected(inputs).items():
        assert np.array_equal(found[name], value), name
