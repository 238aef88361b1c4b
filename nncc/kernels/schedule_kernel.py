"""A kernel's way to its template; plain loops for what has none."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from nncc.compat import structural_map, structural_walk, tirx, tvm
from nncc.errors import ModelError
from nncc.gpu import templates as gpu_templates
from nncc.kernels.anchors import place_anchors, start
from nncc.kernels.choices import Choices
from nncc.kernels.loops import elementwise
from nncc.kernels.reduction_loops import reduction
from nncc.kernels.templates import Template
from nncc.operation_counts import has_loops
from nncc.scheduling import (
    ANCHOR,
    DIMS,
    KEPT,
    PART,
    extents,
    is_spatial,
    swells,
    transcendentals,
)
from nncc.target import Hardware

__all__ = ["apply_template", "schedule_kernel"]


def schedule_kernel(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices | None = None
) -> tuple[Any, str]:
    """Schedule one TIR function: the function, and where its schedule came from.

    `choices` answers the questions of its template, with the defaults where it is None.
    """
    if not has_loops(function) and not (hardware.multiprocessors and gpu_templates.is_block(function)):
        if hardware.multiprocessors:
            gpu_templates.refuse_own_code(function)
        return _without_scope(function), _word_on_own_code(function, templates, hardware)
    if any(isinstance(d, tirx.IntImm) and int(d) == 0 for parameter in function.params for d in parameter.shape):
        _refuse_empty_sums(function)
        return function, "a tensor without elements"
    choices = choices or Choices()
    if hardware.multiprocessors:
        return gpu_templates.schedule_kernel(function, templates, hardware, choices)
    try:
        sch, origin = apply_template(function, templates, hardware, choices)
    except tvm.s_tir.ScheduleError as error:
        # Right beats fast: the blocks that no template placed keep the loops they came with.
        reason = str(error).strip().splitlines()[0]
        choices.again()
        try:
            sch, origin = apply_template(function, templates, hardware, choices, loops=False)
        except tvm.s_tir.ScheduleError:
            if DIMS not in (function.attrs or {}):
                raise
            return function, f"plain: {reason}"  # TVM cannot prove of an open dimension what a template relies on
        origin = f"{origin} (plain: {reason})"
    return sch.mod["main"], origin


def apply_template(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices, *, loops: bool = True
) -> tuple[Any, str]:
    """The schedule of a function that is blocks in loops, and what its template says of it.

    Without `loops`, blocks that no template places keep those they came with. TVM's ScheduleError where a step fails.
    """
    sch, _held = start(function)
    blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
    anchors = [b for b in blocks if ANCHOR in sch.get(b).annotations]
    parts = [b for b in blocks if PART in sch.get(b).annotations]
    owned = {sch.get(b).name_hint for b in [*anchors, *parts]}
    remaining = {sch.get(b).name_hint: b for b in _inline(sch, blocks, owned) if sch.get(b).name_hint not in owned}
    placed, origins = place_anchors(sch, anchors, templates, hardware, choices)
    done = {sch.get(b).name_hint for b in placed}
    left = {sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))}  # some may be inlined now
    for name, block in remaining.items() if loops else ():
        if name in done or name not in left:
            continue
        if is_spatial(sch, block):
            elementwise(sch, block, hardware, choices)
        else:
            reduction(sch, block, hardware, choices)
    return sch, "; ".join(origins) or "loops"


def _calls_c(function: Any) -> bool:
    """Whether a function without loops is a call of our C, as against statements that stay as they are written."""
    return isinstance(function.body.block.body, tirx.Evaluate)


def _without_scope(function: Any) -> Any:
    """Statements without the mark around them, of which LLVM's code generator says that it does not know it."""

    def inside(marked: Any) -> Any:
        return marked.body if str(marked.attr_key) == "pragma_scope" else marked

    return function.with_body(structural_map(function.body, [(tirx.AttrStmt, inside)]))


def _inline(sch: Any, blocks: list[Any], owned: set[str]) -> list[Any]:
    """Inline what costs nothing to compute again where it is used, unless a template owns it; what remains."""
    kept = []
    for block in blocks:
        name = sch.get(block).name_hint
        consumers = sch.get_consumers(block)
        if name in owned or not consumers or not is_spatial(sch, block) or KEPT in sch.get(block).annotations:
            kept.append(block)
            continue
        size = prod(extents(sch, block))
        feeds_template = any(sch.get(c).name_hint in owned for c in consumers)
        grows = any(prod(extents(sch, c)) > size for c in consumers)
        heavy = transcendentals(sch, block) > 0
        if feeds_template or (heavy and (grows or len(consumers) > 1)) or swells(sch, block, consumers):
            kept.append(block)
            continue
        try:
            sch.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            kept.append(block)
    return kept


def _word_on_own_code(function: Any, templates: Mapping[str, Template], hardware: Hardware) -> str:
    """What to say of a function that is no blocks in loops: its template's word, where a template has made it."""
    if ANCHOR not in function.body.block.annotations:
        return "our own C" if _calls_c(function) else "loops of its own"
    sch, _held = start(function)
    block = sch.get_sblock(function.body.block.name_hint)
    return "; ".join(place_anchors(sch, [block], templates, hardware, Choices())[1])


def _refuse_empty_sums(function: Any) -> None:
    """A reduction sets its start in its first step: over an axis without elements it would give what memory holds."""
    axes: list[Any] = []
    structural_walk(function.body, [(tvm.s_tir.SBlock, lambda block: axes.extend(block.iter_vars))])
    if any(v.iter_type == 2 and int(v.dom.extent) == 0 for v in axes):
        raise ModelError("the model reduces an axis without elements, which cannot be compiled", "remove what uses it")
