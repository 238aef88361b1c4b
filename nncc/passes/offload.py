"""Which products of integers an accelerator computes, and why others stay on the host."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nncc.ir import Acceleration
from nncc.passes.product_layers import fallbacks, layer_text, multiply_adds

__all__ = ["Offload"]


class Offload:
    """Told of each product of integers once, in the order of the network."""

    def __init__(self) -> None:
        self._layers = 0
        self._macs = 0
        self._host_macs = 0
        self._stay: Counter[tuple[str, str]] = Counter()

    def offloaded(self, call: Any) -> None:
        """A product runs on the accelerator."""
        self._layers += 1
        self._macs += multiply_adds(call)

    def stays(self, call: Any, reason: str) -> None:
        """A product stays on the host."""
        self._host_macs += multiply_adds(call)
        self._stay[layer_text(call), reason] += 1

    def facts(self) -> Acceleration:
        return Acceleration(self._layers, self._macs, self._host_macs, fallbacks(self._stay))
