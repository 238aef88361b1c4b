"""Sums of two tensors on their grids on an accelerator, of int8[1, C/b, H, W, b].

    y = clip(round(r (a + 128) + (s (b + 128) + fixed))) - 128

r, s and fixed are the first scales in the row of `parameters`, int32[1, 2 b].
"""

from __future__ import annotations

from nncc.vta.decisions import decide
from nncc.vta.definition import anchored, summed

NAME = "vta_add"


def compute(data, parameters, other, *, layer):
    """Define the sum that `layer` describes."""
    return summed(data, other, parameters, 0, (0, 1), name=NAME, attrs=anchored(NAME, layer))


schedule = decide
