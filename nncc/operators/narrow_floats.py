"""Numbers of 8 and fewer bits, one in a byte, as real numbers and back; `nncc.frontend.narrow_types` makes the nodes.

DecodeNarrow: y = value(code), float32, by a table. EncodeNarrow: the code of the nearest number of the format, of two
that are equally near the even one; formats and corner cases as in the standard's table of Cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.compat import relax, te, tirx
from nncc.operators.attributes import word

__all__ = ["FORMATS", "Format", "decode_narrow", "encode_narrow"]


@dataclass(frozen=True)
class Format:
    """A binary format: a sign, exponent bits with a bias, and `fraction` bits."""

    fraction: int
    bias: int
    largest: int
    """The code of the largest finite number."""
    overflow: int
    """The code of what is too large, where it does not saturate."""
    nan: int
    sign: int = 0x80
    """The bit of the sign."""
    signed_zero: bool = True


FORMATS = {
    "float8_e4m3fn": Format(fraction=3, bias=7, largest=0x7E, overflow=0x7F, nan=0x7F),
    "float8_e4m3fnuz": Format(fraction=3, bias=8, largest=0x7F, overflow=0x80, nan=0x80, signed_zero=False),
    "float8_e5m2": Format(fraction=2, bias=15, largest=0x7B, overflow=0x7C, nan=0x7E),
    "float8_e5m2fnuz": Format(fraction=2, bias=16, largest=0x7F, overflow=0x80, nan=0x80, signed_zero=False),
    "float4_e2m1fn": Format(fraction=1, bias=1, largest=0x7, overflow=0x7, nan=0x8, sign=0x8),
}
"""By numpy's word; float8_e8m0fnu, which is an exponent alone, has a function of its own."""

_LAST_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
"""Integers, and how many bits of a byte they are."""


def decode_narrow(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """value(code) in float32, of integers in their byte; of a code's bits only those of the format count."""
    import ml_dtypes

    name = word(attributes["format"])
    if name in _LAST_BITS:
        return builder.emit_te(
            lambda code: te.compute(code.shape, lambda *at: _last_bits(code[at].astype("int32"), name), name="decode"),
            inputs[0],
            primfunc_name_hint="decode",
        )
    codes = np.arange(16 if name == "float4_e2m1fn" else 256, dtype=np.uint8)
    values = codes.view(getattr(ml_dtypes, name)).astype(np.float32)

    def look_up(code: Any, table: Any) -> Any:
        mask = tirx.const(len(codes) - 1, "int32")
        return te.compute(
            code.shape, lambda *at: table[tirx.bitwise_and(code[at].astype("int32"), mask)], name="decode"
        )

    return builder.emit_te(look_up, inputs[0], relax.const(values), primfunc_name_hint="decode")


def encode_narrow(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """The codes, in uint8, of float32 or float64; int4, uint4, int2 and uint2 take the last bits of an int32."""
    name, saturate = word(attributes["format"]), bool(attributes.get("saturate", 1))
    mode = word(attributes.get("round_mode", "up"))
    (x,) = inputs[:1]
    is_double = str(x.ty.dtype) == "float64"

    def code(value: Any) -> Any:
        if name in _LAST_BITS:
            return _last_bits(value, name)
        bits = _bits_of_double(value) if is_double else tirx.reinterpret("int32", value)
        if name == "float8_e8m0fnu":
            return _exponent(bits, saturate, mode).astype("uint8")
        return _nearest(bits, FORMATS[name], saturate).astype("uint8")

    def encode(data: Any) -> Any:
        return te.compute(data.shape, lambda *at: code(data[at]), name="encode")

    return builder.emit_te(encode, x, primfunc_name_hint="encode")


def _int(value: int) -> Any:
    return tirx.const(value, "int32")


def _last_bits(value: Any, name: str) -> Any:
    """The number, in a byte, that the last bits of an int32 are."""
    width = _LAST_BITS[name]
    low = tirx.bitwise_and(value, _int((1 << width) - 1))
    if name.startswith("uint"):
        return low.astype("uint8")
    half = 1 << (width - 1)
    return (tirx.bitwise_xor(low, _int(half)) - half).astype("int8")


def _bits_of_double(value: Any) -> Any:
    """The bits of a float64 as float32, rounded to odd: rounding those again is rounding once."""
    single = value.astype("float32")
    bits, back = tirx.reinterpret("int32", single), single.astype("float64")
    beyond = tirx.abs(back) > tirx.abs(value)
    truncated = tirx.Select(beyond, bits - 1, bits)
    inexact = tirx.all(back != value, tirx.bitwise_and(bits, _int(0x7FFFFFFF)) <= 0x7F800000)
    return tirx.Select(inexact, tirx.bitwise_or(truncated, _int(1)), bits)


def _nearest(bits: Any, format_: Format, saturate: bool) -> Any:
    """The code of the number of `format_` nearest to the float32 of these bits."""
    m, bias = format_.fraction, format_.bias
    shift = 23 - m
    sign = tirx.bitwise_and(tirx.shift_right(bits, _int(24 if format_.sign == 0x80 else 28)), _int(format_.sign))
    magnitude = tirx.bitwise_and(bits, _int(0x7FFFFFFF))
    is_nan = magnitude > 0x7F800000
    bounded = tirx.min(magnitude, _int(0x7F800000))
    odd = tirx.bitwise_and(tirx.shift_right(bounded, _int(shift)), _int(1))
    rounded = tirx.shift_right(bounded + ((1 << (shift - 1)) - 1) + odd, _int(shift))
    normal = rounded - ((127 - bias) << m)
    # Below the normal numbers, codes count steps of one size: adding 2^23 rounds to a whole one.
    steps = tirx.reinterpret("float32", bounded) * tirx.const(2.0 ** (bias - 1 + m), "float32")
    below = tirx.reinterpret("int32", steps + tirx.const(2.0**23, "float32")) - 0x4B000000
    code = tirx.Select(bounded < ((128 - bias) << 23), below, normal)
    code = tirx.Select(code > format_.largest, _int(format_.largest if saturate else format_.overflow), code)
    signed = tirx.bitwise_or(code, sign)
    if not format_.signed_zero:
        signed = tirx.Select(code == 0, _int(0), signed)
    nan = _int(format_.nan) if format_.sign == 0x8 else tirx.bitwise_or(_int(format_.nan), sign)
    return tirx.Select(is_nan, nan, signed)


def _exponent(bits: Any, saturate: bool, mode: str) -> Any:
    """The power of two above, below or nearest to the float32 of these bits, its sign aside, as a biased exponent."""
    exponent = tirx.bitwise_and(tirx.shift_right(bits, _int(23)), _int(0xFF))
    fraction = tirx.bitwise_and(bits, _int(0x7FFFFF))
    if mode == "nearest":
        up = tirx.all(fraction >= 0x400000, tirx.any(fraction > 0x400000, exponent > 0))
    else:
        up = fraction > (0 if mode == "up" else 0x7FFFFF)
    largest = 0xFD if saturate else 0xFE
    return tirx.Select(tirx.all(up, exponent <= largest), exponent + 1, exponent)
