"""How far a quantized model is from the float one: the signal-to-quantization-noise ratio of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.passes.rewriting import is_op
from nncc.quant.execution import run

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["measured_values", "sqnr_db"]

_MOST_DB = 200.0
"""What equal outputs are given."""


def measured_values(graph: onnx_ir.Model) -> list[str]:
    """The names of the outputs; of one that a Softmax makes, that of its logits.

    Probabilities flip where logits are nearly tied, which says little about an error and hides all others.
    """
    names = []
    for value in graph.graph.outputs:
        producer = value.producer()
        logits = producer.inputs[0] if is_op(producer, "Softmax", "LogSoftmax") else None
        names.append(str(value.name if logits is None else logits.name))
    return names


def sqnr_db(graph: onnx_ir.Model, other: onnx_ir.Model, samples: Sequence[Mapping[str, np.ndarray]]) -> float:
    """10 log10 (sum x^2 / sum (x - y)^2) in decibels, the mean of it over samples and floating outputs.

    x is an output (`measured_values`) of `graph`, y that of `other`, which has values of the same names, both as ONNX
    defines them. More is better; 200 where they are equal.
    """
    import numpy as np

    names = measured_values(graph)
    ratios = []
    pairs = zip(run(graph, names, samples), run(other, names, samples, optimized=False), strict=True)
    for exact, rounded in pairs:
        for x, y in zip(exact, rounded, strict=True):
            if x.dtype.kind == "f":
                wide = x.astype(np.float64)
                signal, noise = np.square(wide).sum(), np.square(wide - y).sum()
                ratio = 10 * np.log10(max(signal, 1e-300) / noise) if noise else _MOST_DB
                ratios.append(float(np.clip(ratio, -_MOST_DB, _MOST_DB)))
    return float(np.mean(ratios)) if ratios else _MOST_DB
