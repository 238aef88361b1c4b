"""BitCast: the same bits as another type of the same width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir

from nncc.compat import relax, te, tirx, tvm

__all__ = ["bit_cast"]


def bit_cast(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y[i] = the number that the bits of x[i] are in the type `to`, whose width is that of x.

    Booleans are bytes that are 0 or 1; any other byte counts as 1.
    """
    (x,) = inputs[:1]
    to = onnx_ir.DataType(int(attributes["to"])).numpy().name
    widths = [8 if dtype == "bool" else tvm.DataType(dtype).bits for dtype in (str(x.ty.dtype), to)]
    if widths[0] != widths[1]:
        raise ValueError(f"BitCast from {x.ty.dtype} to {to}, which has another width")
    if to != str(x.ty.dtype) and "bool" in (to, str(x.ty.dtype)):
        return relax.op.astype(x, to)

    def cast(data: Any) -> Any:
        return te.compute(data.shape, lambda *at: tirx.reinterpret(to, data[at]), name="bit_cast")

    return x if to == str(x.ty.dtype) else builder.emit_te(cast, x, primfunc_name_hint="bit_cast")
