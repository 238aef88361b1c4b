"""The table of operators that can be trained through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nncc.distillation import layers
from nncc.distillation.arithmetic import ARITHMETIC
from nncc.distillation.movements import MOVEMENTS
from nncc.distillation.rounding import dequantize_linear, quantize_linear

__all__ = ["OPERATORS"]

OPERATORS: Mapping[str, Callable[..., Any]] = {
    **ARITHMETIC,
    **MOVEMENTS,
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_normalization,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "DequantizeLinear": dequantize_linear,
    "Gemm": layers.gemm,
    "GlobalAveragePool": layers.global_average_pool,
    "GlobalMaxPool": layers.global_max_pool,
    "InstanceNormalization": layers.instance_normalization,
    "LayerNormalization": layers.layer_normalization,
    "LogSoftmax": layers.log_softmax,
    "MatMul": layers.matmul,
    "MaxPool": layers.max_pool,
    "QuantizeLinear": quantize_linear,
    "Resize": layers.resize,
    "Softmax": layers.softmax,
}
"""By ONNX's name, a function of a node and its operands (torch's tensors, None for a missing one) that gives its first
result, or all of them as a tuple."""
