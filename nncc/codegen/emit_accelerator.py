"""The C of a library that drives an accelerator: tables of its programs, beside the rest of the model's source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nncc.codegen.emit_description import c_string
from nncc.ir import Program, align
from nncc.vta.machine import Machine
from nncc.vta.program import Binary, binary_bytes, places_in
from nncc.vta.stream import Stream
from nncc.vta.totals import totals

__all__ = ["Submission", "accelerator_facts", "emit_accelerator", "programs_blob"]


@dataclass(frozen=True)
class Submission:
    """Consecutive calls of a program that the accelerator computes at once."""

    first_call: int
    binary: Binary

    @property
    def calls(self) -> range:
        """The numbers of the calls, a layer each."""
        return range(self.first_call, self.first_call + len(self.binary.layers))


def programs_blob(submissions: Sequence[Submission]) -> tuple[bytes, list[tuple[int, int]]]:
    """All programs as bytes, one behind the other, and where the instructions and micro-operations of each begin."""
    blob, places = b"", []
    for each in submissions:
        data = binary_bytes(each.binary)
        instructions, uops = places_in(data)
        places.append((len(blob) + instructions, len(blob) + uops))
        blob += data.ljust(align(len(data)), b"\0")
    return blob, places


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
        "instructions": sum(len(each.binary.instructions) for each in submissions),
        "uops": sum(len(each.binary.uops) for each in submissions),
        "kernels": {name: asdict(totals(stream, machine)) for name, stream in sorted(streams.items())},
    }


def emit_accelerator(program: Program, submissions: Sequence[Submission]) -> str:
    """``model_machine`` and ``model_programs`` of internal.h."""
    machine = program.target.hardware.accelerator
    assert machine is not None
    blob, places = programs_blob(submissions)
    rows, tables = [], []
    for number, (each, (instructions, uops)) in enumerate(zip(submissions, places, strict=True)):
        ends = ", ".join(str(end) for _, end in each.binary.layers)
        tables.append(f"static const uint32_t program_{number}_ends[] = {{{ends}}};")
        sizes = f"{len(each.binary.instructions)}, {each.first_call}, {len(each.calls)}"
        rows.append(f"  {{{instructions}, {uops}, {sizes}, program_{number}_ends}}")
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
