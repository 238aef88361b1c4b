"""Sums of integer products become the processor's instructions; see `nncc.kernels.dots`.

    acc + dot(x0 .. x3, w0 .. w3)  ->  vpdpbusd(acc, broadcast(x0 .. x3), w)     AVX-512 VNNI, AVX-VNNI
                                       sdot(acc, w, x.4b[i])                     Arm, dot product
                                       sadalp(acc, smlal(smull(x01, w01), x23, w23))     Arm; |w| <= 127
                                       sadalp(sadalp(acc, smull(x01, w01)), smull(x23, w23))     Arm; any w
    acc + dot(x0, x1, w0, w1)      ->  acc + vpmaddwd(broadcast(x0 x1), w)       x86

Values of a word lie side by side in memory, or all lanes' words as `Dot.place` says, which the pass checks; what does
not becomes plain arithmetic. Real numbers become bytes as the processor rounds and clips them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncc.compat import Analyzer, structural_map, tirx, tvm
from nncc.kernels.dots import BYTE, FENCE, FULL_PRODUCT, PRODUCT, ROUND, Dot

__all__ = ["integer_dots"]


_ARITHMETIC_FENCE = "llvm.arithmetic.fence"
"""What LLVM neither reassociates nor fuses across; no instruction."""


def integer_dots(*ways: Dot) -> Any:
    """The TIR pass for a processor with `ways` to multiply, each of words of another size, the first one beating others
    of the same; it comes when loops are vectors, unrolled, and buffers flat."""
    dots = {dot.size: dot for dot in reversed(ways)}

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.IntegerDots")
    def apply(function: Any, module: Any, context: Any) -> Any:
        target = function.attrs.get("target", None)
        triple = str(target.attrs.get("mtriple", target.kind.name)) if target is not None else ""
        widest = max((dot.lanes for dot in ways), default=0)
        rules = [
            (tirx.Add, lambda add: _accumulated(add, dots)),
            (tvm.ir.Call, lambda call: _alone(call, triple, widest)),
        ]
        return function.with_body(structural_map(function.body, rules))

    return apply


def _accumulated(add: Any, dots: dict[int, Dot]) -> Any:
    for acc, product in ((add.a, add.b), (add.b, add.a)):
        if _is(product, PRODUCT) or _is(product, FULL_PRODUCT):
            return _sum(acc, product, dots[len(product.args) // 2])
    return add


def _alone(call: Any, triple: str, widest: int) -> Any:
    """What is no sum, for a processor of `triple` that multiplies `widest` lanes at once."""
    if _is(call, BYTE):
        value, zero = call.args
        return _byte(value, zero, triple, widest)
    if _is(call, FENCE):
        is_cpu = triple and not triple.startswith("cuda")
        return _intrinsic(_vector("float32", _lanes(call)), _ARITHMETIC_FENCE, call.args[0]) if is_cpu else call.args[0]
    return _nearest(call.args[0], triple) if _is(call, ROUND) else call


def _is(expr: Any, name: str) -> bool:
    return isinstance(expr, tvm.ir.Call) and str(getattr(expr.op, "name", "")) == name


def _sum(acc: Any, product: Any, dot: Dot) -> Any:
    lanes = _lanes(product)
    xs, ws = product.args[: dot.size], product.args[dot.size :]
    instruction = (_FULL_INSTRUCTIONS if _is(product, FULL_PRODUCT) else _INSTRUCTIONS).get(dot.name)
    word, words, weights = _word(xs), _row(xs, dot, lanes), _row(ws, dot, lanes)
    known = weights is not None and (word is not None or words is not None)
    if instruction is None or not known or (lanes % dot.lanes and lanes not in (4, 8)):
        return acc + _arithmetic(product, dot)
    width = min(lanes, dot.lanes)
    count = 2 if dot.paired else dot.size
    parts = []
    for first in range(0, lanes, width):

        def row(load: Any, t: int, first: int = first) -> Any:
            """What a part's lanes have from value `t` of their words on; two values where they lie in pairs."""
            start = load.indices[0].base + dot.place(first, t, lanes)
            return load.source[tirx.Ramp(start, 1, width * count)]

        def values(t: int) -> Any:
            if word is None:
                return row(words, t)
            return _spread(word.source[tirx.Ramp(word.indices[0].base + t, 1, count)], width, dot)

        part = acc if lanes == width else _part(acc, first, width)
        parts.append(instruction(part, values, lambda t: row(weights, t), width))
    return parts[0] if len(parts) == 1 else tirx.Shuffle(parts, list(range(lanes)))


def _lanes(expr: Any) -> int:
    return int(tvm.DataType(str(expr.ty.dtype)).lanes)


def _part(vector: Any, first: int, width: int) -> Any:
    """Lanes of a vector; a load loads only those."""
    if isinstance(vector, tvm.ir.TensorLoad) and isinstance(vector.indices[0], tirx.Ramp):
        return vector.source[tirx.Ramp(vector.indices[0].base + first, 1, width)]
    return tirx.Shuffle([vector], list(range(first, first + width)))


def _word(xs: Any) -> Any:
    """The values of a word, which every lane has, as a load of them all; None where they do not lie side by side."""
    loads = [x.value if isinstance(x, tirx.Broadcast) else x for x in xs]
    first = loads[0]
    if not all(isinstance(load, tvm.ir.TensorLoad) and load.source.same_as(first.source) for load in loads):
        return None
    base = first.indices[0]
    if any(isinstance(load.indices[0], tirx.Ramp) for load in loads):
        return None
    for t, load in enumerate(loads):
        if _constant(load.indices[0] - base) != t:
            return None
    return first.source[tirx.Ramp(base, 1, len(loads))]


def _row(values: Any, dot: Dot, lanes: int) -> Any:
    """The first of loads that take what each lane has of its own; None where it does not lie as `Dot.place` says."""
    first = values[0]
    if not all(isinstance(load, tvm.ir.TensorLoad) and load.source.same_as(first.source) for load in values):
        return None
    step = 2 if dot.paired else dot.size
    base = None
    for t, load in enumerate(values):
        index = load.indices[0]
        if not isinstance(index, tirx.Ramp):
            return None
        base = index.base if base is None else base
        if int(index.stride) != step or _constant(index.base - base) != dot.place(0, t, lanes):
            return None
    return first


def _constant(expr: Any) -> int | None:
    value = Analyzer().simplify(expr)
    return int(value) if isinstance(value, tirx.IntImm) else None


def _arithmetic(product: Any, dot: Dot) -> Any:
    lanes = _lanes(product)
    dtype = f"int32x{lanes}" if lanes > 1 else "int32"
    terms = [
        tirx.Cast(dtype, x) * tirx.Cast(dtype, w)
        for x, w in zip(product.args[: dot.size], product.args[dot.size :], strict=True)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _intrinsic(dtype: str, name: str, *args: Any) -> Any:
    return tirx.call_llvm_pure_intrin(dtype, name, *args)


def _spread(word: Any, lanes: int, dot: Dot) -> Any:
    """16 or 32 bits of a word in every lane, as a vector of its values; out of a register where they are in one."""
    count = _lanes(word)
    bits = tvm.DataType(str(word.ty.dtype)).bits * count
    dtype = f"{dot.data}x{lanes * count}"
    base, (size, *_) = word.indices[0].base, word.source.shape
    if isinstance(base, tirx.IntImm) and int(size) * bits // count == 128 and lanes <= 128 // bits:
        register = tirx.reinterpret(f"int{bits}x{128 // bits}", word.source[tirx.Ramp(0, 1, int(size))])
        return tirx.reinterpret(dtype, tirx.Shuffle([register], [int(base) // count] * lanes))
    return tirx.reinterpret(dtype, tirx.Broadcast(tirx.reinterpret(f"int{bits}", word), lanes))


# Rounding


def _vector(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def _nearest(value: Any, triple: str) -> Any:
    way = next((way for start, way in _NEAREST.items() if triple.startswith(start)), _lrint)
    return way(value, _lanes(value))


def _byte(value: Any, zero: Any, triple: str, widest: int) -> Any:
    """clip(round(x) + z) as uint8. On x86, what is out of range becomes -2^31 when it is rounded: where 16 lanes are
    stored as bytes, that is one of the largest numbers without a sign, and vpmovusdb clips it to 255 as it does the
    others, so that x is kept from below only; elsewhere vpackssdw and vpackuswb clip it to 0, and x is kept from above.
    """
    lanes = _lanes(value)
    least, most = (tirx.Cast(_vector("float32", lanes), _like(bound, zero) - zero) for bound in (0, 255))
    if lanes % 4 or not triple.startswith("x86_64"):
        clipped = tirx.Min(tirx.Max(value, least), most)
        return tirx.Cast(_vector("uint8", lanes), _nearest(clipped, triple) + zero)
    if widest >= 16:
        whole = tirx.Cast(_vector("uint32", lanes), _lrint(tirx.Max(value, least), lanes) + zero)
        return tirx.Cast(_vector("uint8", lanes), tirx.Min(whole, _like(255, whole)))
    whole = _lrint(tirx.Select(most < value, most, value), lanes) + zero  # NaN stays what it is
    return tirx.Cast(_vector("uint8", lanes), tirx.Max(tirx.Min(whole, _like(255, whole)), _like(0, whole)))


def _like(number: int, vector: Any) -> Any:
    """A constant of a vector's type."""
    constant = tirx.const(number, str(vector.ty.dtype).partition("x")[0])
    return tirx.Broadcast(constant, _lanes(vector)) if _lanes(vector) > 1 else constant


def _lrint(value: Any, lanes: int) -> Any:
    """One instruction on x86 (cvtps2dq) and RISC-V, as their rounding mode says: to even."""
    return _intrinsic(_vector("int32", lanes), "llvm.lrint", value)


def _biased(value: Any, lanes: int) -> Any:
    """For |x| < 2^22, which those have that are clamped to a few bits: units of 1.5 * 2^23 + x are ones. The low bytes
    of that are x already. One fadd on Arm, where LLVM makes frintx and fcvtzs of lrint; even fcvtns alone would take
    four times as long on a Cortex-A76. 32-bit Arm has no conversion that rounds, but a function of libm."""
    dtype, bias = _vector("int32", lanes), _BIAS
    real, whole = tirx.const(bias, "float32"), tirx.const(int(np.float32(bias).view(np.int32)), "int32")
    if lanes > 1:
        real, whole = tirx.Broadcast(real, lanes), tirx.Broadcast(whole, lanes)
    return tirx.reinterpret(dtype, value + real) - whole


_BIAS = 12582912.0
_NEAREST = {"cuda": _biased, "aarch64": _biased, "arm": _biased, "thumb": _biased}
"""By the start of LLVM's triple; GPUs convert a quarter, or less, of what they add."""


Values = Callable[[int], Any]
"""Of value t of a word, and those that lie beside it, for every lane."""


def _vpdpbusd(acc: Any, data: Values, weight: Values, lanes: int) -> Any:
    return _intrinsic(f"int32x{lanes}", f"llvm.x86.avx512.vpdpbusd.{lanes * 32}", acc, data(0), weight(0))


def _vpdpwssd(acc: Any, data: Values, weight: Values, lanes: int) -> Any:
    return _intrinsic(f"int32x{lanes}", f"llvm.x86.avx512.vpdpwssd.{lanes * 32}", acc, data(0), weight(0))


def _vpmaddwd(acc: Any, data: Values, weight: Values, lanes: int) -> Any:
    name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
    return _in_order(_wrapping_sum(acc, _intrinsic(f"int32x{lanes}", name, data(0), weight(0))))


def _sdot(acc: Any, data: Values, weight: Values, lanes: int) -> Any:
    return _intrinsic("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, weight(0), data(0))


def _smull(acc: Any, data: Values, weight: Values, lanes: int) -> Any:
    """Two products of int8, |w| <= 127, add up in int16 to at most 2 * 128 * 127 < 2^15."""
    first, second = (_intrinsic("int16x8", "llvm.aarch64.neon.smull.v8i16", data(t), weight(t)) for t in (0, 2))
    return _in_order(acc + _intrinsic("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", first + second))


def _smull_alone(acc: Any, data: Values, weight: Values, lanes: int) -> Any:
    """One product of int8 always fits int16."""
    for t in (0, 2):
        product = _intrinsic("int16x8", "llvm.aarch64.neon.smull.v8i16", data(t), weight(t))
        acc = _in_order(acc + _intrinsic("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", product))
    return acc


def _wrapping_sum(a: Any, b: Any) -> Any:
    """Modulo 2^32, as Winograd's products need it: of signed integers, LLVM may take it that no sum overflows."""
    dtype = str(a.ty.dtype)
    unsigned = f"u{dtype}"
    return tirx.reinterpret(dtype, tirx.reinterpret(unsigned, a) + tirx.reinterpret(unsigned, b))


def _in_order(total: Any) -> Any:
    """A sum, which LLVM is kept from reassociating: it would move all additions of a chain behind the last product, and
    hold all of those until then, most of them on the stack. The fence is no instruction; it is one for floats."""
    dtype = str(total.ty.dtype)
    real = dtype.replace("int", "float")
    return tirx.reinterpret(dtype, _intrinsic(real, _ARITHMETIC_FENCE, tirx.reinterpret(real, total)))


_INSTRUCTIONS: dict[str, Callable[[Any, Values, Values, int], Any]] = {
    "vnni512": _vpdpbusd,
    "vnni256": _vpdpbusd,
    "avxvnni": _vpdpbusd,
    "pmaddwd": _vpmaddwd,
    "vpdpwssd": _vpdpwssd,
    "sdot": _sdot,
    "smull": _smull,
}
_FULL_INSTRUCTIONS = _INSTRUCTIONS | {"smull": _smull_alone}
