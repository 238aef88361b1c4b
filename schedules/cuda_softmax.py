"""Softmax over the last axis on a GPU: a row in the registers of a warp, or of a block.

m = max_k x[k]        y[k] = exp(x[k] - m) / sum_k exp(x[k] - m)
"""

from __future__ import annotations

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops
from nncc.gpu import rows as gpu_rows

NAME = "cuda_softmax"


def compute(x):
    """Define the softmax of x[.., n]."""
    *batch, length = (int(d) for d in x.shape)
    part = scheduling.part(NAME)
    k, n = te.reduce_axis((0, length), name="k"), te.reduce_axis((0, length), name="n")
    highest = te.compute(batch, lambda *at: te.max(x[(*at, k)], axis=[k]), name="highest", attrs=part)
    total = te.compute(
        batch, lambda *at: te.sum(tirx.exp(x[(*at, n)] - highest[at]), axis=[n]), name="total", attrs=part
    )
    return te.compute(
        x.shape,
        lambda *at: tirx.exp(x[at] - highest[at[:-1]]) / total[at[:-1]],
        name="softmax",
        attrs=scheduling.anchor(NAME),
    )


def schedule(sch, block, hardware, choose):
    """Rows over the warps, or blocks."""
    x = device_loops.sources(sch, block)[0]
    return gpu_rows.row_by_row(
        sch, block, lambda length, threads, row: (f"nncc::softmax<{length}, {threads}>", x, row), choose
    )
