"""RoiAlign and MaxRoiPool: each region of an image as a grid of bins.

RoiAlign:    y[r, c, b] = mean, or max, of the samples of bin b: h by w points between the elements of x[batch(r), c]
MaxRoiPool:  y[r, c, b] = max of the elements of bin b, whose edges are rounded outwards
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import loop_nest, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.interpolation import bounded
from nncc.operators.loops import loop, when
from nncc.operators.operands import cast, dtype_of, kernel, shape_of

__all__ = ["max_roi_pool", "roi_align"]

_MOST_SAMPLES = 4096
"""Along one axis of a bin: a region that asks for more is not of this image."""


def roi_align(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """RoiAlign of every opset. The index of an image that there is not is taken for the nearest."""
    x, rois, batch = inputs
    shape, count, dtype = shape_of(x), shape_of(rois)[0], dtype_of(x)
    mode, ratio = attributes.text("mode", "avg"), int(attributes.get("sampling_ratio", 0))
    half = "half_pixel" if attributes.opset >= 16 else "output_half_pixel"
    coordinates = attributes.text("coordinate_transformation_mode", half)
    bins = [int(attributes.get(word, 1)) for word in ("output_height", "output_width")]
    scale = float(attributes.get("spatial_scale", 1.0))
    if len(shape) != 4 or shape_of(rois) != [count, 4] or shape_of(batch) != [count] or min([*shape, *bins]) < 1:
        raise ModelError(f"its regions of shape {shape_of(rois)} do not fit an input of shape {shape}")
    if mode not in ("avg", "max") or coordinates not in ("half_pixel", "output_half_pixel"):
        raise ModelError(f"its mode is `{mode}`, its coordinates `{coordinates}`")
    if not 0 <= ratio <= _MOST_SAMPLES:
        raise ModelError(f"its sampling_ratio is {ratio}")
    aligned, inner = coordinates == "half_pixel", "float64" if dtype == "float64" else "float32"
    number, channels, *size = shape

    def real(value: float) -> Any:
        return tirx.const(value, inner)

    def body(given: Any, made: Any) -> None:
        (data, boxes, images), (y,) = given, made
        with loop(count * channels, count * channels * prod(bins) * 16) as line:
            r, c = tirx.indexdiv(line, channels), tirx.indexmod(line, channels)
            image = tirx.max(tirx.min(images[r].astype("int64"), number - 1), 0).astype("int32")
            with loop(bins[0]) as row, loop(bins[1]) as column:
                place = (line * bins[0] + row) * bins[1] + column
                start, step, samples = [], [], []
                for d, at in enumerate((row, column)):
                    low, high = (
                        boxes[r * 4 + corner + (1 - d)] * real(scale) - real(0.5 * aligned) for corner in (0, 2)
                    )
                    extent = high - low if aligned else tirx.max(high - low, real(1))
                    bin_ = extent / real(bins[d])
                    start.append(low + at.astype(inner) * bin_)
                    step.append(bin_)
                    adaptive = bounded(tirx.ceil(bin_), 0, _MOST_SAMPLES).astype("int32")
                    samples.append(tirx.const(ratio, "int32") if ratio else adaptive)
                y[place] = real(0)
                with loop(samples[0]) as i, loop(samples[1]) as j:
                    points = [
                        start[d] + (at.astype(inner) + real(0.5)) * step[d] / samples[d].astype(inner)
                        for d, at in enumerate((i, j))
                    ]
                    inside = tirx.all(
                        *(c for d in range(2) for c in (points[d] >= real(-1), points[d] <= real(size[d])))
                    )
                    terms = _corners(data, (image * channels + c) * prod(size), points, size, inner)
                    if mode == "avg":
                        y[place] = y[place] + tirx.if_then_else(inside, sum(terms[1:], terms[0]), real(0))
                    else:
                        greatest = tirx.max(tirx.max(terms[0], terms[1]), tirx.max(terms[2], terms[3]))
                        found = tirx.if_then_else(inside, greatest, real(0))
                        first = tirx.all(i == 0, j == 0)
                        y[place] = tirx.Select(first, found, tirx.max(y[place], found))
                if mode == "avg":
                    taken = tirx.max(samples[0] * samples[1], 1)
                    y[place] = y[place] / taken.astype(inner)

    def aligned_(*tensors: te.Tensor) -> te.Tensor:
        return loop_nest([((count, channels, *bins), inner)], tensors, body, "roi_align")

    made = kernel(builder, aligned_, cast(builder, x, inner), cast(builder, rois, inner), batch, name="roi_align")
    return cast(builder, made, dtype)


def _corners(data: Any, base: Any, points: Sequence[Any], size: Sequence[int], dtype: str) -> list[Any]:
    """The four neighbours of a point, each times its weight. Past the last element, that is all neighbours."""
    low, high, weight = [], [], []
    for point, n in zip(points, size, strict=True):
        at = bounded(point, 0, n - 1)
        floor = tirx.floor(at)
        low.append(floor.astype("int32"))
        high.append(tirx.min(low[-1] + 1, n - 1))
        weight.append((1 - (at - floor), at - floor))
    return [
        weight[0][i] * weight[1][j] * data[base + (low, high)[i][0] * size[1] + (low, high)[j][1]]
        for i in range(2)
        for j in range(2)
    ]


def max_roi_pool(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """MaxRoiPool of every opset; a bin without elements is 0."""
    x, rois = inputs
    shape, count, dtype = shape_of(x), shape_of(rois)[0], dtype_of(x)
    bins, scale = attributes.ints("pooled_shape", ()), float(attributes.get("spatial_scale", 1.0))
    if len(shape) != 4 or shape_of(rois) != [count, 5] or len(bins) != 2 or min([*shape, *bins]) < 1:
        raise ModelError(f"its regions of shape {shape_of(rois)} do not fit an input of shape {shape}")
    number, channels, *size = shape
    inner = "float64" if dtype == "float64" else "float32"

    def edge(value: Any, n: int) -> Any:
        return bounded(value, -(1 << 20), n + (1 << 20)).astype("int32")

    def body(given: Any, made: Any) -> None:
        (data, boxes), (y,) = given, made
        with loop(count * channels, count * channels * prod(bins) * 16) as line:
            r, c = tirx.indexdiv(line, channels), tirx.indexmod(line, channels)
            image = bounded(boxes[r * 5], 0, number - 1).astype("int32")
            base = (image * channels + c) * prod(size)
            with loop(bins[0]) as row, loop(bins[1]) as column:
                place = (line * bins[0] + row) * bins[1] + column
                low, high = [], []
                for d, at in enumerate((row, column)):
                    start, end = (
                        _rounded(boxes[r * 5 + 1 + corner + (1 - d)] * tirx.const(scale, inner)) for corner in (0, 2)
                    )
                    extent = tirx.max(edge(end, size[d]) - edge(start, size[d]) + 1, 1).astype(inner) / tirx.const(
                        bins[d], inner
                    )
                    ends = [tirx.floor(at.astype(inner) * extent), tirx.ceil((at + 1).astype(inner) * extent)]
                    first, last = (edge(e, size[d]) + edge(start, size[d]) for e in ends)
                    low.append(tirx.max(tirx.min(first, size[d]), 0))
                    high.append(tirx.max(tirx.min(last, size[d]), 0))
                rows, columns = (tirx.max(b - a, 0) for a, b in zip(low, high, strict=True))
                y[place] = tirx.const(0, inner)
                with loop(rows) as i, loop(columns) as j:
                    value = data[base + (low[0] + i) * size[1] + low[1] + j]
                    with when(tirx.any(tirx.all(i == 0, j == 0), value > y[place])):
                        y[place] = value

    def pooled(*tensors: te.Tensor) -> te.Tensor:
        return loop_nest([((count, channels, *bins), inner)], tensors, body, "max_roi_pool")

    return cast(
        builder,
        kernel(builder, pooled, cast(builder, x, inner), cast(builder, rois, inner), name="max_roi_pool"),
        dtype,
    )


def _rounded(value: Any) -> Any:
    """Halves away from zero, as C's round."""
    half = tirx.const(0.5, value.dtype if hasattr(value, "dtype") else str(value.ty))
    return tirx.Select(value < 0, tirx.ceil(value - half), tirx.floor(value + half))
