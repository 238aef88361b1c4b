"""Every kernel gets its loops: a tuned record's where there is one, else its template's default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nncc.errors import InternalError, NnccError
from nncc.ir import Kernels
from nncc.scheduling import Template, count_flops, schedule_kernel

__all__ = ["schedule"]


def schedule(
    kernels: Kernels, templates: dict[str, Template], progress: Callable[[int, int, str], None] = lambda *_: None
) -> Kernels:
    """Schedule all TIR functions; `progress` is told (done, of how many, kernel)."""
    from nncc.compat import IRModule, tirx, tvm

    functions = dict(kernels.module.functions.items())
    plain = {variable: f for variable, f in functions.items() if isinstance(f, tirx.PrimFunc)}
    origins, flops = {}, {}
    with kernels.target.tvm_target():
        for done, (variable, function) in enumerate(plain.items()):
            progress(done, len(plain), variable.name_hint)
            try:
                scheduled, origins[variable.name_hint] = schedule_kernel(function, templates, kernels.target.hardware)
            except NnccError:
                raise
            except (tvm.s_tir.ScheduleError, ValueError, RuntimeError, IndexError) as error:
                raise InternalError(f"schedule: no loops could be made for the kernel `{variable.name_hint}`: {error}") from error
            flops[variable.name_hint] = count_flops(function)
            functions[variable] = scheduled.with_attr("global_symbol", variable.name_hint)
    return replace(kernels, module=IRModule(functions, attrs=kernels.module.attrs), schedules=origins, flops=flops)
