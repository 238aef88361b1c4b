"""MelWeightMatrix: triangular filters on the mel scale, a constant.

mel(f) = 2595 log10(1 + f / 700)      num_mel_bins + 2 edges at equal distances, as bins of the spectrogram
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import required

__all__ = ["mel_weight_matrix"]

_DTYPES = {1: "float32", 10: "float16", 11: "float64"}
"""By ONNX's number of a type."""
_LARGEST = 1 << 28


def mel_weight_matrix(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """[dft_length // 2 + 1, num_mel_bins], of inputs that are all constant."""
    names = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz")
    values = [required(expr, name).reshape(()) for expr, name in zip(inputs, names, strict=True)]
    bins, length, rate = (int(value) for value in values[:3])
    low, high = (float(value) for value in values[3:])
    dtype = _DTYPES.get(int(attributes.get("output_datatype", 1)))
    if dtype is None:
        raise ModelError(f"its output_datatype is {attributes['output_datatype']}")
    usable = bins > 0 and length > 0 and rate > 0 and 0 <= low <= high and np.isfinite(high)
    if not usable or bins * (length // 2 + 1) > _LARGEST:
        raise ModelError(f"{bins} mel bins of {length} elements at {rate} Hz from {low:g} to {high:g} Hz")
    first, last = (2595 * np.log10(1 + f / 700) for f in (low, high))
    edges = np.linspace(first, last, bins + 2, endpoint=False)
    edges = ((length + 1) * 700 * np.expm1(edges / 2595 * np.log(10)) // rate).astype(np.int64)
    if edges[-1] > length // 2 + 1:
        raise ModelError(f"its upper edge, {high:g} Hz, is above half the sample rate of {rate} Hz")
    return relax.const(_filters(edges, length // 2 + 1).astype(dtype), dtype)


def _filters(edges: np.ndarray, size: int) -> np.ndarray:
    at = np.arange(size)
    matrix = np.zeros((size, len(edges) - 2))
    for column, (left, middle, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        if middle == left:
            matrix[at == middle, column] = 1
        else:
            rising = (at >= left) & (at <= middle)
            matrix[rising, column] = (at[rising] - left) / (middle - left)
        if right > middle:
            falling = (at >= middle) & (at < right)
            matrix[falling, column] = (right - at[falling]) / (right - middle)
    return matrix
