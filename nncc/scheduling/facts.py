"""Facts about blocks and loops."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import Analyzer, structural_map, structural_walk, tirx, tvm
from nncc.errors import InternalError
from nncc.kernels.dots import Dot, dot_of
from nncc.scheduling.annotations import DIMS, LAID
from nncc.target import Hardware

__all__ = [
    "MOST_LOADS",
    "below",
    "divides",
    "dot_in",
    "extent",
    "extents",
    "flops",
    "is_padding",
    "is_spatial",
    "laid_out",
    "largest_shape",
    "loads",
    "lookup_lanes",
    "operand",
    "operand_shape",
    "producer",
    "stand_in",
    "step",
    "swells",
    "transcendentals",
]

_LAID_COST = {"static": 1.02, "open": 1.5}
"""Times as long as its best tile a kernel may take, as predicted, to have its weights in common with others."""
_TRANSCENDENTAL = ("exp", "tanh", "erf", "log", "pow", "sqrt", "sigmoid", "sin", "cos", "atan")
_LEAST_STAND_IN = 127
"""Loops of few steps are unrolled or become vectors; of an open dimension that cannot be."""
MOST_LOADS = 64
"""Of one expression: what reads a value twice doubles it with each inlined step, and LLVM's time with it."""


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


def step(index: Any, variable: Any) -> int | None:
    """By how much an index grows with each step of a variable; None where that is not always the same."""
    after = structural_map(index, [(tirx.Var, lambda v: v + 1 if v.same_as(variable) else v)])
    difference = Analyzer().simplify(after - index)
    return int(difference) if isinstance(difference, tirx.IntImm) else None


def producer(sch: Any, block: Any, name: str) -> Any:
    """The block called `name` (or, where a kernel has several, `name` and a number) that `block` reads."""
    for candidate in sch.get_producers(block):
        if sch.get(candidate).name_hint.rstrip("0123456789").rstrip("_") == name:
            return candidate
    raise InternalError(f"the block `{sch.get(block).name_hint}` does not read `{name}`")
