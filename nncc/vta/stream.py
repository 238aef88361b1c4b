"""The instructions of one layer before it is known where its arguments and scratchpads lie.

Addresses in DRAM are relative to arguments, those on the chip to the part of each scratchpad that the layer gets. The
linker (`nncc.vta.link`) knows both, adds the tokens, and keeps micro-operations where they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nncc.vta.layer import Layer

__all__ = ["OWN_UOPS", "Alu", "Gemm", "Load", "Loops", "Operation", "Place", "Plan", "Store", "Stream"]


OWN_UOPS = -1
"""In the place of an argument: the program's own micro-operations, which only the linker loads."""


@dataclass(frozen=True)
class Place:
    """A place in DRAM."""

    argument: int
    """The argument's position in the layer's list; see `Layer`."""
    element: int
    """From the argument's start on, in elements of the memory that is loaded or stored."""


@dataclass(frozen=True)
class Load:
    """Rows of elements from DRAM, with padding around them, densely into a memory of the chip."""

    memory: str
    """``inp``, ``wgt``, ``acc``, ``acc8`` or ``par``; ``uop`` after linking."""
    place: Place
    """Of the first element that is read (of the row and column behind the padding)."""
    sram: int
    """The first element that is written."""
    y_size: int
    x_size: int
    x_stride: int
    """From row to row in DRAM, in elements."""
    y_pad: tuple[int, int] = (0, 0)
    """Rows above and below."""
    x_pad: tuple[int, int] = (0, 0)
    """Elements left and right."""
    pad_value: int = 0
    x_step: int = 1
    """Every so-manieth element of a row is taken, 1 to 4."""


@dataclass(frozen=True)
class Store:
    """Elements of OUT, dense from `sram` on, as rows in DRAM."""

    place: Place
    sram: int
    y_size: int
    x_size: int
    x_stride: int


@dataclass(frozen=True, eq=False)
class Loops:
    """For outer < iterations[0], for inner < iterations[1], for each micro-operation (dst, src, wgt):

    on elements dst + outer dst[0] + inner dst[1], and so on.
    """

    uops: np.ndarray
    """int64 [n, 3]: dst, src, wgt."""
    iterations: tuple[int, int]
    dst: tuple[int, int]
    """What the outer and the inner loop add."""
    src: tuple[int, int]
    wgt: tuple[int, int] = (0, 0)

    def indices(self) -> np.ndarray:
        """All elements in the order of the machine: int64 [iterations x iterations x n, 3]."""
        outer = np.arange(self.iterations[0])[:, None, None, None]
        inner = np.arange(self.iterations[1])[None, :, None, None]
        strides = np.array([self.dst, self.src, self.wgt], np.int64)
        return (self.uops + outer * strides[:, 0] + inner * strides[:, 1]).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class Gemm(Loops):
    """ACC[dst] += INP[src] . WGT[wgt]."""

    reset: bool = False
    """ACC[dst] = 0."""
    overwrite: bool = False
    """ACC[dst] = INP[src] . WGT[wgt]."""


@dataclass(frozen=True, eq=False)
class Alu(Loops):
    """ACC[dst] = operation(ACC[dst], source); see `AluOperation`."""

    operation: str = "ADD"
    immediate: int | None = None
    """The second operand, for MIN, MAX, ADD, SHR and MUL instead of a source; for RQ, MAC and QADD what they need."""
    overwrite: bool = False
    from_inp: bool = False
    """The source is INP, not ACC; always for MAC, never for RQ, whose source is PAR."""


Operation = Load | Store | Gemm | Alu


@dataclass(frozen=True)
class Plan:
    """The decisions that make a stream of a layer."""

    tile: tuple[int, int, int]
    """Of the output: blocks, rows, columns."""
    reduction: int = 1
    """Blocks of the input that are loaded at once."""
    order: str = "osc"
    """Loops over tiles, the outermost first: ``o`` output blocks, ``s`` rows and columns, ``c`` input blocks."""
    buffers: tuple[int, int, int] = (2, 2, 2)
    """How many tiles of INP, WGT and ACC the chip holds at once."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A layer's instructions, in order; no tokens, and micro-operations as lists."""

    layer: Layer
    operations: tuple[Operation, ...]
    arguments: tuple[int, ...]
    """Sizes of the arguments in bytes."""
    scratchpads: Mapping[str, int] = field(default_factory=dict)
    """By memory of the chip (``inp``, ``wgt``, ``acc``, ``par``), how many elements from 0 on it uses."""
