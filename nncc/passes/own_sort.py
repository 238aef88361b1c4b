"""Sorting operators call a C function of our runtime instead of TVM's, which would need TVM's runtime library.

    topk(x, k), sort(x), argsort(x)
        ->  <prefix>sort_<dtype>(x, values, indices, room, copy, outer, n, inner, k, descending)

The function is ``runtime/sort.c``; ties keep the order of their indices.
"""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import IRModule, relax, static_shape, te, tirx
from nncc.errors import InternalError
from nncc.ir import symbol_prefix
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["C_TYPES", "own_sort"]

C_TYPES = {
    "float32": "float", "float64": "double", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t",
    "int64": "int64_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
}  # fmt: skip
"""Element types that sort.c is made for, and their names in C."""


def own_sort(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.topk``, ``relax.sort`` and ``relax.argsort``."""

    def lines(rewriter: Rewriter, call: Any, axis: int, k: int | None, descending: bool) -> tuple[Any, Any]:
        x = rewriter.value(call.args[0])
        shape, dtype = static_shape(x), str(x.ty.dtype)
        if dtype not in C_TYPES:
            raise InternalError(f"specialize: {call.op.name} of {dtype} tensors, which sort.c is not made for")
        axis %= len(shape)
        count = shape[axis] if k is None else min(k, shape[axis])
        out = (*shape[:axis], count, *shape[axis + 1 :])
        inner = prod(shape[axis + 1 :])
        sizes = [prod(shape[:axis]), shape[axis], inner, count]
        copy = 1 if inner == 1 else shape[axis] + count

        def compute(data: te.Tensor) -> list[te.Tensor]:
            return te.extern(
                [out, out, (4 * max(1, count),), (copy,)],
                [data],
                lambda ins, outs: tirx.call_extern(
                    "int32",
                    f"{symbol_prefix(context.name)}sort_{dtype}",
                    ins[0].access_ptr("r"),
                    *(each.access_ptr("w") for each in outs),
                    *(tirx.const(size, "int64") for size in sizes),
                    tirx.const(int(descending), "int32"),
                ),
                dtype=[dtype, "int64", "int64", dtype],
                name="sort",
            )

        both = rewriter.builder.emit_te(compute, x, primfunc_name_hint="sort")
        return rewriter.builder.emit(both[0]), rewriter.builder.emit(both[1])

    def cast(rewriter: Rewriter, indices: Any, dtype: Any) -> Any:
        return indices if str(dtype) == "int64" else rewriter.builder.emit(relax.op.astype(indices, str(dtype)))

    def topk(rewriter: Rewriter, call: Any) -> Any:
        attrs = call.attrs
        values, indices = lines(
            rewriter, call, int(attrs.axis), int(attrs.k) if int(attrs.k) > 0 else None, bool(attrs.largest)
        )
        indices = cast(rewriter, indices, attrs.dtype)
        return {"both": relax.Tuple([values, indices]), "values": values, "indices": indices}[str(attrs.ret_type)]

    def sort(rewriter: Rewriter, call: Any) -> Any:
        return lines(rewriter, call, int(call.attrs.axis), None, bool(call.attrs.descending))[0]

    def argsort(rewriter: Rewriter, call: Any) -> Any:
        indices = lines(rewriter, call, int(call.attrs.axis), None, bool(call.attrs.descending))[1]
        return cast(rewriter, indices, call.attrs.dtype)

    return Rewriter({"relax.topk": topk, "relax.sort": sort, "relax.argsort": argsort}).rewrite(module)
