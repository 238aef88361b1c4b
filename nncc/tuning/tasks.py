"""What there is to tune in a model: its kernels whose templates have a choice, each different one once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nncc.ir import Kernels, Operations
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import Template
from nncc.operation_counts import count_bytes, count_operations
from nncc.scheduling import LAID
from nncc.target import Hardware

__all__ = ["KernelTask", "default_options", "kernel_functions", "kernel_hash", "kernel_tasks", "kernel_text"]


@dataclass(frozen=True)
class KernelTask:
    """A TIR function as the lower stage leaves it, and where the model calls it."""

    hash: str
    text: str
    """For people: what it computes, of what shapes."""
    function: Any
    """Unscheduled."""
    names: tuple[str, ...]
    """Of the kernels in the model that are this function."""
    calls: int
    """How often one inference calls them."""
    constants: frozenset[int]
    """The numbers of the arguments that are weights."""
    options: Mapping[str, tuple[Any, ...]]
    """What the template asks for on the way to its default, and the options; the default first."""
    graph_task: str
    """The hash of the graph's task of which this kernel is one way; empty where there are no others."""
    operations: Operations
    argument_bytes: tuple[int, ...]
    """What one call reads or writes of each argument."""

    @property
    def nbytes(self) -> int:
        return sum(self.argument_bytes)

    @property
    def weight_bytes(self) -> int:
        return sum(self.argument_bytes[number] for number in self.constants)


def kernel_functions(kernels: Kernels) -> dict[str, Any]:
    """The TIR functions of a model, by name."""
    from nncc.compat import tirx

    return {v.name_hint: f for v, f in kernels.module.functions.items() if isinstance(f, tirx.PrimFunc)}


def kernel_hash(function: Any) -> str:
    """A TIR function's identity, 16 hexadecimal digits: its structure without names, and whatever forms of the model
    there are beside it."""
    import tvm_ffi

    plain = function
    for word in ("global_symbol", LAID):
        plain = plain.without_attr(word) if word in (plain.attrs or {}) else plain
    return f"{tvm_ffi.structural_hash(plain) & (1 << 64) - 1:016x}"


def kernel_text(name: str, function: Any) -> str:
    """``conv2d add relu 1x4x56x56x16 4x4x1x1x16x16 1x4x1x1x16 -> 1x4x56x56x16``, for people."""
    words = re.sub(r"\d+(?=_|$)", "", name.removeprefix("fused_")).replace("_", " ")
    shapes = ["x".join(map(str, p.shape)) or "scalar" for p in function.params]
    return f"{words} {' '.join(shapes[:-1])} -> {shapes[-1]}"


def kernel_tasks(kernels: Kernels, templates: Mapping[str, Template]) -> list[KernelTask]:
    """The tasks of a lowered model in the order in which it calls them first; of an accelerator alone where there is
    one."""
    from nncc.vta.decisions import layer_of

    calls = _calls(kernels.module["main"])
    by_hash: dict[str, list[tuple[str, Any]]] = {}
    functions = kernel_functions(kernels)
    for name in calls:
        by_hash.setdefault(kernel_hash(functions[name]), []).append((name, functions[name]))
    tasks = []
    with kernels.target.tvm_target():
        for key, same in by_hash.items():
            names = tuple(name for name, _ in same)
            function = same[0][1]
            if kernels.target.hardware.drives_accelerator and layer_of(function) is None:
                continue  # cycles of the accelerator say nothing of the host's kernels
            options = default_options(function, templates, kernels.target.hardware)
            if all(len(each) < 2 for each in options.values()):
                continue
            constants = frozenset.intersection(*(each for name in names for each in calls[name]))
            tasks.append(
                KernelTask(
                    key,
                    kernel_text(names[0], function),
                    function,
                    names,
                    sum(len(calls[name]) for name in names),
                    constants,
                    options,
                    _graph_task(function),
                    count_operations(function),
                    count_bytes(function),
                )
            )
    return tasks


def default_options(function: Any, templates: Mapping[str, Template], hardware: Hardware) -> dict[str, tuple[Any, ...]]:
    """What a kernel's template asks for on the way to its default."""
    choices = Choices()
    schedule_kernel(function, templates, hardware, choices)
    return {name: tuple(options) for name, options in choices.options.items()}


def _calls(main: Any) -> dict[str, list[frozenset[int]]]:
    """By kernel, for each of its calls the numbers of the arguments that are constants."""
    from nncc.compat import GenericConst, relax

    found: dict[str, list[frozenset[int]]] = {}
    for block in main.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and getattr(call.op, "name", "") == "relax.call_tir":
                kernel, given = call.args
                constants = {number for number, field in enumerate(given.fields) if isinstance(field, GenericConst)}
                found.setdefault(kernel.name_hint, []).append(frozenset(constants))
    return found


def _graph_task(function: Any) -> str:
    from nncc.compat import structural_walk, tvm
    from nncc.scheduling import TASK

    found: list[str] = []

    def visit(block: Any) -> None:
        if TASK in block.annotations:
            found.append(str(block.annotations[TASK]))

    structural_walk(function.body, [(tvm.s_tir.SBlock, visit)])
    return found[0] if found else ""
