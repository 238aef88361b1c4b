"""Programs of the accelerator as text, one line an instruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nncc.errors import RunError
from nncc.vta.encoding import decode, decode_uops, words_of
from nncc.vta.machine import Machine
from nncc.vta.program import Binary

__all__ = ["disassemble", "instruction_text"]

_NEIGHBOURS = {"load": ("", "compute"), "compute": ("load", "store"), "store": ("compute", "")}


def disassemble(binary: Binary, uops: bool = False) -> str:
    """A line about the program, one for each instruction, and with `uops` one for each micro-operation."""
    lines = [
        f"program for {binary.machine.configuration}: {len(binary.instructions)} instructions, "
        f"{len(binary.uops)} micro-operations, {len(binary.layers)} layers"
    ]
    lines += _instructions(binary)
    if uops:
        lines.append("micro-operations")
        table = decode_uops(binary.machine, binary.uops)
        lines += [f"{at:6}  dst {dst:4}  src {src:4}  wgt {wgt:4}" for at, (dst, src, wgt) in enumerate(table)]
    return "\n".join(lines) + "\n"


def _instructions(binary: Binary) -> Iterator[str]:
    for index, word in enumerate(words_of(binary.instructions)):
        for layer, (first, end) in enumerate(binary.layers):
            if first == index < end:
                yield f"layer {layer}: instructions {first} to {end - 1}"
        yield f"{index:6}  {instruction_text(binary.machine, word)}"


def instruction_text(machine: Machine, word: int) -> str:
    """One instruction of 128 bits, with what waits for whom; a word that is none as its digits, and why it is none."""
    try:
        instruction = decode(machine, word)
    except RunError as error:
        return f"{word:032x}: {error.message}"
    fields, kind = instruction.fields, instruction.kind
    text = {"load": _load, "store": _store, "gemm": _gemm, "alu": _alu}.get(kind, lambda machine, fields: "finish")(
        machine, fields
    )
    tokens = _tokens(_queue(machine, kind, fields), fields)
    return f"{text:<92}  {tokens}".rstrip()


def _queue(machine: Machine, kind: str, fields: Mapping[str, int]) -> str:
    if kind in ("gemm", "alu", "finish"):
        return "compute"
    memory = next((m for m in machine.description.memories if m.id == fields["memory"]), None)
    return "store" if kind == "store" else memory.queue if memory and memory.queue else "load"


def _tokens(queue: str, fields: Mapping[str, int]) -> str:
    told = []
    for verb, flag in (("after", "pop"), ("then", "push")):
        names = zip(("prev", "next"), _NEIGHBOURS[queue], strict=True)
        others = [other or "nobody" for side, other in names if fields[f"{flag}_{side}"]]
        if others:
            told.append(f"{verb} {' and '.join(others)}")
    return ", ".join(told)


def _memory(machine: Machine, number: int) -> str:
    return next((kind.name for kind in machine.description.memories if kind.id == number), f"memory {number}")


def _rows(fields: Mapping[str, int]) -> str:
    stride = f" every {fields['x_stride']}" if fields["y_size"] != 1 else ""
    return f"{fields['y_size']}x{fields['x_size']}{stride}"


def _load(machine: Machine, fields: Mapping[str, int]) -> str:
    name = _memory(machine, fields["memory"])
    if not fields["x_size"]:
        return f"load  {name:<4} nothing"
    text = f"load  {name:<4} {fields['sram']:<5} <- dram {fields['dram']} {_rows(fields)}"
    if fields.get("x_skip"):
        text += f" step {fields['x_skip'] + 1}"
    pads = [fields[name] for name in ("y_pad_0", "x_pad_0", "y_pad_1", "x_pad_1")]
    return f"{text} pad {pads} of {fields.get('pad_value', 0)}" if any(pads) else text


def _store(machine: Machine, fields: Mapping[str, int]) -> str:
    name = _memory(machine, fields["memory"])
    if not fields["x_size"]:
        return f"store {name:<4} nothing"
    return f"store {name:<4} {fields['sram']:<5} -> dram {fields['dram']} {_rows(fields)}"


def _loops(fields: Mapping[str, int], names: tuple[str, ...]) -> str:
    strides = (f"{name} +{fields[f'{name}_out']} +{fields[f'{name}_in']}" for name in names)
    iterations = f"{fields['iter_out']}x{fields['iter_in']}"
    return f"{iterations} of uops {fields['uop_bgn']}:{fields['uop_end']}, {', '.join(strides)}"


def _gemm(machine: Machine, fields: Mapping[str, int]) -> str:
    name = "reset" if fields["reset"] else "gemm=" if fields.get("overwrite") else "gemm"
    return f"{name:<10} {_loops(fields, ('dst', 'src', 'wgt'))}"


def _alu(machine: Machine, fields: Mapping[str, int]) -> str:
    operation = next((each for each in machine.description.alu if each.id == fields["alu_op"]), None)
    if operation is None:
        return f"alu {fields['alu_op']}: there is no such operation"
    name = operation.name.lower() + ("=" if fields.get("overwrite") else "")
    immediate = f", imm {fields['imm']}" if fields["use_imm"] or operation.immediate != "operand" else ""
    source = " from inp" if fields.get("from_inp") else ""
    return f"{name + source:<10} {_loops(fields, ('dst', 'src'))}{immediate}"
