"""Every kernel gets its loops: by a tuned record's decisions where there is one, else by its template's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nncc.errors import InternalError, NnccError
from nncc.ir import Kernels
from nncc.kernels.choices import TRACE, Choices, Find
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import Template
from nncc.operation_counts import count_bytes, count_operations
from nncc.tuning.tasks import kernel_hash, kernel_text

__all__ = ["schedule"]

FOREIGN_CODE = "pragma_import"
"""The annotations by which a trace, which may come from anyone, would bring code of its own."""


def schedule(
    kernels: Kernels,
    templates: Mapping[str, Template],
    known: Find = lambda task: (None, "default"),
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Kernels:
    """Schedule all TIR functions; `progress` is told (done, of how many, kernel)."""
    from nncc.codegen.infinite_maxima import infinite_maxima
    from nncc.compat import IRModule, tirx, tvm

    functions = dict(kernels.module.functions.items())
    plain = {variable: f for variable, f in functions.items() if isinstance(f, tirx.PrimFunc)}
    origins, operations, nbytes, decisions, sources = {}, {}, {}, [], {}
    processor = not kernels.target.hardware.multiprocessors
    target = kernels.target.tvm_target()
    with target:
        for done, (variable, function) in enumerate(plain.items()):
            name = variable.name_hint
            progress(done, len(plain), name)
            task = kernel_hash(function)
            choices = Choices(*known(task))
            try:
                replayed = replay(function, choices)
                if replayed is not None:
                    scheduled, origins[name] = replayed, "trace"
                else:
                    scheduled, origins[name] = schedule_kernel(function, templates, kernels.target.hardware, choices)
            except NnccError:
                raise
            except (tvm.s_tir.ScheduleError, ValueError, RuntimeError, IndexError) as error:
                raise InternalError(f"schedule: no loops could be made for the kernel `{name}`: {error}") from error
            if replayed is not None or any(len(options) > 1 for options in choices.options.values()):
                decisions.append(choices.decision(task, "kernel", kernel_text(name, function)))
                sources[name] = decisions[-1].source
            operations[name] = count_operations(function, functions=processor)
            nbytes[name] = count_bytes(function)
            if processor:  # the lowering for a GPU knows reductions by what they begin with
                scheduled = infinite_maxima(scheduled)
            functions[variable] = scheduled.with_attr("global_symbol", name)
    module = IRModule(functions, attrs=kernels.module.attrs)
    return replace(
        kernels,
        module=module,
        schedules=origins,
        operations=operations,
        argument_bytes=nbytes,
        decisions=(*kernels.decisions, *decisions),
        sources=sources,
        regions={
            name: replace(region, bodies=tuple(schedule(body, templates, known, progress) for body in region.bodies))
            for name, region in kernels.regions.items()
        },
    )


def replay(function: Any, choices: Choices) -> Any:
    """The function scheduled by the trace that a record gives in place of decisions; None where it does not fit."""
    from nncc.compat import IRModule, Schedule, s_tir, tvm

    if TRACE not in choices.given or FOREIGN_CODE in choices.given[TRACE]:
        return None
    sch = Schedule(IRModule({"main": function.with_attr("global_symbol", "main")}))
    try:
        s_tir.schedule.Trace.apply_json_to_schedule(json.loads(choices.given[TRACE]), sch)
    except (tvm.s_tir.ScheduleError, tvm.error.InternalError, ValueError, TypeError, RuntimeError, IndexError):
        return None
    scheduled = sch.mod["main"]
    shapes = [[tuple(map(int, p.shape)) for p in f.params] for f in (function, scheduled)]
    if shapes[0] != shapes[1]:  # such a trace wants other arguments
        return None
    choices.refused.discard(TRACE)
    choices.taken[TRACE] = choices.given[TRACE]
    return scheduled
