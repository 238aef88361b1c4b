"""A machine as a SystemVerilog package: what hardware is told of the encoding and the sizes.

The core in `nncc/vta/rtl` is written against it and has no number of the encoding in itself.
"""

from __future__ import annotations

from nncc.vta.generate import fields_of_all, memories_of_all, operations_of_all
from nncc.vta.isa import OPCODES, PROFILES
from nncc.vta.machine import Machine

__all__ = ["systemverilog_package"]


def systemverilog_package(machine: Machine) -> str:
    """The package ``vta_machine``. An instruction is a structure, made of its 128 bits by a function (a
    micro-operation of its 32); fields, memories and operations that a profile lacks are there too: a field is 0, and
    ``HAS_...`` says of a memory or operation that its number has no meaning.
    """
    sizes = ("block", "bus_bytes", "issue_cycles", "pipeline_cycles", "queue_depth", "fetch_depth")
    capabilities = dict.fromkeys(each for profile in PROFILES.values() for each in profile.capabilities)
    lines = [
        "// A machine of the accelerator; made by nncc.vta.systemverilog.",
        "/* verilator lint_off UNUSED */",
        "package vta_machine;",
        f"  localparam logic [255:0] ISA_HASH = 256'h{machine.isa_hash};",
        *(f"  localparam int {name.upper()} = {getattr(machine, name)};" for name in sizes),
        *(f"  localparam bit HAS_{name.upper()} = 1'b{int(machine.has(name))};" for name in capabilities),
        *(f"  localparam logic [2:0] OPCODE_{kind.upper()} = 3'd{number};" for kind, number in OPCODES.items()),
        *_memories(machine),
        *_operations(machine),
    ]
    for kind, names in fields_of_all().items():
        lines += _structure(machine, kind, names)
    return "\n".join([*lines, "endpackage", "/* verilator lint_on UNUSED */", ""])


def _memories(machine: Machine) -> list[str]:
    """Of each memory its number, bytes of an element in DRAM, elements on the chip, and who loads it."""
    have = {kind.name: kind for kind in machine.description.memories}
    every = {kind.name: kind for profile in PROFILES.values() for kind in profile.memories}
    lines = []
    for name in memories_of_all():
        there, upper, element = name in have, name.upper(), every[name].element
        size = element[0] + element[1] * machine.block + element[2] * machine.block**2
        lines += [
            f"  localparam bit HAS_{upper} = 1'b{int(there)};",
            f"  localparam logic [2:0] MEMORY_{upper} = 3'd{every[name].id};",
            f"  localparam int BYTES_{upper} = {size};",
            f"  localparam int DEPTH_{upper} = {machine.depth(name) if there else 1};",
        ]
    for queue in ("load", "compute"):
        loaded = " || ".join(f"memory == 3'd{kind.id}" for kind in have.values() if kind.queue == queue)
        lines += [f"  function automatic logic {queue}_queue_loads(input logic [2:0] memory);"]
        lines += [f"    return {loaded};", "  endfunction"]
    return lines


def _operations(machine: Machine) -> list[str]:
    known = {operation.name: operation.id for operation in machine.description.alu}
    lines = []
    for name in operations_of_all():
        lines.append(f"  localparam bit HAS_{name} = 1'b{int(name in known)};")
        lines.append(f"  localparam logic [2:0] ALU_{name} = 3'd{known.get(name, 7)};")
    return lines


def _structure(machine: Machine, kind: str, names: list[str]) -> list[str]:
    """The structure, its decoder, and a mask of the bits that belong to fields."""
    here = {bits.name: bits for bits in machine.formats[kind]}
    whole = 32 if kind == "uop" else 128
    members, values = [], []
    for name in names:
        bits = here.get(name)
        sign = " signed" if bits and bits.signed else ""
        members.append(f"    logic{sign} [{bits.width - 1 if bits else 0}:0] {name};")
        values.append(f"    fields.{name} = " + (f"w[{bits.offset} +: {bits.width}];" if bits else "1'b0;"))
    mask = sum(((1 << bits.width) - 1) << bits.offset for bits in here.values())
    return [
        f"  localparam logic [{whole - 1}:0] {kind.upper()}_FIELDS = {whole}'h{mask:x};",
        "  typedef struct packed {",
        *members,
        f"  }} {kind}_t;",
        f"  function automatic {kind}_t decode_{kind}(input logic [{whole - 1}:0] w);",
        f"    {kind}_t fields;",
        *values,
        "    return fields;",
        "  endfunction",
    ]
