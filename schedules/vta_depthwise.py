"""Depthwise convolutions on an accelerator: lanes are channels.

    y[c, h, w] = round(scale[c] (bias[c] + sum_{kh, kw} x[c, h*sh + kh*dh - pt, w*sw + kw*dw - pl] W[c, kh, kw]))

plus the layer's zero point, and clipped to int8. x is int8[1, C/b, H, W, b], W is int8[C/b, KH*KW/b, b (taps), b
(lanes)].
"""

from __future__ import annotations

from nncc.compat import te
from nncc.vta.decisions import decide
from nncc.vta.definition import anchored, bordered, requantized

NAME = "vta_depthwise"


def compute(data, weight, parameters, *, layer):
    """Define the convolution that `layer` describes."""
    blocks, _, block, _ = (int(d) for d in weight.shape)
    element = bordered(data, layer)
    kh, kw = (te.reduce_axis((0, size), name=name) for name, size in zip(("kh", "kw"), layer.kernel, strict=True))
    tap = kh * layer.kernel[1] + kw
    acc = te.compute(
        (blocks, *layer.output[1:], block),
        lambda c, h, w, i: te.sum(
            element(c, h, w, kh, kw, i).astype("int32") * weight[c, tap // block, tap % block, i].astype("int32"),
            axis=[kh, kw],
        ),
        name=NAME,
        attrs=anchored(NAME, layer),
    )
    return requantized(acc, parameters, layer)


schedule = decide
