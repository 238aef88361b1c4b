"""exp, sigmoid, tanh and erf of float32 as arithmetic, so that they run in vectors: libm takes one element at a time.

Each states its largest error against the exact value, in units in the last place, found by trying float32 bit patterns
over the whole range (tests/codegen/test_vector_math.py). NaN stays NaN, infinities give the limits.
"""

from __future__ import annotations

from collections.abc import Callable
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
            result = result * x + self.const(coefficient)
        return result

    def clamp(self, x: Any, low: float, high: float) -> Any:
        """x in [low, high]; NaN, which compares with nothing, stays."""
        x = self.keep(tirx.Select(x < self.const(low), self.const(low), x))
        return self.keep(tirx.Select(x > self.const(high), self.const(high), x))

    def with_sign(self, magnitude: Any, x: Any) -> Any:
        sign = tirx.bitwise_and(self.bits(x), self.integer(-0x80000000))
        return self.from_bits(tirx.bitwise_or(self.bits(magnitude), sign))


def _exp(x: Any, s: _Steps) -> Any:
    """e^x within 1.1 ulp; denormal results too.

    x = n ln 2 + r, |r| <= ln 2 / 2: e^x = 2^n e^r (Cephes, Moshier 1992). Adding 1.5 * 2^23 rounds to an integer,
    whose bits are then n's; 2^n is made of two factors, since n is from -150 to 128.
    """
    magic, bits = 12582912.0, 0x4B400000
    x = s.clamp(s.keep(x), -104.0, 88.8)
    t = s.keep(x * s.const(1.44269504088896341) + s.const(magic))
    whole = s.keep(t - s.const(magic))
    r = s.keep(x - whole * s.const(0.693359375) - whole * s.const(-2.12194440e-4))
    n = s.keep(s.bits(t) - s.integer(bits))
    half = s.keep(tirx.shift_right(n, s.integer(1)))
    power = s.poly(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)

    def two_to(n: Any) -> Any:
        return s.from_bits(tirx.shift_left(n + s.integer(127), s.integer(23)))

    return (power * r * r + r + s.const(1.0)) * two_to(half) * two_to(n - half)


def _sigmoid(x: Any, s: _Steps) -> Any:
    """1 / (1 + e^-x) within 2.5 ulp: p / (1 + p) with p = e^-|x| for negative x, which keeps denormal results."""
    x = s.keep(x)
    power = s.keep(_exp(s.const(0.0) - tirx.abs(x), s))
    return tirx.Select(x < s.const(0.0), power, s.const(1.0)) / (power + s.const(1.0))


def _tanh(x: Any, s: _Steps) -> Any:
    """tanh x within 1.4 ulp: an odd polynomial up to 0.625 (Cephes), 1 - 2 / (e^2|x| + 1) with x's sign beyond."""
    x = s.keep(x)
    size, square = s.keep(tirx.abs(x)), s.keep(x * x)
    near = s.poly(square, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
    far = s.const(1.0) - s.const(2.0) / (_exp(size + size, s) + s.const(1.0))
    return tirx.Select(size > s.const(0.625), s.with_sign(far, x), near * square * x + x)


def _erf(x: Any, s: _Steps) -> Any:
    """erf x within 1.1 ulp: x + x P(x^2) up to 0.921875, (1 - e^-Q(|x|)) with x's sign beyond (N. Juffa, 2016)."""
    x = s.keep(x)
    size, square = s.clamp(s.keep(tirx.abs(x)), 0.0, 4.0), s.keep(x * x)
    q = s.poly(
        size,
        -1.72853470e-5,
        3.83197126e-4,
        -3.88396438e-3,
        2.42546219e-2,
        -1.06777877e-1,
        -6.34846687e-1,
        -1.28717512e-1,
    )
    far = s.const(1.0) - _exp(q * size - size, s)
    near = s.poly(square, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
    return tirx.Select(size > s.const(0.921875), s.with_sign(far, x), near * x + x)


MATH: dict[str, Callable[[Any, _Steps], Any]] = {"exp": _exp, "sigmoid": _sigmoid, "tanh": _tanh, "erf": _erf}
"""By the name of TVM's intrinsic."""


def vector_math() -> Any:
    """The TIR pass; it comes when loops are vectors already and buffers flat."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.VectorMath")
    def apply(function: Any, module: Any, context: Any) -> Any:
        return function.with_body(
            structural_map(function.body, [(tirx.BufferStore, _expand_store), (tirx.Bind, _expand_bind)])
        )

    return apply


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
