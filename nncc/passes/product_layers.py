"""The convolutions and matrix products of a network: what they cost, which run on integers, why others do not."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

from nncc.ir import Fallback, Quantization

__all__ = ["ProductLayers", "fallbacks", "layer_text", "multiply_adds"]


class ProductLayers:
    """Told of each product once, in the order of the network."""

    def __init__(self) -> None:
        self._integer_macs = 0
        self._macs = 0
        self._stay: Counter[tuple[str, str]] = Counter()

    def on_integers(self, call: Any) -> None:
        """A product runs on integers."""
        self._integer_macs += multiply_adds(call)
        self._macs += multiply_adds(call)

    def stays(self, call: Any, reason: str) -> None:
        """A product stays float32; without a reason where nothing of it is quantized."""
        self._macs += multiply_adds(call)
        if reason:
            self._stay[layer_text(call), reason] += 1

    def facts(self) -> Quantization:
        return Quantization(self._integer_macs, self._macs, fallbacks(self._stay))


def fallbacks(stay: Counter[tuple[str, str]]) -> tuple[Fallback, ...]:
    """Layers that stay where they are, counted by their `layer_text` and the reason, in the order of their first."""
    return tuple(Fallback(text, reason, count) for (text, reason), count in stay.items())


def multiply_adds(call: Any) -> int:
    """Of a Relax convolution or matrix product; padding counts as if it were data."""
    data, weight, result = ([int(d) for d in each.ty.shape] for each in (*call.args[:2], call))
    if call.op.name == "relax.matmul":
        return prod(result) * data[-1]
    if "transpose" in call.op.name:
        return prod(data) * prod(weight[1:])
    return prod(result) * prod(weight[1:])


def layer_text(call: Any) -> str:
    """The operator and the shapes of what it multiplies: ``conv2d 1x64x56x56*64x64x3x3``."""
    shapes = ("x".join(str(int(d)) for d in each.ty.shape) for each in call.args[:2])
    return f"{call.op.name.removeprefix('relax.').removeprefix('nn.')} {'*'.join(shapes)}"
