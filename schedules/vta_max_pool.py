"""Maxima of windows on an accelerator, of int8[1, C/b, H, W, b]; outside of the input is the least integer.

y[c, h, w] = max_{kh, kw} x[c, h*sh + kh*dh - pt, w*sw + kw*dw - pl]
"""

from __future__ import annotations

from nncc.compat import te
from nncc.vta.decisions import decide
from nncc.vta.definition import anchored, bordered

NAME = "vta_max_pool"


def compute(data, *, layer):
    """Define the pool that `layer` describes."""
    element = bordered(data, layer)
    kh, kw = (te.reduce_axis((0, size), name=name) for name, size in zip(("kh", "kw"), layer.kernel, strict=True))
    return te.compute(
        (1, *layer.output, data.shape[-1]),
        lambda _, c, h, w, i: te.max(element(c, h, w, kh, kw, i), axis=[kh, kw]),
        name=NAME,
        attrs=anchored(NAME, layer),
    )


schedule = decide
