"""The words of schedules: facts about blocks and loops, and the actions that templates share.

A template is a Python file with `NAME`, `compute(...)` (a tensor expression whose main block carries
``anchor(NAME)``) and ``schedule(sch, block, hardware, choose) -> (blocks it placed, what it decided)``;
`nncc.templates` loads it and gives each kernel to its own. What a template decides, it asks `choose` for: see
`nncc.choices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.choices import Choices
from nncc.compat import Analyzer, structural_map, structural_walk, te, tirx, topi, tvm
from nncc.dots import Dot, dot_of
from nncc.errors import InternalError
from nncc.target import Hardware

__all__ = [
    "ANCHOR",
    "DIMS",
    "FLOPS",
    "LAID",
    "PART",
    "TASK",
    "anchor",
    "below",
    "chains",
    "decompose_reduction",
    "divides",
    "dot_in",
    "epilogue",
    "even_tile",
    "extent",
    "extents",
    "finish_in_registers",
    "finish_tiles",
    "flops",
    "in_vectors",
    "is_padding",
    "is_spatial",
    "laid_out",
    "largest_shape",
    "loads",
    "lookup_lanes",
    "operand",
    "operand_in_registers",
    "operand_shape",
    "padded",
    "panels",
    "parallel",
    "part",
    "producer",
    "register_tiles",
    "shift",
    "split_steps",
    "stand_in",
    "swells",
    "tile_cost",
    "tile_products",
    "tiled_cost",
    "transcendentals",
    "unrollings",
    "widened",
]

ANCHOR = "nncc.template"
"""The annotation of the block that a template schedules."""
FLOPS = "nncc.flops"
"""The annotation of a block that is loops already: its floating-point operations."""
PART = "nncc.part"
"""The annotation of other blocks of a template."""
TASK = "nncc.task"
"""The annotation of an anchor that is one of several ways: see `nncc.choices.GraphChoices`."""
DIMS = "nncc.dims"
"""The attribute of kernels with open dimensions: by variable, the size that schedules take it for, and its bounds."""
LAID = "nncc.laid"
"""The attribute of kernels whose weights other forms of the model have too: in panels of so many vectors."""
_LAID_COST = {"static": 1.02, "open": 1.5}
"""Times as long as its best tile a kernel may take, as predicted, to have its weights in common with others."""
_TRANSCENDENTAL = ("exp", "tanh", "erf", "log", "pow", "sqrt", "sigmoid", "sin", "cos", "atan")
_GRAIN = 60_000
"""Operations below which a kernel stays on one thread: about the cost of waking a worker."""
_LEAST_STAND_IN = 127
"""Loops of few steps are unrolled or become vectors; of an open dimension that cannot be."""
_EFFICIENCY = 0.95
"""Of the peak, that a product reaches whose register tiles wait for nothing."""
MOST_TILES = 24
"""Of the register tiles that fit, so many are worth a try."""


def anchor(name: str, task: str = "") -> dict[str, str]:
    """Attributes of the block that the template `name` schedules.

    `task` is the hash of the graph's task of which the template is one way, if there are others.
    """
    return {ANCHOR: name} | ({TASK: task} if task else {})


def part(name: str) -> dict[str, str]:
    """Attributes of a block that belongs to the template `name` beside its anchor: it is left for the template."""
    return {PART: name}


def padded(
    data: Any,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    zero: int = 0,
) -> tuple[Any, list[int]]:
    """Blocked data [N, C/l, H, W, l] with `zero` around H and W, and the (OH, OW) of a convolution of it.

    `window` is (KH, KW), `padding` is (top, left, bottom, right).
    """
    top, left, bottom, right = padding
    if any(padding):
        value = tirx.const(zero, data.dtype)
        data = topi.nn.pad(data, [0, 0, top, left, 0], [0, 0, bottom, right, 0], pad_value=value, name="pad")
    sizes = [int(d) for d in data.shape[2:4]]
    axes = zip(sizes, window, strides, dilation, strict=True)
    return data, [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in axes]


def shift(dtype: str, dot: Dot) -> int:
    """What `widened` adds to activations of `dtype`."""
    if dot.name == "none":
        return 0
    return {("int8", "uint8"): 128, ("uint8", "int8"): -128}.get((dtype, dot.data), 0)


def widened(data: Any, dot: Dot) -> Any:
    """Integers as `dot` takes them: those of its dtype as they are, wider ones copied, int8 as uint8 by adding 128 and
    the other way round."""
    if data.dtype == dot.data or dot.name == "none":
        return data
    offset = shift(str(data.dtype), dot)

    def element(*at: Any) -> Any:
        value = data[at].astype("int16")
        return (value + tirx.const(offset, "int16") if offset else value).astype(dot.data)

    return te.compute(data.shape, element, name="widen")


# Facts about blocks and loops


def stand_in(sch: Any, size: Any) -> int:
    """A size as a number; for one that depends on open dimensions, a prime near what is typical: tiles do not divide
    it, so that schedules see to the rest."""
    if isinstance(size, tirx.IntImm):
        return int(size)
    (function,) = (f for f in sch.mod.functions.values() if isinstance(f, tirx.PrimFunc))
    number = max(_LEAST_STAND_IN, _at(function, size, 0))
    return next(n for n in range(number, 1, -1) if all(n % d for d in range(2, int(n**0.5) + 1)))


def largest_shape(function: Any, shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape in a TIR function, at the largest sizes of open dimensions."""
    return tuple(int(size) if isinstance(size, tirx.IntImm) else _at(function, size, -1) for size in shape)


def _at(function: Any, size: Any, which: int) -> int:
    """A size that depends on open dimensions, with their numbers `which` of `DIMS`."""
    known = {name: int(numbers[which]) for name, numbers in (function.attrs or {}).get(DIMS, {}).items()}
    number = structural_map(
        size, [(tirx.Var, lambda v: tirx.IntImm(str(v.ty.dtype), known[v.name]) if v.name in known else v)]
    )
    return int(Analyzer().simplify(number))


def extent(sch: Any, loop: Any) -> int:
    """The trip count of a loop; see `stand_in`."""
    return stand_in(sch, sch.get(loop).extent)


def divides(sch: Any, loop: Any, factor: int) -> bool:
    """Whether the trip count of a loop is a multiple of `factor`, at all sizes of open dimensions."""
    size = sch.get(loop).extent
    return bool(Analyzer().can_prove_equal(tirx.floormod(size, tirx.IntImm(str(size.ty.dtype), factor)), 0))


def below(sch: Any, block: Any, loop: Any) -> list[Any]:
    """The loops of a block inside of `loop`, outermost first."""
    nest = sch.get_loops(block)
    return nest[[sch.get(other).same_as(sch.get(loop)) for other in nest].index(True) + 1 :]


def extents(sch: Any, block: Any) -> list[int]:
    """The extents of a block's iterators, in order; see `stand_in`."""
    return [stand_in(sch, v.dom.extent) for v in sch.get(block).iter_vars]


def flops(sch: Any, block: Any) -> int:
    """Multiply-adds of a reduction block, counted as two operations each."""
    return 2 * prod(extents(sch, block))


def laid_out(sch: Any) -> tuple[int, float] | None:
    """The vectors in a panel of weights that other kernels have too, and how much more time that is worth; see `LAID`.

    None where no other has them.
    """
    (function,) = (f for f in sch.mod.functions.values() if isinstance(f, tirx.PrimFunc))
    attributes = function.attrs or {}
    return (
        (int(attributes[LAID]), _LAID_COST["open" if DIMS in attributes else "static"]) if LAID in attributes else None
    )


def even_tile(size: int, most: int) -> int:
    """The tile of at most `most` that covers `size` in the fewest, most even steps; a divisor where one is close."""
    steps = -(-size // most)
    for tile in range(min(most, size), max(1, most // 2) - 1, -1):
        if size % tile == 0:
            return tile
    return -(-size // steps)


def register_tiles(
    steps: int,
    blocks: int,
    lanes: int,
    hardware: Hardware,
    *,
    streamed: bool = False,
    held: int = 0,
    dot: Dot | None = None,
    laid: tuple[int, float] | None = None,
) -> list[list[int]]:
    """Rows (or columns) by vectors of the accumulators that a matrix product may keep in registers, the cheapest first.

    `steps` rows and `blocks` vectors of `lanes` floats are to be covered; a number of vectors that does not divide
    `blocks` is not considered. Beside the accumulators, registers hold one step's vectors of weights and one
    activation, or `held` for each row: one at least where activations are lanes of registers, more where several steps
    share them. Of integers, `dot` says what weights take. Their order is that of `tile_cost`, but that tiles of as many
    vectors as weights are `laid` out in come first, if they cost little more.
    """
    steps = max(1, steps)  # of a tensor without elements
    each = max(1, lanes * 32 // hardware.vector_bits)
    found: list[tuple[float, list[int]]] = []
    for vectors in range(1, 9):
        if blocks % vectors:
            continue
        for rows in range(1, min(steps, 32) + 1):
            beside = vectors * each + max(1, rows * max(held, hardware.lane_operand))
            if dot is not None:  # pairs of weights fill halves of registers
                beside += dot.beside + (vectors * each if dot.paired else 0)
            fits = rows * vectors * each + beside <= hardware.vector_registers
            if not fits and (rows, vectors) != (1, 1):
                break
            cost = tile_cost(rows, vectors, steps, lanes, hardware, streamed=streamed)
            found.append((round(cost, 9), [rows, vectors]))
    found.sort(key=lambda entry: entry[0])
    if laid is not None:
        vectors, more = laid
        most = more * found[0][0]
        found.sort(key=lambda entry: entry[1][1] != vectors or entry[0] > most)
    return [tile for _, tile in found][:MOST_TILES]


def tile_cost(rows: int, vectors: int, steps: int, lanes: int, hardware: Hardware, *, streamed: bool = False) -> float:
    """The predicted time of a product by tiles of rows x vectors, as a multiple of its multiply-adds at full speed.

    Counted are rows wasted in the last tile, multiply-adds waiting for each other (8 in flight hide their latency),
    loads, and, where the weights are `streamed` from memory, the first of the passes over a panel waiting for it: that
    pass takes 2 / rows bytes a flop. Loads that broadcast set the pace beyond two thirds of the multiply-adds; where
    activations are lanes of registers, a vector of them serves several steps, most loads come in pairs, and every
    instruction counts.
    """
    each = max(1, lanes * 32 // hardware.vector_bits)
    accumulators = rows * vectors * each
    waste = -(-steps // rows) * rows / steps
    waiting = max(1.0, 8 / accumulators)
    if hardware.lane_operand:
        products = accumulators * hardware.vector_bits // 32
        issue = 1 + (products / rows / 2 + rows / 2 + 4) / products
    else:
        loads = (vectors * each + rows) / accumulators
        issue = max(1.0, 1.5 * loads) * (1 + 0.1 * loads)
    pace = waiting * issue
    first = max(pace, 2 / rows / hardware.bytes_per_flop) if streamed else pace
    return waste * (pace + (first - pace) * min(1.0, rows / steps))


def tiled_cost(steps: int, blocks: int, lanes: int, hardware: Hardware, *, streamed: bool = False) -> float:
    """The predicted time of a product by the tiles that are predicted to be fastest, as a multiple of its multiply-adds
    at the peak; of `streamed` weights, those tiles that wait for them the least."""
    rows, vectors = register_tiles(steps, blocks, lanes, hardware, streamed=streamed)[0]
    return tile_cost(rows, vectors, steps, lanes, hardware, streamed=streamed) / _EFFICIENCY


def dot_in(sch: Any, block: Any, hardware: Hardware) -> Dot | None:
    """How a block of a template multiplies integers; None where it multiplies floats."""
    (written,) = sch.get(block).writes
    return dot_of(hardware) if str(written.source.dtype) == "int32" else None


def lookup_lanes(hardware: Hardware) -> int:
    """The bytes that are looked up at once in a table of 256, by `nncc.codegen.look_up`; 0 where only one can be."""
    return hardware.vector_bits // 8 if "ssse3" in hardware.features else 0


def is_spatial(sch: Any, block: Any) -> bool:
    return all(v.iter_type == 0 for v in sch.get(block).iter_vars)


def is_padding(sch: Any, block: Any) -> bool:
    """Whether a block only copies one tensor into a larger one."""
    return is_spatial(sch, block) and len(loads(sch, block)) == 1 and len(sch.get(block).reads) == 1


MOST_LOADS = 64
"""Of one expression: what reads a value twice doubles it with each inlined step, and LLVM's time with it."""


def swells(sch: Any, block: Any, consumers: Sequence[Any]) -> bool:
    """Whether a block would make one of its consumers an expression of more than `MOST_LOADS` loads if inlined."""
    own = loads(sch, block)
    if len(own) < 2:
        return False
    buffer = sch.get(block).writes[0].source
    for consumer in consumers:
        read = loads(sch, consumer)
        times = sum(load.source.same_as(buffer) for load in read)
        if times > 1 and len(read) + times * (len(own) - 1) > MOST_LOADS:
            return True
    return False


def loads(sch: Any, block: Any) -> list[Any]:
    found: list[Any] = []
    structural_walk(sch.get(block).body, [(tvm.ir.TensorLoad, found.append)])
    return found


def operand(sch: Any, block: Any, index: int) -> Any:
    """A tensor that a reduction reads, counted from 0 without the one that it writes."""
    block = sch.get(block)
    written = [region.source for region in block.writes]
    return [r.source for r in block.reads if not any(r.source.same_as(w) for w in written)][index]


def operand_shape(sch: Any, block: Any, index: int) -> list[int]:
    """The shape of an `operand`."""
    return [stand_in(sch, d) for d in operand(sch, block, index).shape]


def transcendentals(sch: Any, block: Any) -> int:
    count = 0

    def visit(call: Any) -> None:
        nonlocal count
        name = str(getattr(call.op, "name", ""))
        if any(word in name for word in _TRANSCENDENTAL) or "call_pure_extern" in name:
            count += 1

    structural_walk(sch.get(block).body, [(tvm.ir.Call, visit)])
    return count


# Actions that templates share


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


def split_steps(sch: Any, loop: Any, size: int) -> list[Any]:
    """Split a reduction's innermost loop for `size` steps at once, which are unrolled; the one or two loops."""
    loops = [loop] if size in (1, extent(sch, loop)) else list(sch.split(loop, [None, size]))
    if size > 1:
        sch.unroll(loops[-1])
    return loops


def unrollings(steps: int, most: int = 16) -> list[int]:
    """How many steps of a reduction's innermost loop may be unrolled: all of them where there are at most `most`."""
    default = steps if steps <= most else 1
    return [default, *(size for size in (1, 2, 4, 8) if steps % size == 0 and size < steps and size != default)]


def producer(sch: Any, block: Any, name: str) -> Any:
    """The block called `name` (or, where a kernel has several, `name` and a number) that `block` reads."""
    for candidate in sch.get_producers(block):
        if sch.get(candidate).name_hint.rstrip("0123456789").rstrip("_") == name:
            return candidate
    raise InternalError(f"the block `{sch.get(block).name_hint}` does not read `{name}`")


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
