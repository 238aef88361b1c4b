"""Several programs of one model as one: each is a variant, for its own sizes; equal constants are there once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nncc.codegen.place import Memory
from nncc.compat import IRModule
from nncc.ir import Branch, Call, Dim, Program, Ref, Step, TensorSpec, Variant, symbol_prefix, with_refs

__all__ = ["joined"]


def joined(
    dims: Sequence[Dim],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    general: Program | None,
    buckets: Sequence[tuple[Mapping[str, int], Program]],
) -> Program:
    """One program: the static ones of `buckets`, by their sizes, and for all other sizes the `general` one, if any.

    `inputs` and `outputs` are those of all sizes. Every variant has the whole arena; what the largest needs is enough.
    """
    programs = [(tuple(sizes[dim.name] for dim in dims), program) for sizes, program in buckets]
    if general is not None:
        programs.append(((), general))
    first = programs[0][1]
    prefix, memory = symbol_prefix(first.name), Memory()
    steps: list[Step] = []
    variants: list[Variant] = []
    tables: dict[str, Any] = {name: {} for name in _TABLES}
    kernels: dict[str, Any] = {}
    for sizes, program in programs:
        mark = "".join(f"{size}_" for size in sizes) and f"at_{'_'.join(map(str, sizes))}_"
        moved = {start: memory.constant(blob).at for start, blob in _pieces(program).items()}
        start = len(steps)
        steps += _marked(with_refs(program.steps, _mover(moved)), mark)
        variants.append(Variant(sizes, start, len(steps)))
        for name in _TABLES:
            tables[name] |= {mark + kernel: value for kernel, value in getattr(program, name).items()}
        for variable, function in program.kernels.functions.items():
            name = mark + variable.name_hint
            own = str(function.attrs["global_symbol"]).removeprefix(prefix)
            kernels[name] = function.with_attr("global_symbol", f"{prefix}{mark}{own}")
    return replace(
        first,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        steps=tuple(steps),
        weights=memory.weights(),
        arena_bytes=max(program.arena_bytes for _, program in programs),
        scratch_bytes=max(program.scratch_bytes for _, program in programs),
        kernels=IRModule(kernels, attrs=first.kernels.attrs),
        dims=tuple(dims),
        variants=tuple(variants),
        **tables,
    )


_TABLES = ("schedules", "operations", "argument_bytes", "sources")
"""Fields of a program that are by kernel."""


def _pieces(program: Program) -> dict[int, Any]:
    """The constants of a program by the byte that they begin at: each reaches to the next."""
    starts: set[int] = set()

    def note(ref: Ref) -> Ref:
        if ref.space == "weights":
            starts.add(ref.at)
        return ref

    with_refs(program.steps, note)
    spans = itertools.pairwise([*sorted(starts), program.weights.nbytes])
    return {start: program.weights[start:stop] for start, stop in spans}


def _mover(moved: Mapping[int, int]) -> Callable[[Ref], Ref]:
    return lambda ref: replace(ref, at=moved[ref.at]) if ref.space == "weights" else ref


def _marked(steps: Sequence[Step], mark: str) -> tuple[Step, ...]:
    """The steps with `mark` before the names of kernels."""

    def of(step: Step) -> Step:
        if isinstance(step, Call):
            return replace(step, kernel=mark + step.kernel) if step.kernel else step
        if isinstance(step, Branch):
            return replace(step, then=_marked(step.then, mark), otherwise=_marked(step.otherwise, mark))
        return replace(step, steps=_marked(step.steps, mark))

    return tuple(map(of, steps))
