"""Schedule templates from their files, and a kernel's way to its own; plain loops for what has none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import isfunction, signature
from itertools import product
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

from nncc import gpu_templates
from nncc.anchors import place_anchors, start
from nncc.choices import Choices
from nncc.compat import Schedule, structural_map, structural_walk, tirx, tvm
from nncc.device_units import KIND
from nncc.dots import PRODUCT
from nncc.errors import ModelError, UsageError
from nncc.ir import TensorSpec
from nncc.loops import elementwise
from nncc.reduction_loops import reduction
from nncc.resources import schedules_folder
from nncc.scheduling import (
    ANCHOR,
    DIMS,
    FLOPS,
    KEPT,
    PART,
    extents,
    is_spatial,
    largest_shape,
    loads,
    swells,
    transcendentals,
)
from nncc.target import Hardware

__all__ = ["Template", "apply_template", "count_bytes", "count_flops", "load_templates", "schedule_kernel"]

_MODULE = "nncc_schedule_"
_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)


@dataclass(frozen=True)
class Template:
    """A compute definition and its schedule, from one file; `module` has what else passes ask it for: ``pack`` ..."""

    name: str
    compute: Callable[..., Any]
    schedule: Callable[..., tuple[list[Any], str]]
    path: Path
    module: ModuleType


def load_templates(extra: Iterable[Path] = ()) -> dict[str, Template]:
    """The templates of ``schedules/`` and, taking precedence, those in the files `extra`."""
    templates: dict[str, Template] = {}
    for path in [*sorted(schedules_folder().glob("*.py")), *map(Path, extra)]:
        spec = importlib.util.spec_from_file_location(f"{_MODULE}{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise UsageError(f"schedule template `{path}` is not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        required = {"NAME", "compute", "schedule"}
        replaced = templates.get(getattr(module, "NAME", ""))
        if replaced is not None:  # passes ask the template of this name for what the old one has
            required |= {
                word
                for word, value in vars(replaced.module).items()
                if not word.startswith("_") and getattr(value, "__module__", None) == replaced.module.__name__
            }
        missing = sorted(word for word in required if not hasattr(module, word))
        if missing:
            raise UsageError(
                f"schedule template `{path}` does not define {', '.join(missing)}",
                "a template has `NAME`, `compute(...)` and `schedule(sch, block, hardware, choose)`, one that replaces "
                "another all that the other has; see CONTRIBUTING.md",
            )
        if replaced is not None:
            _check_parameters(path, replaced.module, module)
        templates[module.NAME] = Template(module.NAME, module.compute, module.schedule, path, module)
    return templates


def _check_parameters(path: Path, old: ModuleType, new: ModuleType) -> None:
    """Passes call the functions of a template that replaces another as they call the other's: the first parameters by
    their place, those with a default and behind a star by their name."""
    for word, function in vars(old).items():
        given = getattr(new, word, None)
        if word.startswith("_") or not isfunction(function) or not isfunction(given):
            continue
        taken = signature(given).parameters
        if any(p.kind == p.VAR_KEYWORD for p in taken.values()):
            continue
        asked = [p for p in signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]
        by_name = [p.name for p in asked if p.kind == p.KEYWORD_ONLY or p.default is not p.empty]
        if missing := [name for name in by_name if name not in taken]:
            raise UsageError(
                f"`{word}` in schedule template `{path}` does not take {', '.join(missing)}",
                f"it is called as that of nncc's own template `{old.NAME}` is: give it the same parameters",
            )


def count_flops(function: Any) -> int:
    """Floating-point additions, multiplications and the like that an unscheduled TIR function performs.

    They are counted as they are executed, which is what a processor's peak can be compared with: Winograd's kernel has
    its own, fewer than those of the convolution that it stands for. Functions like exp count nothing; a word of
    integers, multiplied and added to a lane by one instruction on most processors, counts as a multiplication and an
    addition; so does each pair that tensor cores multiply.
    """
    if not _has_loops(function):
        return int(function.body.block.annotations.get(FLOPS, 0))
    sch = Schedule(function.with_attr("global_symbol", "main"))
    return sum(_block_flops(sch, block) for block in sch.get_child_blocks(sch.get_sblock("root")))


def _block_flops(sch: Any, block: Any) -> int:
    """Of a Select by the value of an iterator, as a row of Winograd's matrices is chosen, the chosen side counts."""
    if KIND in sch.get(block).annotations:
        return 2 * prod(extents(sch, block))
    body, iterators = sch.get(block).body, sch.get(block).iter_vars
    chosen: dict[int, int] = {}

    def position(select: Any) -> int | None:
        condition = select.condition
        if not isinstance(condition, tirx.EQ) or not isinstance(condition.b, tirx.IntImm):
            return None
        return next((at for at, v in enumerate(iterators) if condition.a.same_as(v.var)), None)

    def note(select: Any) -> None:
        at = position(select)
        if at is not None and len(chosen) < 2:  # of more there would be too many combinations
            chosen[at] = int(iterators[at].dom.extent)

    structural_walk(body, [(tirx.Select, note)])
    steps = prod(extents(sch, block)) // prod(chosen.values())
    total = 0
    for values in product(*map(range, chosen.values())):
        at_values = dict(zip(chosen, values, strict=True))

        def side(select: Any, at_values: dict[int, int] = at_values) -> Any:
            at = position(select)
            if at not in at_values:
                return select
            return select.true_value if int(select.condition.b) == at_values[at] else select.false_value

        operations = 0

        def count(expression: Any) -> None:
            nonlocal operations
            operations += str(expression.ty.dtype).startswith(("float", "bfloat"))

        def count_words(call: Any) -> None:
            nonlocal operations
            operations += 2 * (str(getattr(call.op, "name", "")) == PRODUCT)

        taken = structural_map(body, [(tirx.Select, side)]) if at_values else body
        structural_walk(taken, [*((kind, count) for kind in _ARITHMETIC), (tvm.ir.Call, count_words)])
        total += operations * steps
    return total


def count_bytes(function: Any) -> tuple[int, ...]:
    """How many bytes of each of its arguments an unscheduled TIR function reads or writes.

    The whole tensor, or less where fewer elements are loaded: of a table, a lookup touches some rows.
    """
    whole = [TensorSpec("", str(p.dtype), largest_shape(function, p.shape)).nbytes for p in function.params]
    if not _has_loops(function):
        return tuple(whole)
    sch = Schedule(function.with_attr("global_symbol", "main"))
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    loaded = [(load.source, prod(extents(sch, block))) for block in blocks for load in loads(sch, block)]
    counts = []
    for parameter, nbytes in zip(sch.mod["main"].params, whole, strict=True):
        times = sum(count for source, count in loaded if source.same_as(parameter))
        element = TensorSpec("", str(parameter.dtype), ()).nbytes
        counts.append(min(nbytes, times * element) if times else nbytes)
    return tuple(counts)


def _has_loops(function: Any) -> bool:
    """Whether the function is blocks in loops, as against one call of our own C, or statements as they are."""
    block = function.body.block
    return ANCHOR not in block.annotations and isinstance(block.body, (tirx.For, tirx.SeqStmt))


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


def schedule_kernel(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices | None = None
) -> tuple[Any, str]:
    """Schedule one TIR function: the function, and where its schedule came from.

    `choices` answers the questions of its template, with the defaults where it is None.
    """
    if not _has_loops(function) and not (hardware.multiprocessors and gpu_templates.is_block(function)):
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
