"""The C of a library that drives an accelerator: tables of its programs, beside the rest of the model's source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nncc.codegen.emit_description import c_string
from nncc.ir import Program, align
from nncc.vta.machine import Machine
from nncc.vta.stream import Stream
from nncc.vta.totals import totals

__all__ = ["Submission", "accelerator_facts", "emit_accelerator", "place_programs"]


@dataclass(frozen=True)
class Submission:
    """Consecutive calls of a program that the accelerator computes at once."""

    first_call: int
    instructions: bytes
    uops: bytes
    ends: tuple[int, ...]
    """For each call, the number of the first instruction that is not its own."""

    @property
    def calls(self) -> range:
        """The numbers of the calls."""
        return range(self.first_call, self.first_call + len(self.ends))


def place_programs(submissions: Sequence[Submission]) -> tuple[bytes, list[tuple[int, int]]]:
    """All instructions and micro-operations in one, each part at a multiple of 64 bytes, and where those of each
    submission are."""
    blob, places = bytearray(), []
    for each in submissions:
        at = []
        for part in (each.instructions, each.uops):
            blob += bytes(align(len(blob)) - len(blob))
            at.append(len(blob))
            blob += part
        places.append((at[0], at[1]))
    return bytes(blob), places


def accelerator_facts(
    machine: Machine, submissions: Sequence[Submission], streams: Mapping[str, Stream]
) -> dict[str, Any]:
    """What a library says of its accelerator, and of each kernel there what it takes at least."""
    return {
        "profile": machine.profile,
        "configuration": machine.configuration,
        "isa_hash": machine.isa_hash,
        "machine": asdict(machine),
        "programs": len(submissions),
        "layers": sum(len(each.calls) for each in submissions),
        "instructions": sum(len(each.instructions) // 16 for each in submissions),
        "uops": sum(len(each.uops) // 4 for each in submissions),
        "kernels": {name: asdict(totals(stream, machine)) for name, stream in sorted(streams.items())},
    }


def emit_accelerator(program: Program, submissions: Sequence[Submission]) -> str:
    """``model_machine`` and ``model_programs`` of internal.h."""
    machine = program.target.hardware.accelerator
    assert machine is not None
    blob, places = place_programs(submissions)
    rows, tables = [], []
    for number, (each, (instructions, uops)) in enumerate(zip(submissions, places, strict=True)):
        ends = ", ".join(map(str, each.ends))
        tables.append(f"static const uint32_t program_{number}_ends[] = {{{ends}}};")
        count = len(each.instructions) // 16
        rows.append(
            f"  {{{instructions}, {uops}, {count}, {each.first_call}, {len(each.ends)}, program_{number}_ends}}"
        )
    facts = json.dumps(accelerator_facts(machine, submissions, program.streams))
    rows_text = ",\n".join(rows) or "  {0}"
    return f"""#define NNCC_CALLS {max(1, len(program.calls))}
static const nncc_machine model_machine = {{
  .isa_hash = {c_string(machine.isa_hash)},
  .configuration = {c_string(machine.configuration)},
  .json = {c_string(facts)},
  .programs_at = {align(program.weights.nbytes, 4096)},
  .programs_bytes = {len(blob)},
}};
{chr(10).join(tables)}
static const nncc_program model_programs[] = {{
{rows_text}
}};
"""
