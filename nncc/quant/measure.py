"""How far a quantized model is from the float one: the signal-to-quantization-noise ratio of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.quant.execution import run

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["sqnr_db"]

_MOST_DB = 200.0
"""What equal outputs are given."""


def sqnr_db(graph: onnx_ir.Model, other: onnx_ir.Model, samples: Sequence[Mapping[str, np.ndarray]]) -> float:
    """10 log10 (sum x^2 / sum (x - y)^2) over all samples, in decibels; the mean of it over the floating outputs.

    x is an output of `graph`, y that of `other`, both as ONNX defines them. More is better; 200 where they are equal.
    """
    import numpy as np

    names = [str(value.name) for value in graph.graph.outputs]
    signal, noise = np.zeros(len(names)), np.zeros(len(names))
    floating = np.zeros(len(names), bool)
    pairs = zip(run(graph, names, samples), run(other, names, samples, optimized=False), strict=True)
    for exact, rounded in pairs:
        for at, (x, y) in enumerate(zip(exact, rounded, strict=True)):
            if x.dtype.kind != "f":
                continue
            floating[at] = True
            wide = x.astype(np.float64)
            signal[at] += np.square(wide).sum()
            noise[at] += np.square(wide - y).sum()
    if not floating.any():
        return _MOST_DB
    tiny = np.finfo(np.float64).tiny
    ratios = 10 * np.log10(np.maximum(signal, tiny) / np.maximum(noise, tiny))
    return float(np.minimum(ratios, _MOST_DB)[floating].mean())
