"""Convolutions on an accelerator, and dense layers as those of one row of pixels.

    y[o, h, w] = round(scale[o] (bias[o] + sum_{c, kh, kw} x[c, h*sh + kh*dh - pt, w*sw + kw*dw - pl] W[o, c, kh, kw]))

plus the layer's zero point, and clipped to int8; with a residual, the sum of that and another tensor on their grids.
x is int8[1, C/b, H, W, b], W is int8[O/b, C/b, KH, KW, b (out), b (in)].
"""

from __future__ import annotations

from nncc.compat import te
from nncc.vta.decisions import decide
from nncc.vta.definition import anchored, bordered, requantized, summed

NAME = "vta_conv2d"


def compute(data, weight, parameters, *residual, layer):
    """Define the convolution that `layer` describes."""
    outputs, inputs, *window, block, _ = (int(d) for d in weight.shape)
    element = bordered(data, layer)
    c, kh, kw, i = (
        te.reduce_axis((0, size), name=name) for name, size in zip("chwi", (inputs, *window, block), strict=True)
    )
    acc = te.compute(
        (outputs, *layer.output[1:], block),
        lambda o, h, w, j: te.sum(
            element(c, h, w, kh, kw, i).astype("int32") * weight[o, c, kh, kw, j, i].astype("int32"),
            axis=[c, kh, kw, i],
        ),
        name=NAME,
        attrs=anchored(NAME, layer),
    )
    result = requantized(acc, parameters, layer)
    if not residual:
        return result
    if layer.residual == "first":
        return summed(result, residual[0], parameters, outputs, (0, 1))
    return summed(residual[0], result, parameters, outputs, (1, 0))


schedule = decide
