"""Rows on GPUs: who computes which element where the threads of a warp, or of a block, share a row in registers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from nncc import scheduling
from nncc.compat import tirx
from nncc.gpu import device_loops
from nncc.kernels.choices import Choices

__all__ = ["LONGEST", "row_by_row"]

_WARPS = 4
"""Rows of a warp that stand side by side in a block."""
_MOST = 32
"""Registers that a thread may have of a row."""
LONGEST = 1024 * _MOST
"""Elements of a row that the registers of one block hold."""


def row_by_row(
    sch: Any, block: Any, function: Callable[[int, int, Any], tuple[Any, ...]], choose: Choices
) -> tuple[list[Any], str]:
    """Replace `block`, [.., n], and all that it is made of, by a kernel of rows.

    `function(length, threads, row)` gives the device function and its arguments for a row.
    """
    *batch, length = scheduling.extents(sch, block)
    each = 4 if length % 4 == 0 else 1
    rows = prod(batch)
    possible = [t for t in (32, 64, 128, 256, 512, 1024) if -(-length // each // t) * each <= _MOST]
    # A thread has some elements to work on; long rows have more threads.
    default = next((t for t in possible if -(-length // each // t) * each <= 8), possible[-1])
    threads = choose("threads", [default, *(t for t in possible if t != default)])
    count = -(-(length // each) // threads) * each
    together = _WARPS if threads == 32 else 1
    several = together > 1

    def row_of(x: Any, thread: Any) -> Any:
        return x * together + thread // threads if several else x

    def place(x: Any, y: Any, z: Any, thread: Any, number: Any) -> tuple[list[Any], Any]:
        row = row_of(x, thread)
        column = (number * threads + thread % threads) * each
        conditions = [row < rows] if rows % together else []
        conditions += [column < length] if length // each % threads else []
        return [*device_loops.places(row, batch), column], tirx.all(*conditions) if conditions else None

    def call(x: Any, y: Any, z: Any, thread: Any) -> tuple[Any, ...]:
        row = row_of(x, thread)
        return function(length, threads, tirx.min(row, rows - 1) if rows % together else row)

    registers = device_loops.Registers(count, each, count, place)
    grid = device_loops.Grid(-(-rows // together), 1, 1, threads * together)
    return device_loops.on_grid(sch, block, call, grid, registers), f"{threads} threads a row"
