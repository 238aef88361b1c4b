"""Integer products: how a processor adds several of them to a lane of int32 in one instruction.

    lane + sum_t x[t] * w[t],   t = 0 .. size - 1

A word is `size` neighbours of the reduction, 32 bits of activations; it is the same for all lanes, each of which has
its own weights, or each lane has its own. Templates say `Dot.product`; `nncc.codegen.integer_dots` makes an
instruction, or arithmetic, of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nncc.target import Hardware

__all__ = [
    "BYTE",
    "DOTS",
    "FENCE",
    "FULL_PRODUCT",
    "PRODUCT",
    "ROUND",
    "WIDE_DOTS",
    "Dot",
    "dot_of",
    "dots_of",
    "nearest",
    "nearest_byte",
    "rounded",
    "wide_dot_of",
]

PRODUCT = "tirx.nncc_dot"
"""The TIR operator: `size` activations, then `size` weights, to the int32 sum of their products."""
FULL_PRODUCT = "tirx.nncc_full_dot"
"""The same where weights may be -128."""
ROUND = "tirx.nncc_nearest"
"""The TIR operator: float32 to the nearest int32, ties to even; from 2^22 on it gives anything."""
BYTE = "tirx.nncc_byte"
"""The TIR operator: float32 x and int32 z, a byte, to clip(round(x) + z) as uint8; NaN gives 0."""
FENCE = "tirx.nncc_rounded"
"""The TIR operator: float32 as it is, rounded before it is part of a sum."""


@dataclass(frozen=True)
class Dot:
    """One way to multiply. A template gets it, lays the weights out for it and widens the activations to `data`."""

    name: str
    size: int
    """Values in a word."""
    data: str
    """The dtype of the activations that it takes."""
    weight: str
    """The dtype of the weights that it takes; their values are those of int8."""
    lanes: int
    """Of one instruction."""
    paired: bool = False
    """Whether the first two weights of every lane lie before the next two of every lane."""
    beside: int = 0
    """Registers that words and products take before they are added."""
    full: bool = False
    """Whether weights may be -128, which sums of two products in 16 bits do not hold."""

    def of_activations(self) -> Dot:
        """The way for two factors of any bytes."""
        return replace(self, full=self.paired)

    def place(self, lane: Any, t: int, lanes: int) -> Any:
        """Where a lane's weight for value `t` of a word lies, in the row of the words of all `lanes`."""
        if self.paired:
            return (t // 2) * lanes * 2 + lane * 2 + t % 2
        return lane * self.size + t

    def member(self, place: Any, lanes: int) -> tuple[Any, Any]:
        """The lane and the number t in its word of what lies at `place`."""
        if self.paired:
            return place % (lanes * 2) // 2, place // (lanes * 2) * 2 + place % 2
        return place // self.size, place % self.size

    def words(self, weights: np.ndarray, axis: int) -> np.ndarray:
        """[.., K, .., lanes] -> [.., K / size, .., lanes * size], K at `axis`, as `place` says."""
        moved = np.moveaxis(weights, axis, -1)
        *outer, lanes, depth = moved.shape
        parts = moved.reshape(*outer, lanes, depth // self.size, self.size)
        laid = np.empty((*outer, depth // self.size, lanes * self.size), self.weight)
        for lane in range(lanes):
            for t in range(self.size):
                laid[..., self.place(lane, t, lanes)] = parts[..., lane, :, t]
        return np.ascontiguousarray(np.moveaxis(laid, -2, axis))

    def product(self, data: Callable[[int], Any], weight: Callable[[Any], Any], lane: Any, lanes: int) -> Any:
        """The int32 sum of a word's products for one of `lanes`, `data(t)` times `weight(place)`, as an expression."""
        return self._product([data(t) for t in range(self.size)], [weight(p) for p in self.places(lane, lanes)])

    def lanewise(self, data: Callable[[Any], Any], weight: Callable[[Any], Any], lane: Any, lanes: int) -> Any:
        """The same where each lane has its own word, `data(place)`."""
        places = self.places(lane, lanes)
        return self._product([data(p) for p in places], [weight(p) for p in places])

    def _product(self, data: list[Any], weights: list[Any]) -> Any:
        from nncc.compat import pure_operator, tirx

        return tirx.call_intrin("int32", pure_operator(FULL_PRODUCT if self.full else PRODUCT), *data, *weights)

    def places(self, lane: Any, lanes: int) -> list[Any]:
        return [self.place(lane, t, lanes) for t in range(self.size)]


def nearest(value: Any) -> Any:
    """float32, below 2^22 in size, to the nearest int32, ties to even, as an expression."""
    from nncc.compat import pure_operator, tirx

    return tirx.call_intrin("int32", pure_operator(ROUND), value)


def nearest_byte(value: Any, zero: Any) -> Any:
    """float32 to the uint8 that is nearest to it plus `zero`, an int32 from 0 to 255, ties to even; NaN to 0."""
    from nncc.compat import pure_operator, tirx

    return tirx.call_intrin("uint8", pure_operator(BYTE), value, zero)


def rounded(value: Any) -> Any:
    """A product of float32 that is rounded by itself: no fused multiply-add is made of it and a sum. GPUs' compilers
    make one all the same."""
    from nncc.compat import pure_operator, tirx

    return tirx.call_intrin("float32", pure_operator(FENCE), value)


WIDE_DOTS = {
    "vnni512": Dot("vpdpwssd", 2, "int16", "int16", 16),
    "vnni256": Dot("vpdpwssd", 2, "int16", "int16", 8),
    "avxvnni": Dot("vpdpwssd", 2, "int16", "int16", 8),
    "pmaddwd": Dot("pmaddwd", 2, "int16", "int16", 0),
}
"""By `Hardware.int8_dot`: how integers of 16 bits are multiplied, where that is fast."""
DOTS = {
    "vnni512": Dot("vnni512", 4, "uint8", "int8", 16),
    "vnni256": Dot("vnni256", 4, "uint8", "int8", 8),
    "avxvnni": Dot("avxvnni", 4, "uint8", "int8", 8),
    "sdot": Dot("sdot", 4, "int8", "int8", 4),
    "smull": Dot("smull", 4, "int8", "int8", 4, paired=True, beside=5),
    "pmaddwd": Dot("pmaddwd", 2, "int16", "int16", 0, beside=2),
    "none": Dot("none", 4, "uint8", "int8", 0),
}
"""By `Hardware.int8_dot`; 0 lanes are those of a vector."""


def dot_of(hardware: Hardware) -> Dot:
    """The processor's way to multiply bytes."""
    return _sized(DOTS[hardware.int8_dot], hardware)


def wide_dot_of(hardware: Hardware) -> Dot | None:
    """The processor's way to multiply integers of 16 bits; None where it has no fast one."""
    dot = WIDE_DOTS.get(hardware.int8_dot)
    return dot and _sized(dot, hardware)


def dots_of(hardware: Hardware) -> list[Dot]:
    """All of the processor's ways."""
    wide = wide_dot_of(hardware)
    return [dot_of(hardware), *([wide] if wide is not None else [])]


def _sized(dot: Dot, hardware: Hardware) -> Dot:
    return dot if dot.lanes else replace(dot, lanes=max(1, hardware.vector_bits // 32))
