"""Constants stored without their zeros, and expanded into the arena of each context that is made.

A constant of n elements of w bytes is a bitmap of n bits, the lowest bit first, and the elements that are not zero:
n/8 + w (n - zeros) bytes instead of w n. runtime/expand.c reads it.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from nncc.ir import Packed, Program, Ref, align, with_refs

__all__ = ["expanded", "pack_weights"]

_LEAST_BYTES = 1024
"""Of a constant that is packed."""
_LEAST_OF_CONSTANT = 0.25
"""The part of a constant that its packing must save."""
_LEAST_OF_ALL = 0.1
"""The part of all constants that must be saved, or nothing is packed: what is packed costs memory of each context."""
_WIDTHS = (4, 1, 2, 8)
"""Bytes of an element, the first of those that save most."""


def pack_weights(program: Program) -> Program:
    """The same program with the constants packed that are worth it, or the program itself where none is."""
    used: set[Ref] = set()
    with_refs(program.steps, lambda ref: (used.add(ref), ref)[1])  # type: ignore[func-returns-value]
    starts = sorted({ref.at for ref in used if ref.space == "weights"})
    spans = dict(itertools.pairwise([*starts, program.weights.nbytes]))
    widths = {start: width for start, stop in spans.items() if (width := _width(program.weights[start:stop]))}
    blobs: list[np.ndarray] = []
    packed: list[Packed] = []
    moved: dict[int, Ref] = {}
    at, to = 0, align(program.arena_bytes)
    for start, stop in spans.items():
        blob, width = program.weights[start:stop], widths.get(start, 0)
        if width:
            elements = blob.size // width
            blob = _packed(blob, width)
            packed.append(Packed(at, blob.size, to, elements, width))
            moved[start] = Ref("arena", to)
            to += align(elements * width)
        else:
            moved[start] = Ref("weights", at)
        blobs.append(np.pad(blob, (0, align(blob.size) - blob.size)))
        at += align(blob.size)
    if not packed or program.weights.nbytes - at < _LEAST_OF_ALL * program.weights.nbytes:
        return program

    def place(ref: Ref) -> Ref:
        return replace(moved[ref.at], offset=ref.offset) if ref.space == "weights" else ref

    steps = with_refs(program.steps, place)
    return replace(program, steps=steps, weights=np.concatenate(blobs), arena_bytes=to, packed=tuple(packed))


def expanded(program: Program, packed: Packed) -> np.ndarray:
    """The bytes of a packed constant, as they were."""
    stored = program.weights[packed.at : packed.at + packed.nbytes]
    index = -(-packed.elements // 8)
    mask = np.unpackbits(stored[:index], bitorder="little")[: packed.elements].astype(bool)
    found = np.zeros((packed.elements, packed.width), np.uint8)
    found[mask] = stored[index:].reshape(-1, packed.width)
    return found.reshape(-1)


def _width(blob: np.ndarray) -> int:
    """The width at which packing saves most; 0 where it does not save enough."""
    if blob.size < _LEAST_BYTES:
        return 0
    limit = (1 - _LEAST_OF_CONSTANT) * blob.size
    if np.count_nonzero(blob) > limit:  # elements that are zero are bytes that are
        return 0
    sizes = {width: _size(blob, width) for width in _WIDTHS if blob.size % width == 0}
    width = min(sizes, key=lambda width: sizes[width])
    return width if sizes[width] <= limit else 0


def _size(blob: np.ndarray, width: int) -> int:
    elements = blob.view(f"u{width}")
    return -(-elements.size // 8) + width * int(np.count_nonzero(elements))


def _packed(blob: np.ndarray, width: int) -> np.ndarray:
    elements = blob.view(f"u{width}")
    mask = elements != 0
    return np.concatenate([np.packbits(mask, bitorder="little"), elements[mask].view(np.uint8)])
