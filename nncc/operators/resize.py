"""Resize and Upsample: a sum over each axis whose indices and weights are known while compiling.

    y[.., i, ..] = sum_t weights[i, t] x[.., indices[i, t], ..]      for one axis after another

Results outside of what ``tf_crop_and_resize`` crops are `extrapolation_value`. Integers are interpolated in floating
point and cut off towards zero, as ONNX Runtime does; antialiased ones are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from nncc.compat import relax
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import axis_within, cast, dtype_of, optional, required, shape_of
from nncc.operators.resample import Axis, Resample, emit_resample
from nncc.operators.sampling import Resampling, Sampled, sample

__all__ = ["resize", "upsample"]


def resize(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Resize of opset 10 and later."""
    x, *given = [*inputs, None, None, None][:4]
    roi, scales, sizes = given if attributes.opset >= 11 else (None, given[0], None)
    rank = len(x.ty.shape)
    axes = [axis_within(axis, rank) for axis in attributes.ints("axes", range(rank))]
    how = Resampling(
        mode=attributes.text("mode", "nearest"),
        coordinates=attributes.text(
            "coordinate_transformation_mode", "half_pixel" if attributes.opset >= 11 else "asymmetric"
        ),
        nearest_mode=attributes.text("nearest_mode", "round_prefer_floor" if attributes.opset >= 11 else "simple"),
        cubic_coeff_a=float(attributes.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
        antialias=bool(attributes.get("antialias", 0)),
    )
    cropped = required(roi, "roi").reshape(-1) if how.coordinates == "tf_crop_and_resize" else None
    if cropped is not None and len(cropped) != 2 * len(axes):
        raise ModelError(f"its roi has {len(cropped)} numbers for {len(axes)} axes")
    extents = _extents(
        [shape_of(x)[axis] for axis in axes],
        None if _left_out(scales) else required(scales, "scales"),
        None if _left_out(sizes) else required(sizes, "sizes"),
        attributes.text("keep_aspect_ratio_policy", "stretch"),
    )
    sampled = [
        sample(
            axis,
            shape_of(x)[axis],
            resized,
            scale,
            how,
            (0.0, 1.0) if cropped is None else (cropped[at], cropped[at + len(axes)]),
        )
        for at, (axis, (resized, scale)) in enumerate(zip(axes, extents, strict=True))
    ]
    return _resampled(builder, x, sampled, how, float(attributes.get("extrapolation_value", 0.0)))


def upsample(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Upsample of opset 7 and 9, whose result has floor(size * scale) elements along an axis."""
    x, *given = inputs
    scales = np.asarray(attributes["scales"], np.float32) if "scales" in attributes else required(given[0], "scales")
    how = Resampling(attributes.text("mode", "nearest"), "asymmetric", "simple", -0.75, False, False)
    extents = _extents(shape_of(x), scales, None, "stretch")
    shape = shape_of(x)
    sampled = [sample(axis, shape[axis], resized, scale, how) for axis, (resized, scale) in enumerate(extents)]
    return _resampled(builder, x, sampled, how, 0.0)


def _left_out(expr: Any) -> bool:
    """Whether an input is not given; an empty one stands for that too."""
    value = optional(expr)
    return expr is None or (value is not None and value.size == 0)


def _extents(
    shape: Sequence[int], scales: np.ndarray | None, sizes: np.ndarray | None, policy: str
) -> list[tuple[int, np.floating]]:
    """The new size of each axis, and what it is scaled by: float32 as given, or float64."""
    given = scales if scales is not None else sizes
    if given is None or (scales is not None and sizes is not None):
        raise ModelError("it has both scales and sizes, or neither")
    if given.ndim != 1 or len(given) != len(shape):
        raise ModelError(f"its scales or sizes are {given.size} for {len(shape)} axes")
    if not np.isfinite(given).all() or (given < 0).any() or (scales is not None and (scales == 0).any()):
        raise ModelError("its scales or sizes are not positive")
    if scales is not None:
        factors = scales.astype(np.float32)
        return [(int(np.floor(f * np.float32(n))), f) for f, n in zip(factors, shape, strict=True)]
    resized = [int(n) for n in given]
    if min(shape, default=1) == 0:
        return [(n, np.float64(1)) for n in resized]
    ratios = [np.float64(n) / size for n, size in zip(resized, shape, strict=True)]
    if policy == "stretch":
        return list(zip(resized, ratios, strict=True))
    if policy not in ("not_larger", "not_smaller"):
        raise ModelError(f"its keep_aspect_ratio_policy is `{policy}`")
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(int(ratio * size + 0.5), ratio) for size in shape]


def _resampled(builder: Any, x: Any, sampled: Sequence[Sampled], how: Resampling, filler: float) -> Any:
    """`x` with its axes resized, first those that shrink, of equals the inner ones. The innermost, whose elements are
    gathered one by one, comes when there are the fewest of others: at last, where these shrink."""
    dtype, shape = dtype_of(x), shape_of(x)
    sampled = [axis for axis in sampled if not axis.is_identity]
    if not sampled:
        return x
    if any(size == 0 for size in shape):
        raise ModelError("its input has no elements")
    smaller = prod(axis.indices.shape[0] / axis.size for axis in sampled if axis.axis < len(shape) - 1) < 1
    sampled.sort(
        key=lambda axis: (smaller and axis.axis == len(shape) - 1, axis.indices.shape[0] / axis.size, -axis.axis)
    )
    picks = all(axis.picks for axis in sampled)
    inner = "float64" if dtype == "float64" else "float32"
    tables, axes = [], []
    for axis in sampled:
        indices = axis.indices.copy()
        indices[axis.outside, 0] = -1
        (resized, taps), (repeats, start) = indices.shape, axis.steps or (0, 0)
        if not repeats:
            tables.append(relax.const(np.ascontiguousarray(indices.T), "int32"))
        if not picks:
            weights = axis.weights.astype(inner)
            if repeats and (weights.reshape(-1, repeats, weights.shape[1]) == weights[:repeats]).all():
                weights = weights[:repeats]
            tables.append(relax.const(np.ascontiguousarray(weights.T), inner))
        axes.append(Axis(axis.axis, axis.size, resized, taps, bool(axis.outside.any()), repeats, start))
    resized = emit_resample(builder, Resample(tuple(axes), picks, filler), x, tables)
    if picks or not dtype.startswith(("int", "uint")):
        return cast(builder, resized, dtype)
    limits = np.iinfo(dtype)
    if how.antialias:
        resized = builder.emit(relax.op.round(resized))
    resized = builder.emit(relax.op.clip(resized, float(limits.min), float(limits.max)))
    return cast(builder, resized, dtype)
