"""Which elements a resized axis is made of: y[i] = sum_t weights[i, t] x[indices[i, t]], known while compiling.

The equations are those of ONNX's Resize. Where a model gives scales, coordinates are computed in float32, as ONNX
Runtime has them: what is next to a half, or to a whole number, is rounded to the same side. Where it gives sizes, a
coordinate that is a half, or whole, but for rounding, is taken for just that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nncc.errors import ModelError

__all__ = ["Resampling", "Sampled", "sample"]


@dataclass(frozen=True)
class Resampling:
    """How Resize interpolates, in the words of its attributes."""

    mode: str
    coordinates: str
    nearest_mode: str
    cubic_coeff_a: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class Sampled:
    """One axis of `size` elements: `indices` int32 and `weights` float64, both [resized, taps]; `outside`, bool
    [resized], is where it has nothing to give."""

    axis: int
    size: int
    indices: np.ndarray
    weights: np.ndarray
    outside: np.ndarray

    @property
    def picks(self) -> bool:
        """Whether each result is one element as it is."""
        return self.indices.shape[1] == 1 and bool((self.weights == 1).all())

    @property
    def steps(self) -> tuple[int, int] | None:
        """(r, s) where tap t of element i is at (i + s) div r + t, or at the end that is next to it; None where it is
        not so for all."""
        resized, taps = self.indices.shape
        r = resized // max(1, self.size)
        if r < 1 or r * self.size != resized or self.outside.any():
            return None
        i, t = np.arange(resized)[:, None], np.arange(taps)
        for s in range(-r * taps, r):
            if (self.indices == np.clip((i + s) // r + t, 0, self.size - 1)).all():
                return r, s
        return None

    @property
    def is_identity(self) -> bool:
        """Whether the axis stays as it is."""
        same = self.indices.shape[0] == self.size and self.picks and not self.outside.any()
        return same and bool((self.indices[:, 0] == np.arange(self.size)).all())


def sample(
    axis: int, size: int, resized: int, scale: np.floating, how: Resampling, roi: tuple[float, float] = (0.0, 1.0)
) -> Sampled:
    """What `resized` elements of an axis of `size` elements are made of.

    `scale` is a float32 that the model gives, or, in float64, the ratio of the sizes.
    """
    x = _coordinates(size, resized, scale, how.coordinates, roi)
    outside = (x < 0) | (x > size - 1) if how.coordinates == "tf_crop_and_resize" else np.zeros(resized, bool)
    if how.mode == "nearest":
        indices, weights = _rounded(x, how.nearest_mode, scale)[:, None], np.ones((resized, 1))
    else:
        indices, weights = _window(x.astype(np.float64), min(float(scale), 1.0) if how.antialias else 1.0, how)
        if how.exclude_outside:
            weights = np.where((indices < 0) | (indices >= size), 0.0, weights)
            total = weights.sum(1, keepdims=True)
            weights = weights / np.where(total == 0, 1.0, total)
        used = (weights != 0).any(0)
        used[0] |= not used.any()
        indices, weights = indices[:, used], weights[:, used]
    return Sampled(axis, size, np.clip(indices, 0, size - 1).astype(np.int32), weights, outside)


def _coordinates(size: int, resized: int, scale: np.floating, mode: str, roi: tuple[float, float]) -> np.ndarray:
    """Where in the input the elements of the result are, in the dtype of the scale."""
    f = type(scale)
    at = np.arange(resized, dtype=f)
    length = f(scale * f(size))
    half, one = f(0.5), f(1)
    if mode == "asymmetric":
        return at / scale
    if mode == "half_pixel":
        return (at + half) / scale - half
    if mode == "pytorch_half_pixel":
        return (at + half) / scale - half if resized > 1 else np.zeros(resized, f)
    if mode == "half_pixel_symmetric":
        return f(size / 2) * (one - f(resized) / length) + (at + half) / scale - half
    if mode == "align_corners":
        return at * f(size - 1) / f(length - one) if length != 1 else np.zeros(resized, f)
    if mode == "tf_crop_and_resize":
        start, end = f(roi[0]), f(roi[1])
        if resized > 1:
            return start * f(size - 1) + at * (end - start) * f(size - 1) / f(resized - 1)
        return np.full(resized, half * (start + end) * f(size - 1), f)
    raise ModelError(f"its coordinate_transformation_mode is `{mode}`")


def _rounded(x: np.ndarray, mode: str, scale: np.floating) -> np.ndarray:
    """The elements nearest to the coordinates; ``simple`` is what there was before opset 11."""
    if x.dtype == np.float64:
        near = np.round(2 * x) / 2
        x = np.where(np.abs(x - near) <= 4e-7 * np.maximum(1, np.abs(x)), near, x)
    x = x.astype(np.float64)  # in which a half can be added without rounding
    if mode == "floor":
        return np.floor(x)
    if mode == "ceil":
        return np.ceil(x)
    if mode == "round_prefer_floor":
        return np.ceil(x - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(x + 0.5)
    if mode == "simple":
        return np.ceil(x) if scale < 1 else np.trunc(x)
    raise ModelError(f"its nearest_mode is `{mode}`")


def _window(x: np.ndarray, scale: float, how: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights, [n, taps]: the kernel around each coordinate, stretched by 1 / scale where that is above 1.

    The indices go past the ends of the axis; what is there are the ends themselves.
    """
    reach = {"linear": 1, "cubic": 2}.get(how.mode)
    if reach is None:
        raise ModelError(f"its mode is `{how.mode}`")
    start = int(np.floor(-reach / scale)) + 1
    taps = np.arange(start, 2 - start)
    base = np.floor(x)
    distance = np.abs(taps[None] - (x - base)[:, None]) * scale
    if how.mode == "linear":
        weights = np.clip(1 - distance, 0, None)
    else:
        a = how.cubic_coeff_a
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    if scale < 1:
        weights = weights / weights.sum(1, keepdims=True)
    return base[:, None] + taps[None], weights
