"""What a kernel does, in numbers: its floating-point operations, and the bytes of its arguments."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

from nncc.compat import Schedule, structural_map, structural_walk, tirx, tvm
from nncc.device_units import KIND
from nncc.dots import PRODUCT
from nncc.ir import TensorSpec
from nncc.scheduling import ANCHOR, FLOPS, extents, largest_shape, loads

__all__ = ["count_bytes", "count_flops", "has_loops"]

_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)


def count_flops(function: Any) -> int:
    """Floating-point additions, multiplications and the like that an unscheduled TIR function performs.

    They are counted as they are executed, which is what a processor's peak can be compared with: Winograd's kernel has
    its own, fewer than those of the convolution that it stands for. Functions like exp count nothing; a word of
    integers, multiplied and added to a lane by one instruction on most processors, counts as a multiplication and an
    addition; so does each pair that tensor cores multiply.
    """
    if not has_loops(function):
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
    if not has_loops(function):
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


def has_loops(function: Any) -> bool:
    """Whether the function is blocks in loops, as against one call of our own C, or statements as they are."""
    block = function.body.block
    return ANCHOR not in block.annotations and isinstance(block.body, (tirx.For, tirx.SeqStmt))
