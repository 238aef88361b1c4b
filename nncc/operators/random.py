"""Random numbers, the same in every run: element i of a node is made of Philox4x32-10 with counter i.

    words = Philox4x32-10(counter = (i, i / 2^32, 0, 0), key)
    uniform = top bits of a word, as a fraction of 1      normal = sqrt(-2 ln(1 - u)) cos(2 pi v)

The key is the `seed` of the node, a float32, as bits, and 0. `nncc.passes.explicit_defaults` gives one to a node that
has none: two nodes then give different numbers, and a model the same ones whenever it is compiled or run. Source:
Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from nncc.compat import loop_nest, relax, statements, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.cumulative import scanned
from nncc.operators.loops import loop
from nncc.operators.operands import cast, dtype_of, kernel, shape_of

__all__ = ["bernoulli", "multinomial", "random_normal", "random_uniform"]

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
"""By ONNX's number of a type."""
_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
"""Of a fraction of 1: no more than a number of the dtype holds, else what is next to 1 would be rounded to it."""
_LARGEST = 1 << 31


def random_uniform(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """RandomUniform, and RandomUniformLike, of the shape of its input."""
    low, high = float(attributes.get("low", 0.0)), float(attributes.get("high", 1.0))
    shape, dtype = _asked(inputs, attributes)
    drawn = _drawn(builder, shape, _wide(dtype), _BITS[dtype], attributes, lambda u, v: u * (high - low) + low)
    return cast(builder, drawn, dtype)


def random_normal(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """RandomNormal, and RandomNormalLike, of the shape of its input: by Box and Muller."""
    mean, scale = float(attributes.get("mean", 0.0)), float(attributes.get("scale", 1.0))
    shape, dtype = _asked(inputs, attributes)

    def normal(u: Any, v: Any) -> Any:
        return tirx.sqrt(tirx.log(1 - u) * -2) * tirx.cos(v * (2 * np.pi)) * scale + mean

    wide = _wide(dtype)
    return cast(builder, _drawn(builder, shape, wide, _BITS[wide], attributes, normal), dtype)


def bernoulli(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Bernoulli: 1 with the probability that the input says, else 0."""
    (x,) = inputs
    wide = _wide(dtype_of(x))
    drawn = _drawn(builder, shape_of(x), wide, _BITS[wide], attributes, lambda u, v: u)
    less = builder.emit(relax.op.less(drawn, cast(builder, x, wide)))
    return cast(builder, less, _dtype(attributes, dtype_of(x)))


def multinomial(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Multinomial: sample_size classes for each row of unnormalized logarithms of probabilities."""
    (x,) = inputs
    (rows, classes), samples = shape_of(x), int(attributes.get("sample_size", 1))
    dtype = _dtype(attributes, "int32")
    if dtype not in ("int32", "int64") or samples < 1 or classes < 1:
        raise ModelError(f"it draws {samples} samples of {classes} classes as {dtype}")
    if classes == 1:
        return relax.op.zeros((rows, samples), dtype)
    wide = _wide(dtype_of(x))
    logarithms = cast(builder, x, wide)
    above = builder.emit(relax.op.subtract(logarithms, builder.emit(relax.op.max(logarithms, [1], keepdims=True))))
    weights = builder.emit(relax.op.exp(above))
    sums = kernel(builder, scanned((rows, classes), wide, 1, lambda a, b: a + b, 0), weights, name="scan")
    drawn = _drawn(builder, [rows, samples], wide, _BITS[wide], attributes, lambda u, v: u)

    def counted(cumulative: te.Tensor, u: te.Tensor) -> te.Tensor:
        c = te.reduce_axis((0, classes - 1), name="c")

        def element(b: Any, s: Any) -> Any:
            passed = cumulative(b, c) <= u(b, s) * cumulative(b, classes - 1)
            return te.sum(passed.astype(dtype), axis=c)

        return te.compute((rows, samples), element, name="multinomial")

    return kernel(builder, counted, sums, drawn, name="multinomial")


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _dtype(attributes: Attributes, default: str) -> str:
    number = int(attributes.get("dtype", 0))
    if number and number not in _DTYPES:
        raise ModelError(f"its dtype, ONNX's number {number}, is none that it can have")
    return _DTYPES[number] if number else default


def _asked(inputs: Sequence[Any], attributes: Attributes) -> tuple[list[int], str]:
    """The shape and the dtype of the result."""
    shape = shape_of(inputs[0]) if inputs else attributes.ints("shape", ())
    dtype = _dtype(attributes, dtype_of(inputs[0]) if inputs else "float32")
    if min([*shape, 1]) < 0 or prod(shape) >= _LARGEST or dtype not in _BITS:
        raise ModelError(f"it makes random numbers of {dtype}, of the shape {shape}")
    return shape, dtype


def _drawn(
    builder: Any,
    shape: Sequence[int],
    dtype: str,
    bits: int,
    attributes: Attributes,
    value: Callable[[Any, Any], Any],
) -> Any:
    """A tensor whose elements are `value` of two fractions of 1 each, of so many bits, in float32 or float64."""
    seed = np.float32(attributes.get("seed", 0.0))
    key, size = (int(seed.view(np.uint32)), 0), prod(shape)

    def fraction(low: Any, high: Any) -> Any:
        if bits <= 32:
            return (high >> (32 - bits)).astype(dtype) * tirx.const(2.0**-bits, dtype)
        word = (high.astype("uint64") << 32) | low.astype("uint64")
        return (word >> (64 - bits)).astype(dtype) * tirx.const(2.0**-bits, dtype)

    def body(given: Any, made: Any) -> None:
        (y,) = made
        with loop(size, 16 * size) as i:
            words = _philox(i, key)
            y[i] = value(fraction(*words[:2]), fraction(*words[2:]))

    return kernel(builder, lambda: loop_nest([(shape, dtype)], [], body, "random"), name="random", opaque=True)


_MULTIPLIERS, _WEYL, _ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10


def _philox(index: Any, key: tuple[int, int]) -> list[Any]:
    """The four words of Philox4x32-10 for the counter (index, index / 2^32, 0, 0)."""
    wide = index.astype("uint64")
    words = [wide.astype("uint32"), (wide >> 32).astype("uint32"), *[tirx.const(0, "uint32")] * 2]
    for turn in range(_ROUNDS):
        keys = [tirx.const((k + turn * w) & 0xFFFFFFFF, "uint32") for k, w in zip(key, _WEYL, strict=True)]
        first, second = (
            statements.bind(words[at].astype("uint64") * tirx.const(m, "uint64"))
            for at, m in zip((0, 2), _MULTIPLIERS, strict=True)
        )
        words = [
            (second >> 32).astype("uint32") ^ words[1] ^ keys[0],
            second.astype("uint32"),
            (first >> 32).astype("uint32") ^ words[3] ^ keys[1],
            first.astype("uint32"),
        ]
    return words
