"""Nests of loops as the machine has them: two loops in hardware, the rest as a list of micro-operations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Loop", "nest"]


class Loop(NamedTuple):
    """An extent, and what one iteration adds to dst, src and wgt."""

    extent: int
    dst: int
    src: int
    wgt: int = 0


def nest(
    loops: list[Loop], base: tuple[int, int, int], unrolled: list[Loop] | None = None, weights_move: bool = True
) -> dict[str, Any]:
    """The fields of `Loops` for a nest from `base` on: `loops` from the outermost on, `unrolled` ones inside of them.

    Loops that continue each other become one; the two longest of `loops` are the machine's. `unrolled` ones always
    become micro-operations, and so do those that move wgt where the machine's loops cannot (`weights_move`).
    """
    merged = _merged([loop for loop in loops if loop.extent != 1])
    allowed = [i for i, loop in enumerate(merged) if weights_move or not loop.wgt]
    hardware = sorted(sorted(allowed, key=lambda i: -merged[i].extent)[:2])
    inside = [loop for i, loop in enumerate(merged) if i not in hardware] + (unrolled or [])
    outer, inner = [Loop(1, 0, 0, 0)] * (2 - len(hardware)) + [merged[i] for i in hardware]
    uops = np.array(base, np.int64)[None]
    for loop in inside:
        steps = np.arange(loop.extent)[:, None] * np.array(loop[1:], np.int64)
        uops = (uops[:, None] + steps).reshape(-1, 3)
    return {
        "uops": uops,
        "iterations": (outer.extent, inner.extent),
        "dst": (outer.dst, inner.dst),
        "src": (outer.src, inner.src),
        "wgt": (outer.wgt, inner.wgt),
    }


def _merged(loops: list[Loop]) -> list[Loop]:
    done: list[Loop] = []
    for loop in loops:
        if done and all(done[-1][i] == loop.extent * loop[i] for i in (1, 2, 3)):
            loop = Loop(done.pop().extent * loop.extent, *loop[1:])
        done.append(loop)
    return done
