"""Maxima over windows of tensors in plain layout, [N, C, .., W]: those of the rows first, then those along a row.

    r[n, c, o.., w] = max_k x[n, c, o.. s + k - before, w - before_w]      y[n, c, o.., v] = max_k r[n, c, o.., v s + k]

A window that reaches over the border has its maximum inside: indices are clamped, which takes elements of the border
more than once. A row of maxima lies in the first-level cache, with its borders; LLVM makes vectors along it, and of
every second element too.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from math import prod

from nncc import scheduling
from nncc.compat import te

NAME = "max_pool_rows"
_MOST_ROWS = 32
"""Rows, and elements of a row, of a window that are written side by side."""


def takes(shape, kernel, strides, padding, size):
    """Whether windows on images of `shape` are small, and each meets the image."""
    rank = len(shape)
    meets = [
        before < k and (n - 1) * s - before < extent
        for extent, k, s, before, n in zip(shape, kernel, strides, padding[:rank], size, strict=True)
    ]
    small = prod(kernel[:-1]) <= _MOST_ROWS and kernel[-1] <= _MOST_ROWS
    return small and all(meets)


def compute(data, *, kernel, strides, padding, size):
    """Define maxima of `size`; `padding` is what is before each axis, then what is behind."""
    batch, shape = data.shape[:2], [int(d) for d in data.shape[2:]]
    rank = len(shape)
    width = (size[-1] - 1) * strides[-1] + kernel[-1]

    def inside(axis, at):
        """An index counted from the padding's corner, within the image."""
        end = (size[axis] - 1) * strides[axis] + kernel[axis] - 1 - padding[axis]
        at = at - padding[axis]
        at = te.min(at, shape[axis] - 1) if end >= shape[axis] else at
        return te.max(at, 0) if padding[axis] else at

    def row(n, c, *at):
        *outer, w = at
        places = [[inside(axis, o * strides[axis] + k) for k in range(kernel[axis])] for axis, o in enumerate(outer)]
        return reduce(te.max, [data(n, c, *place, inside(len(outer), w)) for place in product(*places)])

    left = padding[rank - 1]
    attrs = scheduling.part(NAME) | scheduling.borders(left, max(0, width - left - shape[-1]))
    rows = te.compute((*batch, *size[:-1], width), row, name="rows", attrs=attrs)

    def along(*at):
        return reduce(te.max, [rows(*at[:-1], at[-1] * strides[-1] + k) for k in range(kernel[-1])])

    return te.compute((*batch, *size), along, name="max_pool", attrs=scheduling.anchor(NAME))


def schedule(sch, block, hardware, choose):
    """Row by row, which are spread over the threads; the rows of maxima are cut at the borders of the image."""
    (rows,) = sch.get_producers(block)
    work = prod(scheduling.extents(sch, rows)) + prod(scheduling.extents(sch, block))
    consumers = sch.get_consumers(block)
    if len(consumers) == 1 and scheduling.extents(sch, consumers[0]) == scheduling.extents(sch, block):
        sch.compute_inline(block)
        block = consumers[0]
    *outer, _ = sch.get_loops(block)
    sch.compute_at(rows, outer[-1], preserve_unit_loops=True)
    scheduling.parallel(sch, outer, work, hardware, choose)
    scheduling.cut_at_borders(sch, rows)
    return [block], "by rows"
