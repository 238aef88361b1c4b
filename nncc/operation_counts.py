"""What a kernel does, in numbers: its floating-point operations, and the bytes of its arguments."""

from __future__ import annotations

from functools import cache
from itertools import product
from math import prod
from typing import Any

from nncc.codegen.vector_functions import MATH, Steps
from nncc.compat import Schedule, structural_map, structural_walk, tirx, tvm
from nncc.gpu.device_units import KIND
from nncc.ir import Operations, TensorSpec
from nncc.kernels.dots import PRODUCT
from nncc.scheduling import ANCHOR, FLOPS, extents, largest_shape, loads

__all__ = ["count_bytes", "count_operations", "has_loops"]

_ONE = {
    **dict.fromkeys((tirx.Mul, tirx.Div), Operations(1, 0)),
    **dict.fromkeys((tirx.Add, tirx.Sub, tirx.Max, tirx.Min), Operations(0, 1)),
}


def count_operations(function: Any, functions: bool = True) -> Operations:
    """Floating-point additions, multiplications and the like that an unscheduled TIR function performs.

    They are counted as they are executed, which is what a processor's peak can be compared with: Winograd's kernel has
    its own, fewer than those of the convolution that it stands for. exp and its like count as the polynomials that
    they become in vectors, or nothing where `functions` have units of their own, as on a GPU; a word of integers,
    multiplied and added to a lane by one instruction on most processors, counts as a multiplication and an addition;
    so does each pair that tensor cores multiply.
    """
    if not has_loops(function):
        products = int(function.body.block.annotations.get(FLOPS, 0)) // 2
        return Operations(products, products)
    sch = Schedule(function.with_attr("global_symbol", "main"))
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    return sum((_of_block(sch, block, functions) for block in blocks), Operations())


def _of_block(sch: Any, block: Any, functions: bool) -> Operations:
    """Of a Select by the value of an iterator, as a row of Winograd's matrices is chosen, the chosen side counts."""
    if KIND in sch.get(block).annotations:
        return Operations(1, 1) * prod(extents(sch, block))
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
    total = Operations()
    for values in product(*map(range, chosen.values())):
        at_values = dict(zip(chosen, values, strict=True))

        def side(select: Any, at_values: dict[int, int] = at_values) -> Any:
            at = position(select)
            if at not in at_values:
                return select
            return select.true_value if int(select.condition.b) == at_values[at] else select.false_value

        total += _of_body(structural_map(body, [(tirx.Select, side)]) if at_values else body, functions) * steps
    return total


def _of_body(body: Any, functions: bool) -> Operations:
    """One execution of statements or an expression."""
    found = Operations()

    def count(expression: Any) -> None:
        nonlocal found
        if str(expression.ty.dtype).startswith(("float", "bfloat")):
            found += _ONE[type(expression)]

    def count_call(call: Any) -> None:
        nonlocal found
        name = str(getattr(call.op, "name", ""))
        if name == PRODUCT:
            found += Operations(1, 1)
        elif functions and str(call.ty.dtype) == "float32":
            found += _of_function(name.removeprefix("tirx."))

    structural_walk(body, [*((kind, count) for kind in _ONE), (tvm.ir.Call, count_call)])
    return found


@cache
def _of_function(name: str) -> Operations:
    """Of what `vector_math` makes of a call, but for operations on bits."""
    if name not in MATH:
        return Operations()
    steps = Steps(1)
    steps.keep(MATH[name](tirx.Var("x", "float32"), steps))
    stored = [each.value for each in steps.statements if isinstance(each, tirx.BufferStore)]
    return sum((_of_body(value, functions=False) for value in stored), Operations())


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
