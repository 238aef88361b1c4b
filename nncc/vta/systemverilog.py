"""The instruction set of a machine as a SystemVerilog package: sizes, numbers, instructions as structures.

The core in `nncc/vta/rtl` is written against this package and has no number of the encoding in itself. It is the same
text for both profiles: a field, memory or operation that a profile lacks is there with the value 0, and `HAS_...`
says so.
"""

from __future__ import annotations

from nncc.vta.isa import OPCODES, PROFILES
from nncc.vta.machine import Machine

__all__ = ["systemverilog_package"]


def systemverilog_package(machine: Machine) -> str:
    """The package ``vta_isa``."""
    lines = [
        f"// {machine.configuration}, made from the description of the instruction set; {machine.isa_hash}",
        "package vta_isa;",
        *_integers(machine),
        *_memories(machine),
        *(f"  localparam logic [2:0] OPCODE_{kind.upper()} = 3'd{number};" for kind, number in OPCODES.items()),
        *_operations(machine),
    ]
    for kind in (*OPCODES, "uop"):
        lines += _structure(machine, kind)
    return "\n".join([*lines, "endpackage", ""])


def _integers(machine: Machine) -> list[str]:
    names = ("block", "bus_bytes", "issue_cycles", "pipeline_cycles", "queue_depth", "fetch_depth")
    capabilities = dict.fromkeys(word for profile in PROFILES.values() for word in profile.capabilities)
    return [
        *(f"  localparam int {name.upper()} = {getattr(machine, name)};" for name in names),
        *(f"  localparam bit HAS_{word.upper()} = {int(machine.has(word))};" for word in capabilities),
    ]


def _memories(machine: Machine) -> list[str]:
    """Of each memory its number, bytes of an element in DRAM, depth (1 where there is none), and who loads it."""
    here = {kind.name for kind in machine.description.memories}
    lines, routes = [], []
    for kind in dict.fromkeys(kind for profile in PROFILES.values() for kind in profile.memories):
        name, present = kind.name.upper(), kind.name in here
        lines += [
            f"  localparam bit HAS_{name} = {int(present)};",
            f"  localparam logic [2:0] MEMORY_{name} = 3'd{kind.id};",
            f"  localparam int {name}_BYTES = {_element_bytes(machine, kind.element)};",
            f"  localparam int {name}_DEPTH = {machine.depth(kind.name) if present else 1};",
        ]
        routes += [(queue, kind.id) for queue in ("load", "compute") if present and kind.queue == queue]
    for queue in ("load", "compute"):
        known = " || ".join(f"memory == 3'd{number}" for owner, number in routes if owner == queue)
        lines += [f"  function automatic logic {queue}_queue_loads(logic [2:0] memory);", f"    return {known};"]
        lines += ["  endfunction"]
    return lines


def _element_bytes(machine: Machine, element: tuple[int, int, int]) -> int:
    return element[0] + element[1] * machine.block + element[2] * machine.block**2


def _operations(machine: Machine) -> list[str]:
    here = {operation.name for operation in machine.description.alu}
    lines = []
    for name, number in {each.name: each.id for profile in PROFILES.values() for each in profile.alu}.items():
        lines += [
            f"  localparam bit HAS_{name} = {int(name in here)};",
            f"  localparam logic [2:0] ALU_{name} = 3'd{number};",
        ]
    return lines


def _structure(machine: Machine, kind: str) -> list[str]:
    """A structure of the fields that any profile has, its decoder, and the mask of the bits that are fields here."""
    here = {bits.name: bits for bits in machine.formats[kind]}
    word = 32 if kind == "uop" else 128
    names = dict.fromkeys(field.name for profile in PROFILES.values() for field in profile.formats[kind])
    members = []
    for name in names:
        bits = here.get(name)
        sign = " signed" if bits and bits.signed else ""
        members.append(f"    logic{sign} [{bits.width - 1 if bits else 0}:0] {name};")
    values = [
        f"    fields.{name} = " + (f"word[{here[name].offset} +: {here[name].width}];" if name in here else "1'b0;")
        for name in names
    ]
    mask = sum(((1 << bits.width) - 1) << bits.offset for bits in here.values())
    return [
        f"  localparam logic [{word - 1}:0] {kind.upper()}_FIELDS = {word}'h{mask:x};",
        "  typedef struct packed {",
        *members,
        f"  }} {kind}_t;",
        f"  function automatic {kind}_t decode_{kind}(logic [{word - 1}:0] word);",
        f"    {kind}_t fields;",
        *values,
        "    return fields;",
        "  endfunction",
    ]
