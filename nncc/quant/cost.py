"""What a layer is predicted to cost, in int8 and in float: its multiplications at the processor's peak, no more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nncc.quant.quantize import Layer
    from nncc.target import Hardware

__all__ = ["float_cost", "gain", "int8_cost", "int8_share", "int8_speedup"]

_SPEEDUP_OF_DOT = 4.0
"""Instructions that add up four products of bytes do four times the products of a float vector of the same width."""
_SPEEDUP_BY_LANES = 2.0
"""Arm without them: smull and sadalp do 8 products a cycle where fmla does 4 (Cortex-A72, by llvm-mca)."""
_SPEEDUP_BY_WORDS = 1.5
"""x86 without them: bytes are widened and go through vpmaddwd (172 GOP/s, 117 GFLOP/s in float; Zen 4, measured)."""


def int8_speedup(hardware: Hardware) -> float:
    """How many int8 products this processor does in the time of one in float32, at its peak."""
    if hardware.int8_dot != "none":
        return _SPEEDUP_OF_DOT
    return _SPEEDUP_BY_LANES if hardware.lane_operand else _SPEEDUP_BY_WORDS


def float_cost(layer: Layer, hardware: Hardware) -> float:
    """Predicted time of the layer in float32: seconds, or, where the peak is not known, in units of 10^9 operations."""
    return 2e-9 * layer.macs / (hardware.peak_gflops or 1.0)


def int8_cost(layer: Layer, hardware: Hardware) -> float:
    """Predicted time of the layer in int8, in the unit of `float_cost`."""
    return float_cost(layer, hardware) / int8_speedup(hardware)


def gain(layers: Sequence[Layer], floats: Collection[str], hardware: Hardware) -> float:
    """Predicted time in float over the predicted time with all but the layers named in `floats` in int8.

    Only the layers count, not what is between them: the whole model gains less, or on a processor that waits for
    memory more.
    """
    before = sum(float_cost(layer, hardware) for layer in layers)
    after = sum((float_cost if layer.name in floats else int8_cost)(layer, hardware) for layer in layers)
    return before / after if after else 1.0


def int8_share(layers: Sequence[Layer], floats: Collection[str]) -> float:
    """The part of all multiplications that is in int8, from 0 to 1."""
    whole = sum(layer.macs for layer in layers)
    return sum(layer.macs for layer in layers if layer.name not in floats) / whole if whole else 0.0
