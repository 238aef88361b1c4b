"""DFT and STFT as matrix products.

    X[k] = sum_n x[n] exp(-2 pi i n k / N)      as one real matrix [N * parts, K * parts]

A long one is split, N = A B: transforms of B and of A elements, and a factor for each element between them (Cooley and
Tukey); one of a prime length is a convolution, by transforms of a power of two (Bluestein).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np

from nncc.compat import relax
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import axis_within, cast, dtype_of, required, shape_of

__all__ = ["dft", "stft"]

_DIRECT = 128
"""The length up to which a complex transform is one product: its matrix then has 256 KiB in float32."""
_LONGEST = 1 << 24


def dft(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """DFT of opset 17, whose axis is an attribute, and of opset 20, where it is an input."""
    x, length, given = [*inputs, None, None][:3]
    rank = len(shape_of(x))
    if attributes.opset >= 20:
        at = -2 if given is None else int(required(given, "axis").reshape(()))
    else:
        at = int(attributes.get("axis", 1))
    axis = axis_within(at, rank)
    if axis == rank - 1:
        raise ModelError("its axis is that of the real and imaginary parts")
    inverse, onesided = (bool(attributes.get(word, 0)) for word in ("inverse", "onesided"))
    size = shape_of(x)[axis]
    if length is not None:
        n = int(required(length, "dft_length").reshape(()))
    else:
        n = 2 * (size - 1) if inverse and onesided else size
    _check(n, size)
    dtype = dtype_of(x)
    lined = _last(builder, cast(builder, x, _wide(dtype)), axis)
    made = _transformed(builder, lined, n, inverse, onesided)
    return cast(builder, _back(builder, made, axis), dtype)


def stft(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """STFT: frames of a signal [batch, length, parts], each times the window, transformed."""
    signal, step, window, length = [*inputs, None, None][:4]
    _, size, parts = shape_of(signal)
    hop = int(required(step, "frame_step").reshape(()))
    if length is not None:
        n = int(required(length, "frame_length").reshape(()))
    else:
        n = size if window is None else shape_of(window)[0]
    if window is not None and shape_of(window) != [n]:
        raise ModelError(f"its window of shape {shape_of(window)} does not fit frames of {n} elements")
    onesided = bool(attributes.get("onesided", 1))
    if hop < 1 or not 1 <= n <= size or (onesided and parts == 2):
        raise ModelError(f"its frames of {n} elements, every {hop}, do not fit a signal of shape {shape_of(signal)}")
    dtype = dtype_of(signal)
    wide = cast(builder, signal, _wide(dtype))
    frames = np.arange((size - n) // hop + 1)[:, None] * hop + np.arange(n)[None]
    framed = builder.emit(relax.op.take(wide, relax.const(frames.astype(np.int64), "int64"), 1))
    if window is not None:
        factor = builder.emit(relax.op.reshape(cast(builder, window, _wide(dtype)), (n, 1)))
        framed = builder.emit(relax.op.multiply(framed, factor))
    return cast(builder, _transformed(builder, framed, n, False, onesided), dtype)


def _check(n: int, size: int) -> None:
    if not 1 <= n <= _LONGEST or size < 1:
        raise ModelError(f"a transform of {n:,} elements of an axis of {size:,}, of at most {_LONGEST:,}")


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _last(builder: Any, x: Any, axis: int) -> Any:
    """The axis moved to where the parts are behind it."""
    rank = len(shape_of(x))
    order = [*(d for d in range(rank - 1) if d != axis), axis, rank - 1]
    return x if order == list(range(rank)) else builder.emit(relax.op.permute_dims(x, order))


def _back(builder: Any, x: Any, axis: int) -> Any:
    rank = len(shape_of(x))
    order = list(range(rank - 2))
    order.insert(axis, rank - 2)
    order.append(rank - 1)
    return x if order == list(range(rank)) else builder.emit(relax.op.permute_dims(x, order))


def _transformed(builder: Any, x: Any, n: int, inverse: bool, onesided: bool) -> Any:
    """The transform of [.., N, parts] to [.., K, parts], scaled by 1 / n if it is inverse; zeros where x is shorter."""
    *outer, size, parts = shape_of(x)
    if parts not in (1, 2):
        raise ModelError(f"its last axis has {parts} elements, not a real and an imaginary part")
    wanted = n // 2 + 1 if onesided and inverse else n
    if size > wanted:
        x = builder.emit(relax.op.strided_slice(x, [len(outer)], [0], [wanted]))
        size = wanted
    sign = 1 if inverse else -1
    if n <= _DIRECT:
        return _product(builder, x, _matrix(n, size, sign, parts, inverse, onesided), 1 if inverse and onesided else 2)
    if inverse and onesided:
        x = _mirrored(builder, _complete(builder, x, n // 2 + 1), n)
        full = _complex(builder, x, n, sign)
        real = builder.emit(relax.op.strided_slice(full, [len(outer) + 1], [0], [1]))
        return _scaled(builder, real, 1 / n)
    full = _complex(builder, _complete(builder, x, n), n, sign)
    if onesided:
        full = builder.emit(relax.op.strided_slice(full, [len(outer)], [0], [n // 2 + 1]))
    return _scaled(builder, full, 1 / n) if inverse else full


def _matrix(n: int, size: int, sign: int, parts: int, inverse: bool, onesided: bool) -> np.ndarray:
    """[size * parts, results * their parts]: what a row of interleaved numbers is multiplied by."""
    results = n if inverse or not onesided else n // 2 + 1
    w = _roots(n, np.outer(np.arange(size), np.arange(results)), sign)
    if inverse:
        w = w / n
        if onesided:  # each but the first, and that of half the frequency, stands for its mirror image too
            twice = np.full(size, 2.0)
            twice[0] = 1
            if n % 2 == 0 and size == n // 2 + 1:
                twice[-1] = 1
            w = w * twice[:, None]
    block = np.stack([np.stack([w.real, w.imag], -1), np.stack([-w.imag, w.real], -1)], 1)
    block = block[:, :parts, :, : 1 if inverse and onesided else 2]
    return block.reshape(size * parts, -1)


def _roots(n: int, exponents: np.ndarray, sign: int) -> np.ndarray:
    """exp(sign 2 pi i exponents / n), of exponents that are first taken modulo n, which costs no digits."""
    return np.exp(sign * 2j * np.pi * (exponents.astype(np.int64) % n) / n)


def _product(builder: Any, x: Any, matrix: np.ndarray, made_parts: int = 2) -> Any:
    """[.., N, parts] times a matrix on its last two axes, as one: [.., K, made_parts]."""
    *outer, size, parts = shape_of(x)
    dtype = dtype_of(x)
    rows = builder.emit(relax.op.reshape(x, (int(np.prod(outer)), size * parts)))
    made = builder.emit(relax.op.matmul(rows, relax.const(matrix.astype(dtype), dtype)))
    return builder.emit(relax.op.reshape(made, (*outer, matrix.shape[1] // made_parts, made_parts)))


def _complete(builder: Any, x: Any, size: int) -> Any:
    """[.., size, 2]: zeros behind what there is, and an imaginary part."""
    *outer, length, parts = shape_of(x)
    if length == size and parts == 2:
        return x
    widths = [0] * (2 * len(outer)) + [0, size - length, 0, 2 - parts]
    return builder.emit(relax.op.nn.pad(x, widths, "constant", 0.0))


def _mirrored(builder: Any, x: Any, n: int) -> Any:
    """The spectrum of a real signal, of which x [.., n / 2 + 1, 2] is the first half."""
    axis, dtype = len(shape_of(x)) - 2, dtype_of(x)
    at = np.arange(n)
    source = np.where(at <= n // 2, at, n - at)
    sign = np.ones((n, 2))
    sign[at > n // 2, 1] = -1
    sign[0, 1] = 0  # those of a real signal are real
    if n % 2 == 0:
        sign[n // 2, 1] = 0
    whole = builder.emit(relax.op.take(x, relax.const(source.astype(np.int64), "int64"), axis))
    return builder.emit(relax.op.multiply(whole, relax.const(sign.astype(dtype), dtype)))


def _scaled(builder: Any, x: Any, factor: float) -> Any:
    return builder.emit(relax.op.multiply(x, relax.const(factor, dtype_of(x))))


def _complex(builder: Any, x: Any, n: int, sign: int) -> Any:
    """The unscaled transform of [.., n, 2]."""
    if n <= _DIRECT:
        return _product(builder, x, _matrix(n, n, sign, 2, False, False))
    a = next((d for d in range(min(isqrt(n), _DIRECT), 1, -1) if n % d == 0), 1)
    return _by_convolution(builder, x, n, sign) if a == 1 else _split(builder, x, a, n // a, sign)


def _split(builder: Any, x: Any, a: int, b: int, sign: int) -> Any:
    """X[p + a q] = sum_s (w_n^(s p) sum_r x[b r + s] w_a^(r p)) w_b^(s q)."""
    *outer, n, _ = shape_of(x)
    m = int(np.prod(outer))
    columns = builder.emit(relax.op.permute_dims(builder.emit(relax.op.reshape(x, (m, a, b, 2))), [0, 2, 1, 3]))
    short = _complex(builder, columns, a, sign)  # [m, s, p, 2]
    turned = _times(builder, short, _roots(n, np.outer(np.arange(b), np.arange(a)), sign))
    rows = builder.emit(relax.op.permute_dims(turned, [0, 2, 1, 3]))  # [m, p, s, 2]
    long = _complex(builder, rows, b, sign)  # [m, p, q, 2]
    ordered = builder.emit(relax.op.permute_dims(long, [0, 2, 1, 3]))
    return builder.emit(relax.op.reshape(ordered, (*outer, n, 2)))


def _times(builder: Any, x: Any, factor: np.ndarray) -> Any:
    """x [.., 2] times constant complex numbers of the shape of x's last axes but one: x re(f) + swap(x) (-im, im)."""
    dtype, axis = dtype_of(x), len(shape_of(x)) - 1
    real = np.stack([factor.real, factor.real], -1).astype(dtype)
    imaginary = np.stack([-factor.imag, factor.imag], -1).astype(dtype)
    swapped = builder.emit(relax.op.take(x, relax.const([1, 0], "int64"), axis))
    first = builder.emit(relax.op.multiply(x, relax.const(real, dtype)))
    second = builder.emit(relax.op.multiply(swapped, relax.const(imaginary, dtype)))
    return builder.emit(relax.op.add(first, second))


def _by_convolution(builder: Any, x: Any, n: int, sign: int) -> Any:
    """X[k] = w^(k^2/2) sum_j (x[j] w^(j^2/2)) w^(-(k-j)^2/2), the sum by transforms of m >= 2 n - 1 elements."""
    axis = len(shape_of(x)) - 2
    m = 1 << (2 * n - 2).bit_length()
    squares = np.arange(n, dtype=np.int64) ** 2 % (2 * n)
    chirp = np.exp(sign * 1j * np.pi * squares / n)
    filter_ = np.zeros(m, complex)
    filter_[:n] = chirp.conj()
    filter_[m - n + 1 :] = chirp[1:][::-1].conj()
    padded = _complete(builder, _times(builder, x, chirp), m)
    spectrum = _times(builder, _complex(builder, padded, m, -1), np.fft.fft(filter_) / m)
    convolved = _complex(builder, spectrum, m, 1)
    return _times(builder, builder.emit(relax.op.strided_slice(convolved, [axis], [0], [n])), chirp)
