"""Several programs of one model as one: each is a variant, for its own sizes; equal constants are there once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nncc.codegen.flatten import Constants, symbol_prefix
from nncc.compat import IRModule
from nncc.ir import Call, Dim, Program, Ref, TensorSpec, Variant

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
    prefix, constants = symbol_prefix(first.name), Constants()
    calls: list[Call] = []
    variants: list[Variant] = []
    tables: dict[str, Any] = {name: {} for name in _TABLES}
    kernels: dict[str, Any] = {}
    for sizes, program in programs:
        mark = "".join(f"{size}_" for size in sizes) and f"at_{'_'.join(map(str, sizes))}_"
        moved = {start: constants.add(blob) for start, blob in _pieces(program).items()}
        start = len(calls)
        calls += [_moved(call, mark, moved) for call in program.calls]
        variants.append(Variant(sizes, start, len(calls)))
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
        calls=tuple(calls),
        weights=constants.blob(),
        arena_bytes=max(program.arena_bytes for _, program in programs),
        scratch_bytes=max(program.scratch_bytes for _, program in programs),
        kernels=IRModule(kernels, attrs=first.kernels.attrs),
        dims=tuple(dims),
        variants=tuple(variants),
        **tables,
    )


_TABLES = ("schedules", "flops", "argument_bytes", "sources")
"""Fields of a program that are by kernel."""


def _pieces(program: Program) -> dict[int, Any]:
    """The constants of a program by the byte that they begin at: each reaches to the next."""
    starts = sorted({ref.at for call in program.calls for ref in call.args if ref.space == "weights"})
    spans = itertools.pairwise([*starts, program.weights.nbytes])
    return {start: program.weights[start:stop] for start, stop in spans}


def _moved(call: Call, mark: str, moved: Mapping[int, int]) -> Call:
    args = tuple(Ref("weights", moved[ref.at]) if ref.space == "weights" else ref for ref in call.args)
    return replace(call, kernel=mark + call.kernel if call.kernel else "", args=args)
