"""The reference page of the accelerator: ``python -m nncc.vta.reference > docs/vta.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nncc.vta.isa import OPCODES, PROFILES, WIDTHS, AluOperation, Field
from nncc.vta.machine import MEMORIES, Machine

__all__ = ["reference_page"]


def reference_page() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION]
    for name, profile in PROFILES.items():
        machine = Machine(name)
        parts.append(f"## Profile `{name}`: {profile.doc}\n")
        parts.append(
            f"As it is encoded for `{machine.configuration}`, whose hash is `{machine.isa_hash}`. Widths that depend "
            "on the configuration are named.\n"
        )
        for kind, form in profile.formats.items():
            title = f"`{kind}`" + (f", opcode {OPCODES[kind]}" if kind in OPCODES else ", 32 bits")
            parts.append(f"### {title}\n")
            parts.append(_table(("bits", "field", "width", "meaning"), _fields(machine, kind, form)))
        parts.append("### Memories\n")
        parts.append(_table(("number", "memory", "element", "elements", "filled by", "base", "what it holds"), [
            (str(kind.id), kind.name.upper(), f"{machine.element_bytes(kind.name)} B", str(machine.depth(kind.name)),
             f"queue {kind.queue}" if kind.queue else "GEMM and ALU", kind.base, kind.doc)
            for kind in profile.memories
        ]))  # fmt: skip
        parts.append("### Operations of the ALU\n")
        headings = ("number", "operation", "ACC[dst] becomes", "cycles by source", "immediate", "with overwrite")
        parts.append(_table((*headings, ""), [_operation(each) for each in profile.alu]))
    parts.append(_WORDS)
    parts.append(_TIME)
    parts.append(_table(("name", "latency", "bytes a cycle", "burst", "requests in flight", "clock", ""), [
        (memory.name, str(memory.latency), str(memory.bytes_per_cycle or "the bus"), f"{memory.burst_bytes} B",
         str(memory.outstanding), f"{memory.clock_mhz} MHz" if memory.clock_mhz else "the machine's", memory.doc)
        for memory in MEMORIES.values()
    ]))  # fmt: skip
    return "\n".join(parts)


def _fields(machine: Machine, kind: str, form: Sequence[Field]) -> Iterable[Sequence[str]]:
    for field, bits in zip(form, machine.formats[kind], strict=True):
        signed = ", signed" if bits.signed else ""
        width = f"{bits.width}" if field.width.isdigit() else f"{bits.width} (`{field.width}`)"
        yield f"{bits.offset}:{bits.offset + bits.width}", field.name, width + signed, field.doc


def _operation(operation: AluOperation) -> Sequence[str]:
    cycles = ", ".join(f"{source} {count}" for source, count in operation.cycles)
    overwrite = f"`{operation.overwrite}`" if operation.overwrite else ""
    name, meaning = operation.name, f"`{operation.meaning}`"
    return str(operation.id), name, meaning, cycles, operation.immediate, overwrite, operation.doc


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


_INTRODUCTION = f"""\
# The accelerator

<!-- Written by `python -m nncc.vta.reference`. -->

A program is a list of instructions of 128 bits, the last one FINISH, and of micro-operations of 32 bits; both are
little-endian. Bits count from the least significant one; `a:b` are those from a on, before b.

**Queues.** STORE goes to the queue `store`; LOAD to the queue that fills its memory, `load` or `compute`; all others
to `compute`. Each queue executes its instructions in order, one at a time. Between neighbours (load and compute,
compute and store) there are tokens in both directions: an instruction begins when it has the tokens that it pops, and
gives those that it pushes when it is complete. More than 255 tokens that wait, tokens that are left at the end, and a
FINISH that does not wait for all other instructions are errors.

**LOAD** copies `y_size` rows of `x_size` elements, `x_stride` apart in DRAM, densely into a memory of the chip, with
padding around them. With `x_skip` only every (1 + x_skip)th element of a row is taken; all are read. Where `x_size`
is 0 the instruction only moves tokens; where only `y_size` is 0 there is only padding. **STORE** copies elements of
OUT to rows in DRAM, and has no padding. Addresses count elements of the memory, in DRAM from the memory's base on;
all that lies between the first and the last byte must be within one piece of memory.

**GEMM and ALU** are loops: for each outer iteration, each inner one, and each micro-operation, innermost, on the
elements dst + outer dst_out + inner dst_in, and so on. GEMM: ACC[dst] += WGT[wgt] INP[src], wrapping; with `reset`
ACC[dst] = 0. Each result (but not of a reset, nor of a LOAD) is also written to OUT[dst], its lowest 8 bits.

**Scratchpads** hold the byte 0xA5 everywhere before a program runs. Bits that belong to no field must be 0.

Widths by name: {"; ".join(f"`{name}`, {doc}" for name, doc in WIDTHS.items())}.
"""

_WORDS = """\
## The words of the operations

a is ACC[dst], b the source or the immediate, both lane by lane. `bias` and `scale` are those of PAR[src] in the lane;
`ra`, `rb`, `fixed` are scales 0, 1 and 2 of PAR[wgt]; `row` is the lane of the row of WGT[wgt] that the immediate
says. Immediate `grid`: bits 0 to 8 are `zero`, signed; with bit 8 set, `low` is `zero`, else -128. Immediate `order`:
bit 0 is `swapped`.

wrap(x): the int32 with the same lowest 32 bits. float32(x), product(x, y): rounded once, ties to even. fma(x, y, z):
x y + z, rounded once. count(x) = float32(wrap(x + 128)). shift(a, b): arithmetic, to the right by b (31 at most), to
the left by -b. clamp(v, low, high): `low` where v is NaN. nearest_even(v): the nearest integer, ties to even.
"""

_TIME = """\
## Cycles

An instruction takes 4 cycles to issue, one for each iteration (or what the operation says), and 8 for the pipeline
after the last; one without iterations, and one that only moves tokens, only the 4. A LOAD takes a cycle for each
element that it writes, padding included, at once with its reading. Reads of fetching, of the compute queue and of the
load queue, in this priority, share a port, which takes one request a cycle: a burst that crosses no page of 4096
bytes. The first beat comes after the latency, one beat a cycle in the order of the requests; each client has so many
requests in flight. Rows that lie side by side in DRAM are read as one. The store queue has the write port for itself;
a write is complete the latency after its last beat. Instructions are fetched in bursts into a buffer of 64, and go to
their queue in order, one a cycle, while that has fewer than 32.
"""


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference_page())
