"""Dequantized constants that no kernel of integers takes are floats before run time."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import lowered
from quantized_nets import QuantizedNet


@pytest.mark.parametrize("axis", [None, 0])
def test_no_kernel_dequantizes_what_is_constant(axis, tmp_path):
    net = QuantizedNet(17)
    shape = () if axis is None else (4,)
    given = [net.constant(np.full(shape, 0.5, np.float32)), net.constant(np.full(shape, 3, np.int8))]
    attributes = {} if axis is None else {"axis": axis}
    weight = net.op("DequantizeLinear", net.integers(4, 6, dtype=np.int8), *given, **attributes)
    net.result(net.op("Mul", net.input(4, 6), net.op("Exp", weight)), np.float32)
    kernels = [name.name_hint for name in lowered(net, tmp_path).module.functions]
    assert not any("dequantize" in name for name in kernels), kernels
