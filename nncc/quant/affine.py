"""real = scale * (integer - zero_point): the integers that stand for real numbers, and how they follow from a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from nncc.quant.recipe import Recipe

__all__ = ["WEIGHT_LIMIT", "Affine", "affine_of_range", "dequantized", "largest_bias", "quantized", "weight_scale"]

WEIGHT_LIMIT = 127
"""Weights are within [-127, 127]: symmetric, and safe for kernels that multiply pairs of int8 into int16."""

_SMALLEST_SCALE = 2.0**-100
_LARGEST_SCALE = 2.0**100
"""Products of two scales within these stay normal float32 numbers, or nearly: 2^-126 to 2^127."""


@dataclass(frozen=True)
class Affine:
    """A scale (a float32 number), a zero point, and the dtype of the integers: ``"uint8"`` or ``"int8"``."""

    scale: float
    zero_point: int
    dtype: str

    @property
    def low(self) -> float:
        """The least real number that is represented."""
        return (self.limits[0] - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest one."""
        return (self.limits[1] - self.zero_point) * self.scale

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest integer."""
        return (0, 255) if self.dtype == "uint8" else (-128, 127)


def affine_of_range(low: float, high: float, recipe: Recipe) -> Affine:
    """The integers for real numbers of [low, high], which zero is added to: zero itself is exact.

    A range that is nothing but zero gets scale 1; no scale is below 2^-100, where products of scales would vanish.
    """
    import numpy as np

    low, high = min(low, 0.0), max(high, 0.0)
    unsigned = recipe.activations == "uint8"
    if recipe.symmetric:
        scale = max(-low, high) / 127
        zero_point = 128 if unsigned else 0
    else:
        scale = (high - low) / 255
        zero_point = 0
    if scale == 0.0:
        return Affine(1.0, 128 if recipe.symmetric and unsigned else 0, recipe.activations)
    scale = float(np.float32(np.clip(scale, _SMALLEST_SCALE, _LARGEST_SCALE)))
    if not recipe.symmetric:
        zero_point = int(np.clip(np.rint(-low / scale), 0, 255)) - (0 if unsigned else 128)
    return Affine(scale, zero_point, recipe.activations)


def quantized(array: np.ndarray, affine: Affine) -> np.ndarray:
    """The integers of `array`, rounded to even and saturated as QuantizeLinear does it."""
    import numpy as np

    low, high = affine.limits
    scaled = np.rint(array.astype(np.float32) / np.float32(affine.scale)) + affine.zero_point
    return np.clip(scaled, low, high).astype(affine.dtype)


def dequantized(integers: np.ndarray, affine: Affine) -> np.ndarray:
    """float32 numbers, as DequantizeLinear makes them."""
    import numpy as np

    return (integers.astype(np.int32) - affine.zero_point).astype(np.float32) * np.float32(affine.scale)


def largest_bias(bias: np.ndarray, input_scale: float) -> np.ndarray:
    """The least weight scales, one a channel, with which int32 holds `bias`: bias / (input_scale * scale) < 2^30."""
    import numpy as np

    return np.abs(bias.astype(np.float64)) / (input_scale * 2.0**30)


def weight_scale(limit: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """float32 scales for weights of these largest absolute values, at least `least` and 2^-100; 1 where both are 0."""
    import numpy as np

    scale = np.maximum(np.asarray(limit, np.float64) / WEIGHT_LIMIT, least)
    return np.where(scale == 0.0, 1.0, np.clip(scale, _SMALLEST_SCALE, _LARGEST_SCALE)).astype(np.float32)
