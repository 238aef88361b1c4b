"""exp, sigmoid, tanh, erf, log, sin, cos and atan of float32 as arithmetic on vectors.

Each states its largest error against the exact value, in units in the last place, found by trying float32 bit patterns
over the whole range (tests/codegen/test_vector_math.py). NaN stays NaN, infinities give the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nncc.compat import tirx

__all__ = ["MATH", "Steps"]


class Steps:
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

    def element(self, kept: Any, lane: Any) -> Any:
        """One lane of what `keep` returned."""
        return kept.source[lane]

    def correct(self, result: Any, wrong: Any, exact: Callable[[Any], Any]) -> Any:
        """`result` with `exact(lane)` in the lanes where the integers `wrong` are not 0, which are to be rare."""
        result, wrong = self.keep(result), self.keep(wrong)
        lane = tirx.Var("lane", "int32")
        zero = tirx.const(0, "int32")
        one = tirx.IfThenElse(
            self.element(wrong, lane) != zero, tirx.BufferStore(result.source, exact(lane), [lane]), None
        )
        every = tirx.For(lane, zero, tirx.const(self.lanes, "int32"), tirx.ForKind.SERIAL, one)
        any_wrong = wrong if self.lanes == 1 else tirx.call_llvm_pure_intrin("int32", "llvm.vector.reduce.or", wrong)
        self.statements.append(tirx.IfThenElse(any_wrong != zero, every, None))
        return result

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


def _power(x: Any, shift: Any, s: Steps, sign: float = 1.0) -> tuple[Any, Any]:
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


def _exp(x: Any, s: Steps) -> Any:
    """e^x within 0.9 ulp; denormal results too: 2^n is a product of two factors, since n is from -150 to 128."""
    if isinstance(x, tirx.Min) and _is_zero(x.b):
        return _exp_nonpositive(x.a, s)
    x = s.clamp(s.keep(x), -104.0, 88.8)
    small = s.keep(x) < s.const(0.0)
    shift = s.keep(tirx.Select(small, s.const(_ROUND + 127 + 64), s.const(_ROUND + 127 - 1)))
    power, scale = _power(x, shift, s)
    return power * scale * tirx.Select(small, s.const(2.0**-64), s.const(2.0))


def _exp_nonpositive(x: Any, s: Steps) -> Any:
    """e^min(x, 0) within 0.9 ulp down to 2^-126, and 0 below 2^-127: for softmax, whose exponents are 0 at most."""
    power, scale = _power(s.clamp(s.keep(x), -88.0, 0.0), s.const(_ROUND + 127), s)
    return power * scale


def _is_zero(value: Any) -> bool:
    value = value.value if isinstance(value, tirx.Broadcast) else value
    return isinstance(value, tirx.FloatImm) and value.value == 0


def _sigmoid(x: Any, s: Steps) -> Any:
    """1 / (1 + e^-x) within 2.5 ulp, and 0 below 2^-127, where e^-x is taken for infinite."""
    power, scale = _power(s.clamp(s.keep(x), -88.8, 87.0), s.const(_ROUND + 127), s, -1.0)
    return s.const(1.0) / (power * scale + s.const(1.0))


def _tanh(x: Any, s: Steps) -> Any:
    """tanh x within 6 ulp: x P(x^2) / Q(x^2), minimax up to 8.4; from there on it is 1, and nowhere more."""
    x = s.clamp(s.keep(x), -8.4, 8.4)
    square = s.keep(x * x)
    p = s.poly(square, 3.86015768e-11, -2.52653418e-8, 1.7496448e-5, 5.37569728e-3, 2.35260502e-1, 1.81585348)
    q = s.poly(square, 4.24219266e-4, 4.34441268e-2, 8.40544522e-1, 1.8158536)
    return s.clamp(s.keep(x * p / q), -1.0, 1.0)


def _erf(x: Any, s: Steps) -> Any:
    """erf x within 6 ulp: x P(x^2) / Q(x^2), minimax up to 3.7; from there on it is 1, and nowhere more."""
    x = s.clamp(s.keep(x), -3.70769238, 3.70769238)
    square = s.keep(x * x)
    p = s.poly(square, 3.05872436e-6, 3.95432202e-4, 4.82342765e-3, 7.13245645e-2, 2.5147593e-1, 1.54637825)
    q = s.poly(square, 5.50150689e-5, 1.53398106e-3, 1.98414531e-2, 1.52726889e-1, 6.7967844e-1, 1.37044215)
    return x * p / q


def _log(x: Any, s: Steps) -> Any:
    """ln x within 1 ulp; of 0 it is minus infinity, of what is below NaN.

    x = m 2^e with m from sqrt(1/2) to sqrt 2; ln m is the polynomial of Cephes in m - 1, e ln 2 is added in two parts.
    """
    x = s.keep(x)
    denormal = s.keep(tirx.Select(x < s.const(2.0**-126), s.integer(1), s.integer(0)))
    scaled = s.keep(tirx.Select(denormal != s.integer(0), x * s.const(2.0**23), x))
    above = s.keep(s.bits(scaled) - s.integer(_SQRT_HALF))
    exponent = s.keep(tirx.shift_right(above, s.integer(23)) - denormal * s.integer(23))
    e = s.keep(tirx.Cast(s.typed("float32"), exponent))
    m = s.from_bits(tirx.bitwise_and(above, s.integer(0x007FFFFF)) + s.integer(_SQRT_HALF))
    f = s.keep(m - s.const(1.0))
    coefficients = (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    square = s.keep(f * f)
    rest = s.keep(f * square * s.poly(f, *coefficients))
    rest = s.keep(rest + e * s.const(-2.12194440e-4) - s.const(0.5) * square)
    result = s.keep(f + rest + e * s.const(0.693359375))
    result = s.keep(tirx.Select(x < s.const(0.0), s.from_bits(s.integer(_NAN)), result))
    result = s.keep(tirx.Select(x == s.const(0.0), s.from_bits(s.integer(_MINUS_INFINITY)), result))
    finite = tirx.bitwise_and(s.bits(x), s.integer(0x7FFFFFFF)) < s.integer(_INFINITY)
    return tirx.Select(tirx.Or(finite, x < s.const(0.0)), result, x)


def _sin(x: Any, s: Steps) -> Any:
    """sin x within 1.6 ulp."""
    return _sine(x, s, 0)


def _cos(x: Any, s: Steps) -> Any:
    """cos x within 1.6 ulp."""
    return _sine(x, s, 1)


def _sine(x: Any, s: Steps, quarters: int) -> Any:
    """The sine of x + `quarters` pi / 2: |x| = n pi / 2 + r, |r| at most about pi / 4, and a polynomial of r.

    The remainder is made in float64, of pi / 2 in two parts of which n times the first is exact: what is left next to a
    multiple of pi keeps its digits. From 2^17 on the C library computes each number.
    """
    x = s.keep(x)
    magnitude = s.keep(tirx.bitwise_and(s.bits(x), s.integer(0x7FFFFFFF)))
    size = s.keep(s.from_bits(magnitude))
    shifted = s.keep(size * s.const(0.636619772367581343) + s.const(_ROUND))
    wide = s.typed("float64")
    n = s.keep(tirx.Cast(wide, shifted - s.const(_ROUND)))
    high, low = (tirx.const(part, wide) for part in (1.5707963267341256, 6.077100506506192e-11))
    r = s.keep(tirx.Cast(s.typed("float32"), tirx.Cast(wide, size) - n * high - n * low))
    square = s.keep(r * r)
    odd = s.poly(square, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
    even = s.poly(square, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2, -0.5)
    sine = s.keep(r + r * square * odd)
    cosine = s.keep(s.const(1.0) + square * even)
    quadrant = s.bits(shifted) + s.integer(quarters) if quarters else s.bits(shifted)
    quadrant = s.keep(quadrant)
    result = tirx.Select(tirx.bitwise_and(quadrant, s.integer(1)) != s.integer(0), cosine, sine)
    sign = tirx.shift_left(tirx.bitwise_and(quadrant, s.integer(2)), s.integer(30))
    if not quarters:
        sign = tirx.bitwise_xor(sign, tirx.bitwise_and(s.bits(x), s.integer(-0x80000000)))
    result = s.from_bits(tirx.bitwise_xor(s.bits(result), sign))
    function = tirx.cos if quarters else tirx.sin
    large = tirx.Select(magnitude < s.integer(_LARGE), s.integer(0), s.integer(1))
    return s.correct(result, large, lambda lane: function(s.element(x, lane)))


def _atan(x: Any, s: Steps) -> Any:
    """atan x within 3 ulp: that of |x|, or pi / 4 and the arc of (|x| - 1) / (|x| + 1), or pi / 2 less that of 1 / |x|:
    of at most tan(pi / 8), for which the polynomial is that of Cephes.
    """
    x = s.keep(x)
    size = s.keep(s.from_bits(tirx.bitwise_and(s.bits(x), s.integer(0x7FFFFFFF))))
    far, middle = size > s.const(2.41421356), size > s.const(0.41421356)
    one = s.const(1.0)
    over = s.keep(tirx.Select(far, s.const(-1.0), tirx.Select(middle, size - one, size)))
    under = s.keep(tirx.Select(far, size, tirx.Select(middle, size + one, one)))
    offset = tirx.Select(far, s.const(1.57079632679), tirx.Select(middle, s.const(0.785398163397), s.const(0.0)))
    z = s.keep(over / under)
    square = s.keep(z * z)
    arc = s.poly(square, 8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
    return s.with_sign(s.keep(offset + (z + z * square * arc)), x)


_SQRT_HALF, _LARGE, _INFINITY, _NAN, _MINUS_INFINITY = 0x3F3504F3, 0x48000000, 0x7F800000, 0x7FC00000, -0x800000
"""Bit patterns of float32: sqrt(1/2), 2^17, infinity, a NaN, minus infinity."""

MATH: dict[str, Callable[[Any, Steps], Any]] = {
    "exp": _exp,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "erf": _erf,
    "log": _log,
    "sin": _sin,
    "cos": _cos,
    "atan": _atan,
}
"""By the name of TVM's intrinsic."""
