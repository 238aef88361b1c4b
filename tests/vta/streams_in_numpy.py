"""Streams computed in numpy, one operation after the other: what a machine without queues would do."""

from __future__ import annotations

import numpy as np

from nncc.vta.golden import fused
from nncc.vta.machine import Machine
from nncc.vta.stream import Alu, Gemm, Load, Loops, Store, Stream

FILL = {"inp": 77, "wgt": 77, "acc": 12345678, "out": 77}
"""What memories hold before anything was loaded."""


def compute(stream: Stream, arguments: list[np.ndarray], machine: Machine) -> np.ndarray:
    """The output, as bytes, of a stream whose other arguments are these."""
    block = machine.block
    dram = [np.ascontiguousarray(argument).reshape(-1).view(np.uint8) for argument in arguments]
    dram.append(np.full(stream.arguments[-1], 0x55, np.uint8))
    assert [len(each) for each in dram] == list(stream.arguments)
    chip = {
        "inp": np.full((machine.depth("inp"), block), FILL["inp"], np.int8),
        "wgt": np.full((machine.depth("wgt"), block, block), FILL["wgt"], np.int8),
        "acc": np.full((machine.depth("acc"), block), FILL["acc"], np.int32),
        "out": np.full((machine.depth("acc"), block), FILL["out"], np.int8),
    }
    if machine.has("requantize"):
        chip["par"] = np.full((machine.depth("par"), 8 * block), 0x77, np.uint8)
    for operation in stream.operations:
        if isinstance(operation, Load):
            _load(operation, dram, chip, machine)
        elif isinstance(operation, Store):
            at = _rows(operation)
            flat = dram[operation.place.argument].view(np.int8).reshape(-1, block)
            values = chip["out"][operation.sram : operation.sram + at.size]
            flat[at.reshape(-1)] = values
        elif isinstance(operation, Gemm):
            _gemm(operation, chip)
        else:
            _alu(operation, chip, block)
    return dram[-1]


def _rows(move: Load | Store) -> np.ndarray:
    step = move.x_step if isinstance(move, Load) else 1
    return move.place.element + np.arange(move.y_size)[:, None] * move.x_stride + np.arange(move.x_size)[None] * step


def _load(load: Load, dram: list[np.ndarray], chip: dict[str, np.ndarray], machine: Machine) -> None:
    memory = "acc" if load.memory == "acc8" else load.memory
    source = dram[load.place.argument].reshape(-1, machine.element_bytes(load.memory))
    values = source[_rows(load)]
    padded = np.pad(values, (load.y_pad, load.x_pad, (0, 0)), constant_values=load.pad_value & 0xFF)
    flat = padded.reshape(-1, padded.shape[-1])
    target = chip[memory][load.sram : load.sram + len(flat)]
    if load.memory == "acc8":
        target[:] = flat.view(np.int8)
    else:
        target[:] = np.ascontiguousarray(flat).view(target.dtype).reshape(target.shape)


def _groups(loops: Loops) -> np.ndarray:
    return loops.indices()


def _gemm(gemm: Gemm, chip: dict[str, np.ndarray]) -> None:
    at = _groups(gemm)
    assert (at >= 0).all()
    if gemm.reset:
        chip["acc"][at[:, 0]] = 0
        return
    products = np.einsum(
        "ni,noi->no", chip["inp"][at[:, 1]].astype(np.float64), chip["wgt"][at[:, 2]].astype(np.float64)
    ).astype(np.int32)
    if gemm.overwrite:
        assert len(np.unique(at[:, 0])) == len(at)
        chip["acc"][at[:, 0]] = products
    else:
        np.add.at(chip["acc"], at[:, 0], products)
    chip["out"][at[:, 0]] = chip["acc"][at[:, 0]].astype(np.int8)


def _alu(alu: Alu, chip: dict[str, np.ndarray], block: int) -> None:
    at = _groups(alu)
    order = np.arange(len(at))
    rank = np.zeros(len(at), np.int64)  # the how-manieth write of its element
    by = np.lexsort((order, at[:, 0]))
    starts = np.r_[True, at[by, 0][1:] != at[by, 0][:-1]]
    rank[by] = np.arange(len(at)) - np.maximum.accumulate(np.where(starts, np.arange(len(at)), 0))
    for turn in range(int(rank.max()) + 1):
        dst, src, wgt = at[rank == turn].T
        a = chip["acc"][dst].astype(np.int64)
        chip["acc"][dst] = _operation(alu, a, src, wgt, chip, block).astype(np.uint32).view(np.int32)
        chip["out"][dst] = chip["acc"][dst].astype(np.int8)


def _operation(
    alu: Alu, a: np.ndarray, src: np.ndarray, wgt: np.ndarray, chip: dict[str, np.ndarray], block: int
) -> np.ndarray:
    name, immediate = alu.operation, alu.immediate
    if name == "RQ":
        assert immediate is not None
        params = chip["par"][src]
        bias = np.ascontiguousarray(params[:, : 4 * block]).view(np.int32)
        scale = np.ascontiguousarray(params[:, 4 * block :]).view(np.float32)
        zero = (immediate & 0xFF) - (256 if immediate & 0x80 else 0)
        low = (zero if immediate & 0x100 else -128) - zero
        real = (a + bias).astype(np.uint32).view(np.int32).astype(np.float32) * scale
        return np.rint(np.fmin(np.fmax(real, np.float32(low)), np.float32(127 - zero))).astype(np.int64) + zero
    if name in ("MIN", "MAX", "ADD", "SHR", "MUL") and immediate is not None:
        b = np.full_like(a, immediate)
    else:
        b = (chip["inp"] if alu.from_inp else chip["acc"])[src].astype(np.int64)
    if name == "MAC":
        b = b * chip["wgt"][wgt, immediate]
        return b if alu.overwrite else a + b
    if name == "QADD":
        ra, rb, fixed = np.ascontiguousarray(chip["par"][wgt[0], 4 * block :]).view(np.float32)[:3]
        (x, r), (y, s) = ((b, rb), (a, ra)) if immediate else ((a, ra), (b, rb))
        real = fused(x + 128.0, r, fused(y + 128.0, s, fixed))
        return np.rint(np.clip(real, 0, 255)).astype(np.int64) - 128
    if alu.overwrite:
        return b
    simple = {"MIN": np.minimum, "MAX": np.maximum, "ADD": np.add, "SHR": np.right_shift, "MUL": np.multiply}
    return np.asarray(simple[name](a, b))
