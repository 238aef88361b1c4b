"""The program of a general form: its kernels lowered, its buffers placed for the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from nncc.codegen.flatten import in_panels
from nncc.codegen.infinite_maxima import infinite_maxima
from nncc.codegen.place import Memory, Value, place
from nncc.compat import tvm
from nncc.dynamic.general import General
from nncc.dynamic.generalize import dims_of
from nncc.ir import Kernels, Lowered, Program, symbol_prefix
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import Template

__all__ = ["flatten_general"]

_FAILURES = (tvm.error.InternalError, ValueError, RuntimeError)


def flatten_general(general: General, scheduled: Kernels, templates: Mapping[str, Template]) -> Program:
    """The program of the general form with scheduled kernels: arena and workspaces for the largest sizes."""
    scheduled, functions, lowered = _lowered(general, scheduled, templates)
    memory = Memory()
    memory.sizes += general.sizes
    memory.inside |= general.inside
    calls = []
    for number, call in enumerate(general.calls):
        args = list(call.args)
        for at, arg in enumerate(args):
            if arg.space == "weights":
                array = general.constants[number, at]
                if call.kernel:
                    shape = functions[call.kernel].params[at].shape
                    array = in_panels(array, tuple(int(d) for d in shape))
                args[at] = memory.constant(array)
        if call.kernel:
            args += [Value("dim", dim) for dim in dims_of(functions[call.kernel])]
        calls.append(replace(call, args=args))
    results = []
    for number, result in enumerate(general.results):
        constant = general.constants.get((-1, number))
        results.append(result if constant is None else memory.constant(constant))
    return replace(place(scheduled, memory, calls, results, lowered), dims=general.dims)


def _lowered(
    general: General, scheduled: Kernels, templates: Mapping[str, Template]
) -> tuple[Kernels, dict[str, Any], Lowered]:
    """The kernels, their functions, and the code of these.

    One whose schedule cannot be lowered, because TVM cannot prove of an open dimension what it relies on, gets its
    template's next tile with which it can; where there is none, it keeps the loops that it came with: right beats fast.
    """
    from nncc.backends import backend

    def lower(some: dict[str, Any]) -> Lowered:
        return backend(scheduled.target).lower(some, scheduled.target, symbol_prefix(scheduled.name))

    functions = {variable.name_hint: function for variable, function in scheduled.module.functions.items()}
    try:
        return scheduled, functions, lower(functions)
    except _FAILURES:
        words = dict(scheduled.schedules)
        for name, function in functions.items():
            try:
                lower({name: function})
            except _FAILURES:
                functions[name], words[name] = general.kernels.module[name], "plain: TVM cannot lower its schedule"
                for other, word in _other_tiles(general.kernels.module[name], name, scheduled, templates):
                    try:
                        lower({name: other})
                    except _FAILURES:
                        continue
                    functions[name], words[name] = other, word
                    break
        return replace(scheduled, schedules=words), functions, lower(functions)


def _other_tiles(
    function: Any, name: str, scheduled: Kernels, templates: Mapping[str, Template]
) -> Iterator[tuple[Any, str]]:
    """The function scheduled with its template's other tiles, the cheapest first, and what is said of each."""
    hardware, asked = scheduled.target.hardware, Choices()
    with scheduled.target.tvm_target():
        schedule_kernel(function, templates, hardware, asked)
        for tile in asked.options.get("tile", [])[1:]:
            other, word = schedule_kernel(function, templates, hardware, Choices({"tile": tile}))
            yield infinite_maxima(other).with_attr("global_symbol", name), word
