"""Actions that templates share: what is done to blocks and loops."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import tirx
from nncc.kernels.choices import Choices
from nncc.scheduling.annotations import AHEAD, BORDERS, PHASES
from nncc.scheduling.facts import below, dot_in, extent, extents, is_spatial, operand, stand_in, transcendentals
from nncc.scheduling.tiles import unrollings
from nncc.target import Hardware

__all__ = [
    "chains",
    "cut_at_borders",
    "decompose_reduction",
    "epilogue",
    "fetch_ahead",
    "finish_in_registers",
    "finish_tiles",
    "in_vectors",
    "operand_in_registers",
    "panels",
    "parallel",
    "split_steps",
    "tile_products",
]

_MOST_USES = {False: 4, True: 16}
"""Of a panel of weights so that the next one is asked for by default; where all together exceed the second-level
cache."""
_TRIED_USES = 64
"""Beyond which nobody is asked: tuning found it to pay up to some 30."""
_GRAIN = 60_000
"""Operations below which a kernel stays on one thread: about the cost of waking a worker."""


def epilogue(sch: Any, block: Any) -> Any:
    """The one elementwise block that finishes what `block` computes; a plain copy where the kernel has none.

    `schedule_kernel` has inlined the chain behind the anchor already, so that it is one block or nothing.
    """
    consumers = sch.get_consumers(block)
    if len(consumers) == 1 and is_spatial(sch, consumers[0]):
        spatial = [stand_in(sch, v.dom.extent) for v in sch.get(block).iter_vars if v.iter_type == 0]
        finish = extents(sch, consumers[0])
        panels_to_rows = len(finish) == len(spatial) - 1 and prod(finish) <= prod(spatial)
        if finish == spatial or panels_to_rows:
            return consumers[0]
    sch.cache_write(block, 0, "global")
    return sch.get_consumers(block)[0]


def cut_at_borders(sch: Any, block: Any) -> bool:
    """Cut the innermost loop of a block where its annotation has `borders`, and into `phases`; whether it has any. What
    is in the middle has no conditions, and LLVM makes vectors of it. The block is no more: its parts take its place.
    """
    annotations = dict(sch.get(block).annotations.items())
    front, back = (int(size) for size in annotations.get(BORDERS, (0, 0)))
    loop = sch.get_loops(block)[-1]
    if not (front or back or PHASES in annotations) or not isinstance(sch.get(loop).extent, tirx.IntImm):
        return False
    if PHASES in annotations:
        loop, phase = sch.split(loop, [None, int(annotations[PHASES])])
        sch.unroll(phase)
    middle = extent(sch, loop) - front - back
    if front or back:
        sch.unannotate(block, BORDERS)
        sch.loop_partition(loop, [front] * (front > 0) + [middle] * (back > 0))
    return True


def in_vectors(sch: Any, block: Any, unrolled: int) -> None:
    """Vectorize a block's innermost loop and unroll the `unrolled` loops around it."""
    *outer, lane = sch.get_loops(block)
    for loop in outer[len(outer) - unrolled :]:
        sch.unroll(loop)
    sch.vectorize(lane)


def finish_in_registers(sch: Any, block: Any, epilogue: Any, loop: Any, unrolled: int) -> list[Any]:
    """Let a tile's epilogue, below `loop`, take the accumulators of `block` from registers: it is unrolled as they are.

    One that computes exp, erf and the like would fill the registers many times over, and spill in the hot loop: it
    stays rolled, and the tile goes through the first-level cache by a copy, which is returned. Only a few vectors of it
    are unrolled, which are computed together (`nncc.codegen.vector_math`). `block` is to be computed at `loop`
    afterwards.
    """
    if not transcendentals(sch, epilogue):
        in_vectors(sch, epilogue, unrolled)
        return []
    copy = sch.cache_write(block, 0, "global")
    sch.compute_at(copy, loop, preserve_unit_loops=True)
    in_vectors(sch, copy, len(below(sch, copy, loop)) - 1)
    chains(sch, epilogue, unrolled)
    return [copy]


def finish_tiles(sch: Any, block: Any, epilogue: Any, loop: Any, *, whole: bool, unrolled: int) -> list[Any]:
    """Let `block` compute a tile at `loop`, and its epilogue, at which `loop` is, finish it there; or, where the
    epilogue does not read `whole` tiles, let tiles go to memory, from where it reads them in a loop of its own: `loop`
    is then one of `block`. The blocks that are placed so.
    """
    if whole:
        placed = [block, epilogue, *finish_in_registers(sch, block, epilogue, loop, unrolled)]
        sch.compute_at(block, loop, preserve_unit_loops=True)
        return placed
    copy = sch.cache_write(block, 0, "global")
    sch.reverse_compute_at(copy, loop, preserve_unit_loops=True)
    in_vectors(sch, copy, 2)
    return [block, copy]


def chains(sch: Any, block: Any, within: int) -> None:
    """Vectorize a block's innermost loop, and unroll some 4 to 8 steps of the `within` loops around it."""
    *outer, lane = sch.get_loops(block)
    sch.vectorize(lane)
    done = 1
    for loop in reversed(outer[len(outer) - within :]):
        steps = extent(sch, loop)
        most = 8 if done == 1 else 4 // done
        size = max(n for n in range(1, most + 1) if steps % n == 0)
        if size == 1 and done == 1 and steps <= 16:
            size = steps
        if size < steps and size > 1:
            _, loop = sch.split(loop, [None, size])
        if size > 1:
            sch.unroll(loop)
        done *= size
        if done >= 4 or size < steps:
            return


def operand_in_registers(sch: Any, block: Any, index: int, loop: Any, hardware: Hardware) -> list[Any]:
    """Where a multiply-add takes a lane of a register as its factor: load operand `index` of `block` in whole vectors.

    The tile that one step of `loop` reads has its fastest axis in vectors: its lanes, or where there is one (of
    integers, one word), a row. The block that loads is returned.
    """
    if not hardware.lane_operand:
        return []
    copy = sch.cache_read(block, index, "global", [block])  # others may read the same tensor: x @ x^T packs it
    sch.compute_at(copy, loop, preserve_unit_loops=True)
    *outer, row, lanes = below(sch, copy, loop)
    dot = dot_in(sch, block, hardware)
    one = 1 if dot is None else dot.size
    if extent(sch, lanes) == one:
        if one > 1:
            row = sch.fuse(row, lanes)
        row, lanes = sch.split(row, [None, hardware.vector_bits // 32 * one])
        sch.annotate(row, "pragma_loop_partition_hint", 1)
    for other in (*outer, row):
        sch.unroll(other)
    sch.vectorize(lanes)
    return [copy]


def tile_products(
    sch: Any, block: Any, rows: int, vectors: int, hardware: Hardware, choose: Choices
) -> tuple[Any, Any, list[Any]]:
    """Register tiles of matrix products, of which `block` has one for each step of its outer loops.

    Its five innermost loops are panels of outputs, rows, lanes, blocks of the depth, lanes of the depth. The loops over
    panels and over the depth are returned, and the blocks that copy: a tile's result to memory, and what is read.
    """
    o, p, lane, k, v = sch.get_loops(block)[-5:]
    steps, depth = extent(sch, p), extent(sch, v)
    oo, vector = sch.split(o, [None, vectors])
    po, row = sch.split(p, [None, rows])
    sch.reorder(oo, po, k, v, row, vector, lane)
    if steps % rows:
        sch.annotate(po, "pragma_loop_partition_hint", 1)
    store = sch.cache_write(block, 0, "global")
    sch.reverse_compute_at(store, po, preserve_unit_loops=True)
    in_vectors(sch, store, 2)
    loaded = operand_in_registers(sch, block, 0, k, hardware)
    split_steps(sch, v, choose("unroll", unrollings(depth)))
    for loop in (row, vector):
        sch.unroll(loop)
    sch.vectorize(lane)
    return oo, k, [store, *loaded]


def panels(sch: Any, block: Any, index: int, axis: int, vectors: int) -> None:
    """Lay operand `index` of `block` out in panels of some vectors, so that a register tile's come in one stream.

        P[.., o, .., j, l] = W[.., o v + j, .., l]        o and v at `axis`

    Where the operand is an argument of the kernel, its shape changes: `nncc.codegen.schedule` packs the constant.
    """
    if vectors > 1:
        before, after = slice(None, axis), slice(axis + 1, -1)
        sch.transform_layout(
            block, ("read", index), lambda *w: (*w[before], w[axis] // vectors, *w[after], w[axis] % vectors, w[-1])
        )


def fetch_ahead(
    sch: Any, block: Any, index: int, axis: int, loops: Sequence[Any], uses: int, hardware: Hardware, choose: Choices
) -> None:
    """Ask for the weights of the next panel while this one is used: operand `index` of `block`, in panels at `axis`.

    `loops` are those of the reduction, from the outermost, and `uses` how often a panel is read. Where that is seldom,
    panels come from beyond the second-level cache for much of the time, always if they do not fit there together; where
    it is often, asking costs more than it gains. Measured on x86 with vectors of 512 and 256 bits; elsewhere a search
    has to find that it pays.
    """
    weights = operand(sch, block, index)
    arguments = sch.mod["main"].params
    number = next((n for n, argument in enumerate(arguments) if argument.same_as(weights)), None)
    loop = next((each for each in loops if extent(sch, each) > 1), None)
    if number is None or loop is None or uses > _TRIED_USES:
        return
    shape = [stand_in(sch, d) for d in weights.shape]
    nbytes, cache = weights.dtype.bits // 8, hardware.l2_kib * 1024
    panel, nearest = prod(shape[axis + 1 :]), cache // 4 // nbytes
    pays = hardware.vector_bits >= 256 and uses <= _MOST_USES[prod(shape) * nbytes > cache]
    if choose("ahead", ["panel", "none"] if pays else ["none", "panel"]) == "panel":
        sch.annotate(loop, AHEAD, [number, min(panel, nearest)])


def split_steps(sch: Any, loop: Any, size: int) -> list[Any]:
    """Split a reduction's innermost loop for `size` steps at once, which are unrolled; the one or two loops."""
    loops = [loop] if size in (1, extent(sch, loop)) else list(sch.split(loop, [None, size]))
    if size > 1:
        sch.unroll(loops[-1])
    return loops


def parallel(sch: Any, loops: Sequence[Any], work: int, hardware: Hardware, choose: Choices) -> None:
    """Spread `loops`, which are nested, over the threads; by default if the `work` (operations) is worth it.

    As many of them are fused, from the outermost, as give each thread some 16 pieces: the others keep their own
    counters, where a fused one would be divided in every step.
    """
    if hardware.cores == 1:
        return
    pieces, count = 1, 0
    for loop in loops:
        if pieces >= 16 * hardware.cores:
            break
        pieces, count = pieces * extent(sch, loop), count + 1
    if pieces == 1:
        return
    asked = sum(name.startswith("threads") for name in choose.options)
    name = f"threads {asked + 1}" if asked else "threads"
    if choose(name, ["all", "one"] if work >= _GRAIN else ["one", "all"]) == "all":
        sch.parallel(sch.fuse(*loops[:count]) if count > 1 else loops[0])


def decompose_reduction(sch: Any, block: Any, loop: Any) -> Any:
    """Split the initialisation off before `loop`; its tile is unrolled and vectorized as the update's is."""
    depth = len(sch.get_loops(block)) - len(below(sch, block, loop)) - 1
    init = sch.decompose_reduction(block, loop)
    inner = sch.get_loops(init)[depth:]
    for other in inner[:-1]:
        sch.unroll(other)
    if inner:
        sch.vectorize(inner[-1])
    return init
