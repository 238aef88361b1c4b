"""What the gates of recurrent layers do to the state, as statements on a block of units whose sums are known.

A `Block` is what the loops of `schedules/recurrent.py` offer: places of sums and of the state. LSTM, with peepholes p
where there are some; GRU, that resets before or after the product; RNN:

    i, f = F(a[i] + p[i] c), F(a[f] + p[f] c)  or  f = 1 - i    c' = f c + i G(a[c])    h' = F(a[o] + p[o] c') H(c')
    z, r = F(a[z]), F(a[r])    n = G(x[h] + R[h] (r h))  or  G(x[h] + r (R[h] h + b))    h' = n + z (h - n)
    h' = F(a)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nncc.compat import tirx
from nncc.operators.activations import ACTIVATIONS
from nncc.operators.recurrence import Recurrence

__all__ = ["CELLS", "GATES", "Block"]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""How many there are, in ONNX's order: i, o, f, c; z, r, h; i."""

Element = Callable[[int, int, Any], Any]
"""Of a row, a vector and a lane: an expression, or a store."""


@dataclass(frozen=True)
class Block:
    """Some units of some sequences, whose sums of the `gates` stand in a tile of registers.

    Places are functions of row, vector and lane that give an expression; those that end on `_to` take its new value
    too, and give a store.
    """

    layer: Recurrence
    direction: int
    dtype: str
    gates: Sequence[int]
    """The gates whose sums are there: those of a GRU that resets before the product come in two phases."""
    each: Callable[[Element], list[Any]]
    """The stores that a function makes, for all rows and vectors, each for the lanes of a vector."""
    sum: Callable[[int], Element]
    """By gate."""
    sum_to: Callable[[int, Element], Element]
    old_h: Element
    new_h: Element
    new_h_to: Callable[[Element], Element]
    """Where a sequence has ended, the old state is stored."""
    c: Element
    c_to: Callable[[Element], Element]
    """In the place of the old one, which stays where a sequence has ended."""
    reset_to: Callable[[Element], Element]
    x: Callable[[int], Element]
    """What comes from the input, by gate."""
    peephole: Callable[[int], Element] | None
    """By its number: i, o, f."""

    def function(self, number: int) -> Callable[[Any], Any]:
        """The activation F, G or H."""
        activation = self.layer.activations[self.direction][number]
        return ACTIVATIONS[activation.name].of(activation.alpha, activation.beta, self.dtype)

    def clipped(self, value: Any) -> Any:
        """What an activation is given."""
        if not self.layer.clip:
            return value
        limit = tirx.const(self.layer.clip, self.dtype)
        return tirx.max(tirx.min(value, limit), -limit)

    def activated(self, gate: int, function: Callable[[Any], Any], peephole: int | None = None) -> list[Any]:
        """A gate's sums become what its activation makes of them."""
        weight = self.peephole(peephole) if self.peephole is not None and peephole is not None else None
        total = self.sum(gate)

        def value(*at: Any) -> Any:
            given = total(*at) if weight is None else total(*at) + weight(*at) * self.c(*at)
            return function(self.clipped(given))

        return self.each(self.sum_to(gate, value))


def _lstm(block: Block) -> list[Any]:
    f, g, h = map(block.function, range(3))
    i, o, forget, candidate = map(block.sum, range(4))
    one = tirx.const(1.0, block.dtype)
    statements = block.activated(0, f, 0)
    if block.layer.input_forget:
        statements += block.each(block.sum_to(2, lambda *at: one - i(*at)))
    else:
        statements += block.activated(2, f, 2)
    statements += block.activated(3, g)
    statements += block.each(block.c_to(lambda *at: forget(*at) * block.c(*at) + i(*at) * candidate(*at)))
    statements += block.activated(1, f, 1)
    statements += block.each(block.sum_to(3, lambda *at: h(block.c(*at))))
    return statements + block.each(block.new_h_to(lambda *at: o(*at) * candidate(*at)))


def _gru(block: Block) -> list[Any]:
    f, g = block.function(0), block.function(1)
    z, r, n = map(block.sum, range(3))

    def state(update: Element) -> list[Any]:
        return block.each(block.new_h_to(lambda *at: n(*at) + update(*at) * (block.old_h(*at) - n(*at))))

    if tuple(block.gates) == (0, 1):  # z waits where the state goes that it will decide on
        waiting = block.each(block.new_h_to(z)) + block.each(block.reset_to(lambda *at: r(*at) * block.old_h(*at)))
        return block.activated(0, f) + block.activated(1, f) + waiting
    if tuple(block.gates) == (2,):
        return block.activated(2, g) + state(block.new_h)
    x = block.x(2)
    applied = block.each(block.sum_to(2, lambda *at: x(*at) + r(*at) * n(*at)))
    return block.activated(0, f) + block.activated(1, f) + applied + block.activated(2, g) + state(z)


def _rnn(block: Block) -> list[Any]:
    f, total = block.function(0), block.sum(0)
    return block.each(block.new_h_to(lambda *at: f(block.clipped(total(*at)))))


CELLS: dict[str, Callable[[Block], list[Any]]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
"""By operator: what comes after the sums."""
