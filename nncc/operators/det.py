"""Det: the determinant, by Gaussian elimination with the largest pivot of each column.

det(A) = sign(P) prod_k U[k, k]      for P A = L U
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import loop_nest, relax, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.loops import loop, when
from nncc.operators.operands import accumulator, cast, dtype_of, kernel, shape_of

__all__ = ["det"]


def det(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Det of every opset: of [.., n, n], of the shape [..]."""
    (x,) = inputs
    shape, dtype = shape_of(x), dtype_of(x)
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 0:
        raise ModelError(f"its input of shape {shape} is no square matrix")
    n, count = shape[-1], prod(shape[:-2])
    inner = accumulator(dtype)
    matrices = builder.emit(relax.op.reshape(cast(builder, x, inner), (count, n, n)))

    def body(given: Any, made: Any) -> None:
        (a,), (result, rest, moved, pivot) = given, made
        with loop(count, count * n**3) as b:

            def place(i: Any, j: Any) -> Any:
                return (b * n + i) * n + j

            with loop(n * n) as i:
                rest[b * n * n + i] = a[b * n * n + i]
            result[b] = tirx.const(1, inner)
            with loop(n) as k:
                pivot[b] = k.astype("int32")
                with loop(n) as i:
                    larger = tirx.abs(rest[place(i, k)]) > tirx.abs(rest[place(pivot[b], k)])
                    with when(tirx.all(i > k, larger)):
                        pivot[b] = i.astype("int32")
                with when(pivot[b] != k):
                    result[b] = -result[b]
                    with loop(n) as j:
                        moved[b] = rest[place(k, j)]
                        rest[place(k, j)] = rest[place(pivot[b], j)]
                        rest[place(pivot[b], j)] = moved[b]
                result[b] = result[b] * rest[place(k, k)]
                regular = rest[place(k, k)] != tirx.const(0, inner)
                with loop(n) as i, loop(n) as j, when(tirx.all(regular, i > k, j > k)):
                    scaled = rest[place(i, k)] / rest[place(k, k)] * rest[place(k, j)]
                    rest[place(i, j)] = rest[place(i, j)] - scaled

    def eliminated(a: te.Tensor) -> list[te.Tensor]:
        working = [((count, n, n), inner), ((count,), inner), ((count,), "int32")]
        return loop_nest([((count,), inner), *working], [a], body, "det")

    result = kernel(builder, eliminated, matrices, name="det")[0]
    return cast(builder, builder.emit(relax.op.reshape(result, shape[:-2])), dtype)
