"""Layer normalization over the last axis on a GPU: a row in the registers of a warp, or of a block.

m = sum_k x[k] / n        v = sum_k (x[k] - m)^2 / n        y[k] = (x[k] - m) * (1 / sqrt(v + eps)) * g[k] + b[k]
"""

from __future__ import annotations

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops
from nncc.gpu import rows as gpu_rows

NAME = "cuda_layer_norm"


def compute(x, gamma, beta, *, epsilon):
    """Define the normalization of x[.., n]."""
    *batch, length = (int(d) for d in x.shape)
    part, share = scheduling.part(NAME), tirx.const(1.0 / length, x.dtype)
    k, n = te.reduce_axis((0, length), name="k"), te.reduce_axis((0, length), name="n")
    total = te.compute(batch, lambda *at: te.sum(x[(*at, k)], axis=[k]), name="total", attrs=part)

    def square(*at):
        difference = x[(*at, n)] - total[at] * share
        return te.sum(difference * difference, axis=[n])

    squares = te.compute(batch, square, name="squares", attrs=part)
    one, least = tirx.const(1.0, x.dtype), tirx.const(epsilon, x.dtype)

    def result(*at):
        scale = one / tirx.sqrt(squares[at[:-1]] * share + least)
        return (x[at] - total[at[:-1]] * share) * scale * gamma[at[-1]] + beta[at[-1]]

    attrs = scheduling.anchor(NAME) | {"nncc.epsilon": tirx.const(epsilon, "float32")}
    return te.compute(x.shape, result, name="layer_norm", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Rows over the warps, or blocks."""
    epsilon = sch.get(block).annotations["nncc.epsilon"]
    x, *_, gamma, beta = device_loops.sources(sch, block)
    return gpu_rows.row_by_row(
        sch,
        block,
        lambda length, threads, row: (f"nncc::layer_norm<{length}, {threads}>", x, gamma, beta, epsilon, row),
        choose,
    )
