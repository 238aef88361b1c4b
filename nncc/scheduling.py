"""What schedule templates are made of: the words they use, and how a kernel finds its template.

A template is a Python file with `NAME`, `compute(...)` (a tensor expression whose main block carries
``anchor(NAME)``) and ``schedule(sch, block, hardware) -> (blocks it placed, what it decided)``. Blocks that no
template placed get the plain loops of `elementwise` and `reduction` below.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

from nncc.compat import Schedule, structural_walk, tirx, tvm
from nncc.errors import InternalError, ModelError, UsageError
from nncc.resources import schedules_folder
from nncc.target import Hardware

__all__ = [
    "Template",
    "anchor",
    "count_flops",
    "decompose_reduction",
    "epilogue",
    "even_tile",
    "extent",
    "extents",
    "finish_in_registers",
    "flops",
    "in_vectors",
    "load_templates",
    "parallel",
    "part",
    "producer",
    "register_tile",
    "schedule_kernel",
]

_ANCHOR = "nncc.template"
_PART = "nncc.part"
_TRANSCENDENTAL = ("exp", "tanh", "erf", "log", "pow", "sqrt", "sigmoid", "sin", "cos", "atan")
_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)
_GRAIN = 60_000
"""Operations below which a kernel stays on one thread: about the cost of waking a worker."""


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
        spec = importlib.util.spec_from_file_location(f"nncc_schedule_{path.stem}", path)
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
                "a template has `NAME`, `compute(...)` and `schedule(sch, block, hardware)`, one that replaces another "
                "all that the other has; see CONTRIBUTING.md",
            )
        templates[module.NAME] = Template(module.NAME, module.compute, module.schedule, path, module)
    return templates


def anchor(name: str) -> dict[str, str]:
    """Attributes of the block that the template `name` schedules."""
    return {_ANCHOR: name}


def part(name: str) -> dict[str, str]:
    """Attributes of a block that belongs to the template `name` beside its anchor: it is left for the template."""
    return {_PART: name}


# Facts about blocks and loops


def extent(sch: Any, loop: Any) -> int:
    """The constant trip count of a loop."""
    return int(sch.get(loop).extent)


def extents(sch: Any, block: Any) -> list[int]:
    """The extents of a block's iterators, in order."""
    return [int(v.dom.extent) for v in sch.get(block).iter_vars]


def flops(sch: Any, block: Any) -> int:
    """Multiply-adds of a reduction block, counted as two operations each."""
    return 2 * prod(extents(sch, block))


def even_tile(size: int, most: int) -> int:
    """The tile of at most `most` that covers `size` in the fewest, most even steps; a divisor where one is close."""
    steps = -(-size // most)
    for tile in range(min(most, size), max(1, most // 2) - 1, -1):
        if size % tile == 0:
            return tile
    return -(-size // steps)


def register_tile(steps: int, blocks: int, lanes: int, hardware: Hardware) -> tuple[int, int]:
    """Rows (or columns) by vectors of the accumulators that a matrix product keeps in registers.

    `steps` rows and `blocks` vectors of `lanes` floats are to be covered; a number of vectors that does not divide
    `blocks` is not considered. A step of the reduction loads each vector of weights once and one activation a row, so
    that a tile of r x v needs r*v + v + 1 registers, or r*v + v + r where activations are lanes of registers. Of the
    tiles that fit, the cheapest by: rows wasted in the last tile, multiply-adds waiting for each other (8 in flight
    hide their latency), loads per multiply-add. Accumulators stay under 1024 bytes, beyond which TVM moves a buffer
    off the stack.
    """
    each = max(1, lanes * 32 // hardware.vector_bits)
    best: tuple[float, int, int] | None = None
    for vectors in range(1, 9):
        if blocks % vectors:
            continue
        for rows in range(1, min(steps, 32) + 1):
            accumulators = rows * vectors * each
            registers = accumulators + vectors * each + (rows if hardware.lane_operand else 1)
            fits = registers <= hardware.vector_registers and rows * vectors * lanes * 4 < 1024
            if not fits and (rows, vectors) != (1, 1):
                break
            waste = -(-steps // rows) * rows / steps
            waiting = max(1.0, 8 / accumulators)
            loads = (vectors * each + rows) / accumulators
            cost = waste * waiting * (1 + 0.1 * loads)
            if best is None or cost < best[0] - 1e-9:
                best = (cost, rows, vectors)
    assert best is not None
    return best[1], best[2]


def _is_spatial(sch: Any, block: Any) -> bool:
    return all(v.iter_type == 0 for v in sch.get(block).iter_vars)


def _loads(sch: Any, block: Any) -> list[Any]:
    found: list[Any] = []
    structural_walk(sch.get(block).body, [(tvm.ir.TensorLoad, found.append)])
    return found


def _transcendentals(sch: Any, block: Any) -> int:
    count = 0

    def visit(call: Any) -> None:
        nonlocal count
        name = str(getattr(call.op, "name", ""))
        if any(word in name for word in _TRANSCENDENTAL) or "call_pure_extern" in name:
            count += 1

    structural_walk(sch.get(block).body, [(tvm.ir.Call, visit)])
    return count


def count_flops(function: Any) -> int:
    """Floating-point additions, multiplications and the like that an unscheduled TIR function performs."""
    if not _has_loops(function):
        return 0
    sch = Schedule(function.with_attr("global_symbol", "main"))
    total = 0
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        operations = 0

        def count(expression: Any) -> None:
            nonlocal operations
            operations += str(expression.ty.dtype).startswith(("float", "bfloat"))

        structural_walk(sch.get(block).body, [(kind, count) for kind in _ARITHMETIC])
        total += operations * prod(extents(sch, block))
    return total


def _has_loops(function: Any) -> bool:
    """Whether the function is blocks in loops, as against one call of our own C."""
    return isinstance(function.body.block.body, (tirx.For, tirx.SeqStmt))


# Actions that templates share


def epilogue(sch: Any, block: Any) -> Any:
    """The one elementwise block that finishes what `block` computes; a plain copy where the kernel has none.

    `schedule_kernel` has inlined the chain behind the anchor already, so that it is one block or nothing.
    """
    consumers = sch.get_consumers(block)
    if len(consumers) == 1 and _is_spatial(sch, consumers[0]):
        spatial = [int(v.dom.extent) for v in sch.get(block).iter_vars if v.iter_type == 0]
        finish = extents(sch, consumers[0])
        panels_to_rows = len(finish) == len(spatial) - 1 and prod(finish) <= prod(spatial)
        if finish == spatial or panels_to_rows:
            return consumers[0]
    sch.cache_write(block, 0, "global")
    return sch.get_consumers(block)[0]


def in_vectors(sch: Any, block: Any, unrolled: int) -> None:
    """Vectorize a block's innermost loop and unroll the `unrolled` loops around it."""
    *outer, lane = sch.get_loops(block)
    for loop in outer[len(outer) - unrolled :]:
        sch.unroll(loop)
    sch.vectorize(lane)


def finish_in_registers(sch: Any, block: Any, epilogue: Any, loop: Any, unrolled: int) -> list[Any]:
    """Let a tile's epilogue, below `loop`, take the accumulators of `block` from registers: it is unrolled as they are.

    One that computes exp, erf and the like would fill the registers many times over, and spill in the hot loop: it
    stays rolled, and the tile goes through the first-level cache by a copy, which is returned. `block` is to be
    computed at `loop` afterwards.
    """
    if not _transcendentals(sch, epilogue):
        in_vectors(sch, epilogue, unrolled)
        return []
    copy = sch.cache_write(block, 0, "global")
    sch.compute_at(copy, loop, preserve_unit_loops=True)
    in_vectors(sch, copy, unrolled)
    in_vectors(sch, epilogue, 0)
    return [copy]


def producer(sch: Any, block: Any, name: str) -> Any:
    """The block called `name` (or, where a kernel has several, `name` and a number) that `block` reads."""
    for candidate in sch.get_producers(block):
        if sch.get(candidate).name_hint.rstrip("0123456789").rstrip("_") == name:
            return candidate
    raise InternalError(f"the block `{sch.get(block).name_hint}` does not read `{name}`")


def parallel(sch: Any, loops: Sequence[Any], work: int, hardware: Hardware) -> Any:
    """Fuse `loops` and spread them over the threads, if the `work` (operations) is worth it."""
    fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    if work >= _GRAIN and extent(sch, fused) > 1 and hardware.cores > 1:
        sch.parallel(fused)
    return fused


def decompose_reduction(sch: Any, block: Any, loop: Any) -> Any:
    """Split the initialisation off before `loop`; its tile is unrolled and vectorized as the update's is."""
    depth = [sch.get(other).same_as(sch.get(loop)) for other in sch.get_loops(block)].index(True)
    init = sch.decompose_reduction(block, loop)
    inner = sch.get_loops(init)[depth:]
    for other in inner[:-1]:
        sch.unroll(other)
    if inner:
        sch.vectorize(inner[-1])
    return init


# Plain loops for everything else


def _vectorize_last(sch: Any, block: Any, lanes: int) -> list[Any]:
    """Vectorize the innermost loop by `lanes`, peeling its tail; the loops that remain outside of it."""
    *outer, last = sch.get_loops(block)
    size = extent(sch, last)
    if size < lanes:
        if size > 1 and size & (size - 1) == 0:
            sch.vectorize(last)
            return outer
        return [*outer, last]
    if size == lanes:
        sch.vectorize(last)
        return outer
    steps, vector = sch.split(last, [None, lanes])
    if size % lanes:
        sch.annotate(steps, "pragma_loop_partition_hint", 1)
        sch.vectorize(vector)
        return outer
    sch.vectorize(vector)
    return [*outer, steps]


def elementwise(sch: Any, block: Any, hardware: Hardware) -> None:
    """One pass: outer loops fused and spread over the threads, the innermost vectorized."""
    if not sch.get_loops(block):
        return
    work = prod(extents(sch, block)) * (1 + 12 * _transcendentals(sch, block))
    outer = _vectorize_last(sch, block, max(1, hardware.vector_bits // 32))
    if outer:
        parallel(sch, outer, work, hardware)


def reduction(sch: Any, block: Any, hardware: Hardware) -> None:
    """Spatial loops spread over the threads; lanes run along a spatial axis, or along the reduced one by rfactor."""
    lanes = max(1, hardware.vector_bits // 32)
    iterators = sch.get(block).iter_vars
    loops = sch.get_loops(block)
    if len(loops) != len(iterators):
        return
    spatial = [loop for loop, v in zip(loops, iterators, strict=True) if v.iter_type == 0]
    reduced = [loop for loop, v in zip(loops, iterators, strict=True) if v.iter_type == 2]
    if len(spatial) + len(reduced) != len(loops) or not reduced:
        return
    work = prod(extents(sch, block))
    reduces_rows = _reduces_rows(sch, block)
    length = extent(sch, reduced[-1])
    # Without a spatial loop, rfactor fails inside TVM 0.27.
    if spatial and reduces_rows and lanes > 1 and length >= 2 * lanes and len(sch.get(block).writes) == 1:
        # Several accumulators of one vector each: they hide the latency of an addition, and a long sum in one float32
        # loses digits.
        width = lanes * min(4, length // (2 * lanes))
        steps, lane = sch.split(reduced[-1], [None, width])
        if length % width:
            sch.annotate(steps, "pragma_loop_partition_hint", 1)
        partial = sch.rfactor(lane, len(spatial))
        # compute_at would drop the predicate of a tail (TVM 0.27): the partial sums keep a nest of their own.
        *outer, lane = sch.get_loops(partial)
        first = outer[len(spatial)]
        if width > lanes:
            vectors, vector = sch.split(lane, [None, lanes])
            sch.unroll(vectors)
            sch.vectorize(vector)
        else:
            sch.vectorize(lane)
        parallel(sch, outer[: len(spatial)], work, hardware)
        parallel(sch, sch.get_loops(block)[:-1], work // length, hardware)
        decompose_reduction(sch, partial, first)
        return
    if spatial and not reduces_rows and extent(sch, spatial[-1]) >= min(lanes, 4):
        size = extent(sch, spatial[-1])
        if size % lanes == 0 and size > lanes:
            outer, vector = sch.split(spatial[-1], [None, lanes])
            spatial = [*spatial[:-1], outer, vector]
        if extent(sch, spatial[-1]) <= 2 * lanes:
            sch.reorder(*spatial[:-1], *reduced, spatial[-1])
            sch.vectorize(spatial[-1])
            if len(spatial) > 1:
                parallel(sch, spatial[:-1], work, hardware)
            decompose_reduction(sch, block, reduced[0])
            return
    if spatial:
        sch.reorder(*spatial, *reduced)
        parallel(sch, spatial, work, hardware)


def _reduces_rows(sch: Any, block: Any) -> bool:
    """Whether the fastest index of what the block reads runs along a reduced axis."""
    reduced = [v.var for v in sch.get(block).iter_vars if v.iter_type == 2]
    written = [region.source for region in sch.get(block).writes]
    for load in _loads(sch, block):
        if any(load.source.same_as(buffer) for buffer in written):
            continue
        found: list[Any] = []
        structural_walk(load.indices[-1], [(tirx.Var, found.append)])
        if any(v.same_as(r) for v in found for r in reduced):
            return True
    return False


# One kernel


def _inline(sch: Any, blocks: list[Any], owned: set[str]) -> list[Any]:
    """Inline what costs nothing to compute again where it is used, unless a template owns it; what remains."""
    kept = []
    for block in blocks:
        name = sch.get(block).name_hint
        consumers = sch.get_consumers(block)
        if name in owned or not consumers or not _is_spatial(sch, block):
            kept.append(block)
            continue
        size = prod(extents(sch, block))
        feeds_template = any(sch.get(c).name_hint in owned for c in consumers)
        grows = any(prod(extents(sch, c)) > size for c in consumers)
        heavy = _transcendentals(sch, block) > 0
        if feeds_template or (heavy and (grows or len(consumers) > 1)):
            kept.append(block)
            continue
        try:
            sch.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            kept.append(block)
    return kept


def schedule_kernel(function: Any, templates: dict[str, Template], hardware: Hardware) -> tuple[Any, str]:
    """Schedule one TIR function: the function, and where its schedule came from."""
    if not _has_loops(function):
        return function, "our own C"
    if any(int(d) == 0 for parameter in function.params for d in parameter.shape):
        _refuse_empty_sums(function)
        return function, "a tensor without elements"
    try:
        return _schedule(function, templates, hardware, loops=True)
    except tvm.s_tir.ScheduleError as error:
        # Right beats fast: the blocks that no template placed keep the loops they came with.
        reason = str(error).strip().splitlines()[0]
        function, origin = _schedule(function, templates, hardware, loops=False)
        return function, f"{origin} (plain: {reason})"


def _refuse_empty_sums(function: Any) -> None:
    """A reduction sets its start in its first step: over an axis without elements it would give what memory holds."""
    axes: list[Any] = []
    structural_walk(function.body, [(tvm.s_tir.SBlock, lambda block: axes.extend(block.iter_vars))])
    if any(v.iter_type == 2 and int(v.dom.extent) == 0 for v in axes):
        raise ModelError("the model reduces an axis without elements, which cannot be compiled", "remove what uses it")


def _schedule(function: Any, templates: dict[str, Template], hardware: Hardware, loops: bool) -> tuple[Any, str]:
    sch = Schedule(function.with_attr("global_symbol", "main"))
    blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
    anchors = [b for b in blocks if _ANCHOR in sch.get(b).annotations]
    parts = [b for b in blocks if _PART in sch.get(b).annotations]
    owned = {sch.get(b).name_hint for b in [*anchors, *parts]}
    remaining = [b for b in _inline(sch, blocks, owned) if sch.get(b).name_hint not in owned]
    placed: list[Any] = []
    origins = []
    for block in anchors:
        name = str(sch.get(block).annotations[_ANCHOR])
        if name not in templates:
            raise InternalError(f"a kernel asks for the schedule template `{name}`, which no file defines")
        handled, decision = templates[name].schedule(sch, block, hardware)
        placed += handled
        origins.append(f"{name} {decision}")
    done = {sch.get(b).name_hint for b in placed}
    for block in remaining if loops else []:
        if sch.get(block).name_hint in done:
            continue
        if _is_spatial(sch, block):
            elementwise(sch, block, hardware)
        else:
            reduction(sch, block, hardware)
    return sch.mod["main"], "; ".join(origins) or "loops"
