"""Tiles of activations between DRAM and the chip: int8 [blocks, height, width, block], dense on the chip."""

from __future__ import annotations

from dataclasses import dataclass

from nncc.vta.stream import Load, Place, Store
from nncc.vta.tiling import Axis, Span

__all__ = ["WIDEST", "Box", "load_box", "load_windows", "store_box"]

WIDEST = (1 << 16) - 1
"""Of rows, elements of a row and distances between rows, in one instruction."""


@dataclass(frozen=True)
class Box:
    """A part of a tensor of activations [_, height, width]."""

    blocks: Span
    rows: Span
    columns: Span


def load_windows(
    memory: str, box: Box, rows: Axis, columns: Axis, sram: int, pad_value: int, argument: int = 0
) -> list[Load]:
    """What the windows of a box of outputs see of some input blocks (`box.blocks`), padding included."""
    height, width = rows.seen(box.rows), columns.seen(box.columns)
    y_pad, x_pad = rows.padding_of(box.rows), columns.padding_of(box.columns)
    inside = Box(
        box.blocks,
        Span(height.start + y_pad[0], height.size - sum(y_pad)),
        Span(width.start + x_pad[0], width.size - sum(x_pad)),
    )
    if not any(y_pad) and not any(x_pad) and rows.pitch == columns.pitch == 1:
        return load_box(memory, inside, (rows.size, columns.size), sram, argument)
    loads = []
    for index in range(box.blocks.size):
        row = (box.blocks.start + index) * rows.size + inside.rows.start * rows.pitch
        loads.append(
            Load(
                memory,
                Place(argument, row * columns.size + inside.columns.start * columns.pitch),
                sram + index * height.size * width.size,
                inside.rows.size,
                inside.columns.size,
                columns.size * rows.pitch if inside.rows.size > 1 else inside.columns.size,
                y_pad,
                x_pad,
                pad_value if any(y_pad) or any(x_pad) else 0,
                columns.pitch,
            )
        )
    return loads


def load_box(memory: str, box: Box, plane: tuple[int, int], sram: int, argument: int) -> list[Load]:
    """A box of a tensor whose planes have these rows and columns."""
    return [
        Load(memory, Place(argument, element), sram + offset, y_size, x_size, x_stride)
        for element, offset, y_size, x_size, x_stride in _rectangles(box, plane)
    ]


def store_box(box: Box, plane: tuple[int, int], sram: int, argument: int) -> list[Store]:
    """A dense box of results to where it belongs in a tensor whose planes have these rows and columns."""
    return [
        Store(Place(argument, element), sram + offset, y_size, x_size, x_stride)
        for element, offset, y_size, x_size, x_stride in _rectangles(box, plane)
    ]


def _rectangles(box: Box, plane: tuple[int, int]) -> list[tuple[int, int, int, int, int]]:
    """Few instructions: first element, offset on the chip, rows, elements of a row, distance of rows."""
    height, width = plane
    blocks, rows, columns = box.blocks.size, box.rows.size, box.columns.size
    first = (box.blocks.start * height + box.rows.start) * width + box.columns.start
    merged = [(blocks, height * width)]
    for extent, stride in ((rows, width), (columns, 1)):
        outer, distance = merged[-1]
        if outer == 1 or (distance == extent * stride and outer * extent <= WIDEST):
            merged[-1] = (outer * extent, stride)
        else:
            merged.append((extent, stride))
    if len(merged) == 1:
        merged.insert(0, (1, merged[0][0]))
    (y_size, x_stride), (x_size, _) = merged[-2:]
    outer, distance = merged[0] if len(merged) == 3 else (1, 0)
    if x_stride > WIDEST:
        outer, distance, y_size, x_stride = y_size, x_stride, 1, x_size
    return [(first + index * distance, index * y_size * x_size, y_size, x_size, x_stride) for index in range(outer)]
