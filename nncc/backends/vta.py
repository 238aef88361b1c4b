"""An accelerator beside the processor: its layers become programs of instructions, the rest goes through LLVM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nncc.backends import llvm
from nncc.backends.library import make_library
from nncc.codegen.emit_accelerator import Submission, accelerator_facts, programs_blob
from nncc.codegen.emit_c import emit_source
from nncc.codegen.link import ACCELERATOR_FUNCTIONS, PUBLIC_FUNCTIONS
from nncc.errors import InternalError, UsageError
from nncc.ir import Artifact, Branch, Call, Lowered, Program, Ref, Step, calls_of
from nncc.target import Target
from nncc.vta.machine import Machine

__all__ = ["DUMPS", "EXPANDS_WEIGHTS", "build", "check", "lower"]

DUMPS = llvm.DUMPS
"""Forms of the host's code that can be written beside the library."""

EXPANDS_WEIGHTS = False
"""The accelerator reads constants where they are stored."""


def check(target: Target) -> None:
    """Raise ToolError now, rather than after minutes of compilation, if no library for `target` can be linked here."""
    llvm.check(target)


def lower(functions: dict[str, Any], target: Target, prefix: str) -> Lowered:
    """Layers as streams of instructions; the other functions as backend `llvm` makes them."""
    from nncc.vta.decisions import layer_of, plan_of
    from nncc.vta.lower_layer import lower_layer

    machine = _machine(target)
    layers = {name: layer for name, function in functions.items() if (layer := layer_of(function)) is not None}
    streams = {name: lower_layer(layer, plan_of(functions[name]), machine) for name, layer in layers.items()}
    host = {name: function for name, function in functions.items() if name not in layers}
    return replace(llvm.lower(host, target, prefix), streams=streams)


def build(
    program: Program,
    folder: Path,
    stem: str,
    emit: Sequence[str] = ("so",),
    dump_code: Sequence[str] = (),
    rpc: bool = False,
) -> Artifact:
    """Write the library, ``<stem>.h`` and ``<stem>.json`` into `folder`; `dump_code` is the host's code, as of backend
    `llvm`. Raises ToolError, OutputError, and UsageError for what only processors have."""
    if rpc:
        raise UsageError(f"libraries for `{program.target.name}` cannot be measured through TVM's RPC server")
    machine, submissions = _machine(program.target), _submissions(program)
    blob, _ = programs_blob(submissions)
    plain = llvm.code_of(program, dump_code)
    code = replace(
        plain,
        source=lambda build_hash, compiler: emit_source(program, build_hash, compiler, submissions=submissions),
        exports=(*PUBLIC_FUNCTIONS, *ACCELERATOR_FUNCTIONS),
        blobs={"nncc_programs": blob},
        facts={"accelerator": accelerator_facts(machine, submissions, program.streams)},
    )
    return make_library(program, folder, stem, code, emit)


def _machine(target: Target) -> Machine:
    if target.hardware.accelerator is None:
        raise InternalError(f"target `{target.name}` has no accelerator")
    return target.hardware.accelerator


def _submissions(program: Program) -> list[Submission]:
    """The program's layers: one submission for all calls between two of the host, or for each."""
    from nncc.vta.link import Located, link
    from nncc.vta.program import Binary

    machine = _machine(program.target)
    found = []
    for calls in _runs(program.steps, program):
        located = [Located(program.streams[c.kernel], tuple(map(_address, c.args))) for _, c in calls]
        # The runtime gives micro-operations a base of their own, so that they may lie anywhere.
        linked = link(located, machine, 0)
        binary = Binary(machine, linked.instructions, linked.uops, linked.layers)
        found.append(Submission(calls[0][0], binary))
    return found


def _runs(steps: tuple[Step, ...], program: Program, first: int = 0) -> Iterator[list[tuple[int, Call]]]:
    """Consecutive calls of layers, with their numbers, which begin with `first`; no run goes beyond the branch or the
    loop that it is in."""
    run: list[tuple[int, Call]] = []
    for step in steps:
        if isinstance(step, Call) and step.kernel in program.streams:
            run.append((first, step))
            first += 1
            continue
        if run:
            yield run
        run = []
        if isinstance(step, Call):
            run = [(first, step)] if step.kernel in program.streams else []
            first += 1
            continue
        for inside in (step.then, step.otherwise) if isinstance(step, Branch) else (step.steps,):
            yield from _runs(inside, program, first)
            first += sum(1 for _ in calls_of(inside))
    if run:
        yield run


def _address(ref: Ref) -> int:
    """Where an argument lies in the arena or in the constants, in bytes."""
    if ref.space not in ("arena", "weights") or not isinstance(ref.offset, int):
        raise InternalError(f"build: a layer of the accelerator is given {ref}, which it cannot see")
    return ref.at + ref.offset
