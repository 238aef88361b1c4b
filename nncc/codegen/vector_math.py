"""exp, sigmoid, tanh and erf of float32 as arithmetic, so that they run in vectors: libm takes one element at a time.

Each states its largest error against the exact value, in units in the last place, found by trying float32 bit patterns
over the whole range (tests/codegen/test_vector_math.py). NaN stays NaN, infinities give the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from nncc.compat import structural_map, structural_walk, tirx, tvm

__all__ = ["MATH", "vector_math"]


class _Steps:
    """Statements that compute an expression bit by bit, each result in a buffer of one vector.

    LLVM makes registers of the buffers. Let expressions would say the same, but TVM's simplifier puts their values
    back where they are used, again and again.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.statements: list[Any] = []

    def keep(self, value: Any) -> Any:
        """Compute `value` once; the expression that reads it."""
        dtype = str(value.ty.dtype).split("x")[0]
        buffer = tirx.decl_buffer((self.lanes,), dtype, name="v")
        at = tirx.Ramp(0, 1, self.lanes) if self.lanes > 1 else tirx.const(0, "int32")
        self.statements += [tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, value, [at])]
        return buffer[at]

    def typed(self, dtype: str) -> str:
        return f"{dtype}x{self.lanes}" if self.lanes > 1 else dtype

    def const(self, value: float) -> Any:
        return tirx.const(value, self.typed("float32"))

    def integer(self, value: int) -> Any:
        return tirx.const(value, self.typed("int32"))

    def bits(self, x: Any) -> Any:
        return tirx.reinterpret(self.typed("int32"), x)

    def from_bits(self, n: Any) -> Any:
        return tirx.reinterpret(self.typed("float32"), n)

    def poly(self, x: Any, *coefficients: float) -> Any:
        """Horner's scheme, highest power first."""
        result = self.const(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.keep(result * x + self.const(coefficient))
        return result

    def clamp(self, x: Any, low: float, high: float) -> Any:
        """x in [low, high]; NaN, which compares with nothing, stays."""
        x = self.keep(tirx.Select(x < self.const(low), self.const(low), x))
        return self.keep(tirx.Select(x > self.const(high), self.const(high), x))

    def with_sign(self, magnitude: Any, x: Any) -> Any:
        sign = tirx.bitwise_and(self.bits(x), self.integer(-0x80000000))
        return self.from_bits(tirx.bitwise_or(self.bits(magnitude), sign))


def _power(x: Any, shift: Any, s: _Steps, sign: float = 1.0) -> tuple[Any, Any]:
    """e^(sign x) as (e^r, 2^(n + shift - 127)): x = n ln 2 + r, |r| <= ln 2 / 2; n + shift is to be from 0 to 255.

    Adding 1.5 * 2^23 + shift rounds to an integer, whose lowest bits are then those of n + shift: moved to where the
    exponent is, they are the second factor; at 0 it is 0, at 255 infinity. The polynomial is minimax, of degree 6.
    """
    shifted = s.keep(x * s.const(1.44269504088896341 * sign) + shift)
    n = s.keep(shifted - shift)
    r = s.keep(x - n * s.const(0.693359375 * sign) - n * s.const(-2.12194440e-4 * sign))
    coefficients = 1.38146017e-3, 8.36871524e-3, 4.16683879e-2, 1.66665206e-1, 4.99999934e-1, 1.0, 1.0
    power = s.poly(r, *(c * sign ** (6 - i) for i, c in enumerate(coefficients)))
    return s.keep(power), s.keep(s.from_bits(tirx.shift_left(s.bits(shifted), s.integer(23))))


_ROUND = 12582912.0
"""1.5 * 2^23: a float32 of this size has no fraction, and its lowest bits are those of an integer."""


def _exp(x: Any, s: _Steps) -> Any:
    """e^x within 0.9 ulp; denormal results too: 2^n is a product of two factors, since n is from -150 to 128."""
    if isinstance(x, tirx.Min) and _is_zero(x.b):
        return _exp_nonpositive(x.a, s)
    x = s.clamp(s.keep(x), -104.0, 88.8)
    small = s.keep(x) < s.const(0.0)
    shift = s.keep(tirx.Select(small, s.const(_ROUND + 127 + 64), s.const(_ROUND + 127 - 1)))
    power, scale = _power(x, shift, s)
    return power * scale * tirx.Select(small, s.const(2.0**-64), s.const(2.0))


def _exp_nonpositive(x: Any, s: _Steps) -> Any:
    """e^min(x, 0) within 0.9 ulp down to 2^-126, and 0 below 2^-127: for softmax, whose exponents are 0 at most."""
    power, scale = _power(s.clamp(s.keep(x), -88.0, 0.0), s.const(_ROUND + 127), s)
    return power * scale


def _is_zero(value: Any) -> bool:
    value = value.value if isinstance(value, tirx.Broadcast) else value
    return isinstance(value, tirx.FloatImm) and value.value == 0


def _sigmoid(x: Any, s: _Steps) -> Any:
    """1 / (1 + e^-x) within 2.5 ulp, and 0 below 2^-127, where e^-x is taken for infinite."""
    power, scale = _power(s.clamp(s.keep(x), -88.8, 87.0), s.const(_ROUND + 127), s, -1.0)
    return s.const(1.0) / (power * scale + s.const(1.0))


def _tanh(x: Any, s: _Steps) -> Any:
    """tanh x within 6 ulp: x P(x^2) / Q(x^2), minimax up to 8.4; from there on it is 1, and nowhere more."""
    x = s.clamp(s.keep(x), -8.4, 8.4)
    square = s.keep(x * x)
    p = s.poly(square, 3.86015768e-11, -2.52653418e-8, 1.7496448e-5, 5.37569728e-3, 2.35260502e-1, 1.81585348)
    q = s.poly(square, 4.24219266e-4, 4.34441268e-2, 8.40544522e-1, 1.8158536)
    return s.clamp(s.keep(x * p / q), -1.0, 1.0)


def _erf(x: Any, s: _Steps) -> Any:
    """erf x within 6 ulp: x P(x^2) / Q(x^2), minimax up to 3.7; from there on it is 1, and nowhere more."""
    x = s.clamp(s.keep(x), -3.70769238, 3.70769238)
    square = s.keep(x * x)
    p = s.poly(square, 3.05872436e-6, 3.95432202e-4, 4.82342765e-3, 7.13245645e-2, 2.5147593e-1, 1.54637825)
    q = s.poly(square, 5.50150689e-5, 1.53398106e-3, 1.98414531e-2, 1.52726889e-1, 6.7967844e-1, 1.37044215)
    return x * p / q


MATH: dict[str, Callable[[Any, _Steps], Any]] = {"exp": _exp, "sigmoid": _sigmoid, "tanh": _tanh, "erf": _erf}
"""By the name of TVM's intrinsic."""


def vector_math(interleaved: int = 1) -> Any:
    """The TIR pass; it comes when loops are vectors already and buffers flat.

    Up to `interleaved` stores that follow each other, and do not depend on each other, are computed together, step by
    step: one chain of multiply-adds waits for itself, and the constants are loaded once.
    """

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.VectorMath")
    def apply(function: Any, module: Any, context: Any) -> Any:
        body = function.body
        if interleaved > 1:
            owners = _storage(body)
            body = structural_map(body, (tirx.SeqStmt, lambda seq: _interleave(seq, owners, interleaved)))
        return function.with_body(structural_map(body, [(tirx.BufferStore, _expand_store), (tirx.Bind, _expand_bind)]))

    return apply


def _storage(body: Any) -> dict[Any, Any]:
    """By buffer that is a view: the buffer whose memory it is."""
    owners: dict[Any, Any] = {}

    def view(stmt: Any) -> None:
        if isinstance(stmt.data, tvm.ir.Call) and len(stmt.data.args):
            owners[stmt.buffer] = owners.get(stmt.data.args[0], stmt.data.args[0])

    structural_walk(body, (tirx.DeclBuffer, view))
    return owners


def _interleave(seq: Any, owners: dict[Any, Any], most: int) -> Any:
    """The sequence with its groups of independent stores computed together."""
    statements: list[Any] = []
    group: list[Any] = []
    written: set[Any] = set()
    read: set[Any] = set()

    def finish() -> None:
        chains = [_expand(store.value) for store in group]
        for steps in zip_longest(*(steps for steps, _ in chains)):
            statements.extend(step for step in steps if step is not None)
        for store, (_, value) in zip(group, chains, strict=True):
            statements.append(tirx.BufferStore(store.buffer, value, store.indices))
        group.clear()
        written.clear()
        read.clear()

    for stmt in _flat(seq):
        reads = _reads(stmt, owners)
        store = isinstance(stmt, tirx.BufferStore) and _computes(stmt.value)
        if store:
            target = owners.get(stmt.buffer, stmt.buffer)
            if len(group) == most or target in read | reads or written & reads:
                finish()
            group.append(stmt)
            written.add(target)
            read |= reads
        else:
            if not isinstance(stmt, tirx.Bind) or _computes(stmt.value) or written & reads:
                finish()
            statements.append(stmt)  # a Bind may go ahead of the stores before it
    finish()
    return tirx.SeqStmt(statements)


def _flat(seq: Any) -> list[Any]:
    return [inner for stmt in seq.seq for inner in (_flat(stmt) if isinstance(stmt, tirx.SeqStmt) else [stmt])]


def _reads(stmt: Any, owners: dict[Any, Any]) -> set[Any]:
    """The memory that a statement reads."""
    found: set[Any] = set()
    structural_walk(stmt, (tvm.ir.TensorLoad, lambda load: found.add(owners.get(load.source, load.source))))
    return found


def _computes(value: Any) -> bool:
    """Whether an expression calls one of our functions."""
    found: list[Any] = []
    structural_walk(value, (tvm.ir.Call, lambda call: found.append(call) if _name(call) in MATH else None))
    return bool(found)


def _name(call: Any) -> str:
    return str(getattr(call.op, "name", "")).rsplit(".", 1)[-1]


def _expand_store(store: Any) -> Any:
    statements, value = _expand(store.value)
    if not statements:
        return store
    return tirx.SeqStmt([*statements, tirx.BufferStore(store.buffer, value, store.indices)])


def _expand_bind(bind: Any) -> Any:
    statements, value = _expand(bind.value)
    return tirx.SeqStmt([*statements, tirx.Bind(bind.var, value)]) if statements else bind


def _expand(value: Any) -> tuple[list[Any], Any]:
    """Statements and the expression that remains of `value`."""
    guarded: list[Any] = []

    def guard(call: Any) -> None:
        if _name(call) == "if_then_else":  # computed ahead, it would read what the condition guards
            structural_walk(call, [(tvm.ir.Call, guarded.append)])

    structural_walk(value, [(tvm.ir.Call, guard)])
    statements: list[Any] = []

    def replace(call: Any) -> Any:
        dtype = str(call.ty.dtype) if hasattr(call.ty, "dtype") else ""
        if _name(call) not in MATH or dtype.split("x")[0] != "float32" or any(call.same_as(g) for g in guarded):
            return call
        steps = _Steps(int(dtype.split("x")[1]) if "x" in dtype else 1)
        result = steps.keep(MATH[_name(call)](call.args[0], steps))
        statements.extend(steps.statements)
        return result

    return statements, structural_map(value, (tvm.ir.Call, replace))
