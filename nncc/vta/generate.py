"""What other languages are told of a machine, written from its description: a header for C.

Nothing about the encoding is written twice: the simulator includes this header. Fields, memories and operations that a
profile lacks are there as what makes their code vanish: a field is 0, the number of a memory or an operation negative.
"""

from __future__ import annotations

from nncc.vta.isa import OPCODES, PROFILES
from nncc.vta.machine import MEMORIES, Bits, Machine

__all__ = ["c_header", "fields_of_all", "memories_of_all", "operations_of_all"]


def c_header(machine: Machine) -> str:
    """The header, for C99 and C++. Macros begin with ``VTA_``; instructions are arrays of two uint64_t."""
    lines = [
        "/* A machine of the accelerator; made by nncc.vta.generate. */",
        "#ifndef VTA_MACHINE_H",
        "#define VTA_MACHINE_H",
        "#include <stdint.h>",
        f'#define VTA_ISA_HASH "{machine.isa_hash}"',
        f'#define VTA_CONFIGURATION "{machine.configuration}"',
        f'#define VTA_MEMORY "{machine.memory}"',
        f"#define VTA_BLOCK {machine.block}",
    ]
    for name in ("bus_bytes", "clock_mhz", "issue_cycles", "pipeline_cycles", "queue_depth", "fetch_depth"):
        lines.append(f"#define VTA_{name.upper()} {getattr(machine, name)}")
    lines += [f"#define VTA_OPCODE_{kind.upper()} {number}" for kind, number in OPCODES.items()]
    for kind, form in fields_of_all().items():
        own = {bits.name: bits for bits in machine.formats[kind]}
        for name in form:
            lines.append(f"#define VTA_{kind.upper()}_{name.upper()}(w) {_extracted(own.get(name), kind)}")
        used = sum(((1 << bits.width) - 1) << bits.offset for bits in own.values())
        if kind != "uop":
            for half, name in ((0, "LOWER"), (1, "UPPER")):
                mask = used >> 64 * half & ((1 << 64) - 1)
                lines.append(f"#define VTA_{kind.upper()}_USED_{name} UINT64_C(0x{mask:x})")
    have = {kind.name: kind for kind in machine.description.memories}
    for position, name in enumerate(memories_of_all()):
        there = name in have
        lines.append(f"#define VTA_MEMORY_{name.upper()} {have[name].id if there else -1 - position}")
        lines.append(f"#define VTA_BYTES_{name.upper()} {machine.element_bytes(name) if there else 1}")
        lines.append(f"#define VTA_DEPTH_{name.upper()} {machine.depth(name) if there else 1}")
    known = {operation.name: operation for operation in machine.description.alu}
    for position, name in enumerate(operations_of_all()):
        lines.append(f"#define VTA_ALU_{name} {known[name].id if name in known else -1 - position}")
    lines.append("/* X(name, number, bytes of an element in DRAM, elements on the chip, queue that loads it) */")
    rows = (
        f"X({name.upper()}, {kind.id}, {machine.element_bytes(name)}, {machine.depth(name)}, {kind.queue or 'none'})"
        for name, kind in have.items()
    )
    lines.append("#define VTA_MEMORIES(X) " + " ".join(rows))
    lines.append("/* X(name, number, cycles of an iteration by source: immediate, ACC, INP, PAR; 0: it takes none,")
    lines.append(" *   whether it overwrites, the bits its immediate may have where it is no operand, else 0) */")
    operations = []
    for operation in machine.description.alu:
        cycles = dict(operation.cycles)
        sources = ", ".join(str(cycles.get(source, 0)) for source in ("imm", "acc", "inp", "par"))
        allowed = {"operand": 0, "grid": 0x1FF, "row": machine.block - 1, "order": 1}[operation.immediate]
        operations.append(
            f"X({operation.name}, {operation.id}, {sources}, {int(bool(operation.overwrite))}, {allowed})"
        )
    lines.append("#define VTA_OPERATIONS(X) " + " ".join(operations))
    lines.append("/* X(name, latency, bytes a cycle, bytes of a burst, requests in flight, MHz) */")
    memories = (
        f"X({m.name}, {m.latency}, {m.bytes_per_cycle}, {m.burst_bytes}, {m.outstanding}, {m.clock_mhz})"
        for m in MEMORIES.values()
    )
    lines.append("#define VTA_DRAMS(X) " + " ".join(memories))
    return "\n".join([*lines, "#endif", ""])


def _extracted(bits: Bits | None, kind: str) -> str:
    """A field of `w` as an expression: an int, of a value that fits one; of 32 bits, an int64_t."""
    if bits is None:
        return "0"
    mask = (1 << bits.width) - 1
    word = "(uint64_t)(w)" if kind == "uop" else f"(w)[{bits.offset // 64}]"
    value = f"({word} >> {bits.offset % 64} & 0x{mask:x})"
    if bits.signed:
        return f"((int)((int64_t)(({word} >> {bits.offset % 64}) << {64 - bits.width}) >> {64 - bits.width}))"
    return f"((int64_t){value})" if bits.width > 31 else f"((int){value})"


def fields_of_all() -> dict[str, list[str]]:
    """By kind of instruction, the fields that any profile has."""
    found: dict[str, dict[str, None]] = {}
    for profile in PROFILES.values():
        for kind, form in profile.formats.items():
            found.setdefault(kind, {}).update(dict.fromkeys(field.name for field in form))
    return {kind: list(names) for kind, names in found.items()}


def memories_of_all() -> list[str]:
    """The memories that any profile has."""
    return list(dict.fromkeys(memory.name for profile in PROFILES.values() for memory in profile.memories))


def operations_of_all() -> list[str]:
    """The operations of the ALU that any profile has."""
    return list(dict.fromkeys(operation.name for profile in PROFILES.values() for operation in profile.alu))
