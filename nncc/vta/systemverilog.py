"""A machine as a SystemVerilog package: what hardware is told of the encoding and the sizes."""

from __future__ import annotations

from nncc.vta.generate import fields_of_all, memories_of_all, operations_of_all
from nncc.vta.isa import OPCODES, PROFILES
from nncc.vta.machine import Bits, Machine

__all__ = ["systemverilog_package"]

_SOURCES = ("imm", "acc", "inp", "par")


def systemverilog_package(machine: Machine) -> str:
    """The package ``vta_machine``. A field of an instruction is a function of its 128 bits, one of a micro-operation of
    its 32; fields, memories and operations that a profile lacks are there too: a field is 0, a memory or operation has
    the number of none that can be encoded.
    """
    lines = [
        "// A machine of the accelerator; made by nncc.vta.systemverilog.",
        "/* verilator lint_off UNUSED */",
        "package vta_machine;",
    ]
    lines.append(f"  localparam logic [255:0] ISA_HASH = 256'h{machine.isa_hash};")
    sizes = ("block", "bus_bytes", "issue_cycles", "pipeline_cycles", "queue_depth", "fetch_depth")
    lines += [f"  localparam int {name.upper()} = {getattr(machine, name)};" for name in sizes]
    lines += [f"  localparam logic [2:0] OPCODE_{kind.upper()} = 3'd{number};" for kind, number in OPCODES.items()]
    for capability in dict.fromkeys(each for profile in PROFILES.values() for each in profile.capabilities):
        lines.append(f"  localparam bit HAS_{capability.upper()} = 1'b{int(machine.has(capability))};")
    have = {kind.name: kind for kind in machine.description.memories}
    for position, name in enumerate(memories_of_all()):
        there = name in have
        lines.append(f"  localparam int MEMORY_{name.upper()} = {have[name].id if there else -1 - position};")
        lines.append(f"  localparam int BYTES_{name.upper()} = {machine.element_bytes(name) if there else 1};")
        lines.append(f"  localparam int DEPTH_{name.upper()} = {machine.depth(name) if there else 1};")
    known = {operation.name: operation for operation in machine.description.alu}
    for position, name in enumerate(operations_of_all()):
        lines.append(f"  localparam int ALU_{name} = {known[name].id if name in known else -1 - position};")
    lines += _cycles(machine)
    for kind, names in fields_of_all().items():
        own = {bits.name: bits for bits in machine.formats[kind]}
        lines += [_extracted(kind, name, own.get(name)) for name in names]
    return "\n".join([*lines, "endpackage", "/* verilator lint_on UNUSED */", ""])


def _cycles(machine: Machine) -> list[str]:
    """A function: the cycles of an iteration of an operation, by its source; 0: it takes none of it."""
    lines = [f"  localparam int SOURCE_{name.upper()} = {number};" for number, name in enumerate(_SOURCES)]
    lines.append("  function automatic int alu_cycles(input logic [2:0] operation, input int source);")
    lines.append("    case ({operation, source[1:0]})")
    for operation in machine.description.alu:
        for source, cycles in operation.cycles:
            lines.append(f"      {{3'd{operation.id}, 2'd{_SOURCES.index(source)}}}: return {cycles};")
    return [*lines, "      default: return 0;", "    endcase", "  endfunction"]


def _extracted(kind: str, name: str, bits: Bits | None) -> str:
    whole = 32 if kind == "uop" else 128
    if bits is None:
        width, sign, value = 1, "", "1'b0"
    else:
        width, sign = bits.width, "signed " if bits.signed else ""
        value = f"w[{bits.offset + bits.width - 1}:{bits.offset}]"
    head = f"  function automatic logic {sign}[{width - 1}:0] {kind}_{name}(input logic [{whole - 1}:0] w);"
    return f"{head}\n    return {value};\n  endfunction"
