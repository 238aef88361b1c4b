"""Every kernel gets its loops: a tuned record's where there is one, else its template's default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nncc.errors import InternalError, NnccError
from nncc.ir import Kernels
from nncc.templates import Template, count_bytes, count_flops, schedule_kernel
from nncc.tuning.tvm_records import load_records

__all__ = ["schedule"]


def schedule(
    kernels: Kernels,
    templates: dict[str, Template],
    records: Sequence[Path] = (),
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Kernels:
    """Schedule all TIR functions; `progress` is told (done, of how many, kernel).

    Raises RecordError where `records` are not folders of tuning records.
    """
    from nncc.compat import IRModule, tirx, tvm

    functions = dict(kernels.module.functions.items())
    plain = {variable: f for variable, f in functions.items() if isinstance(f, tirx.PrimFunc)}
    origins, flops, nbytes = {}, {}, {}
    target = kernels.target.tvm_target()
    known = load_records(records, target) if records else None
    with target:
        for done, (variable, function) in enumerate(plain.items()):
            progress(done, len(plain), variable.name_hint)
            try:
                scheduled, origin = (known.schedule(function, target) if known else None), "record"
                if scheduled is None:
                    scheduled, origin = schedule_kernel(function, templates, kernels.target.hardware)
            except NnccError:
                raise
            except (tvm.s_tir.ScheduleError, ValueError, RuntimeError, IndexError) as error:
                raise InternalError(
                    f"schedule: no loops could be made for the kernel `{variable.name_hint}`: {error}"
                ) from error
            origins[variable.name_hint] = origin
            flops[variable.name_hint] = count_flops(function)
            nbytes[variable.name_hint] = count_bytes(function)
            functions[variable] = scheduled.with_attr("global_symbol", variable.name_hint)
    module = IRModule(functions, attrs=kernels.module.attrs)
    return replace(kernels, module=module, schedules=origins, flops=flops, argument_bytes=nbytes)
