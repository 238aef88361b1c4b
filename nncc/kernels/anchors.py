"""What a kernel's way to its template has in common in `schedule_kernel` and, for GPUs, `nncc.gpu.templates`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nncc.compat import Schedule
from nncc.errors import InternalError
from nncc.kernels.choices import Choices
from nncc.scheduling import ANCHOR
from nncc.target import Hardware

if TYPE_CHECKING:
    from nncc.kernels.templates import Template

__all__ = ["place_anchors", "start"]


def start(function: Any) -> tuple[Any, Any]:
    """A schedule, and another one to be kept as long: a schedule changes the function that it is given, unless another
    one holds it."""
    original = Schedule(function.with_attr("global_symbol", "main"))
    return original.copy(), original


def place_anchors(
    sch: Any, anchors: Iterable[Any], templates: Mapping[str, Template], hardware: Hardware, choices: Choices
) -> tuple[list[Any], list[str]]:
    """Have each anchor scheduled by its template: the blocks that were placed so, and what the templates say."""
    placed: list[Any] = []
    origins = []
    for block in anchors:
        name = str(sch.get(block).annotations[ANCHOR])
        if name not in templates:
            raise InternalError(f"a kernel asks for the schedule template `{name}`, which no file defines")
        handled, decision = templates[name].schedule(sch, block, hardware, choices)
        placed += handled
        origins.append(f"{name} {decision}")
    return placed, origins
