"""BitCast: the same bits as another type of the same width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir

from nncc.compat import te, tirx, tvm

__all__ = ["bit_cast"]


def bit_cast(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y[i] = the number that the bits of x[i] are in the type `to`, whose width is that of x."""
    (x,) = inputs[:1]
    to = onnx_ir.DataType(int(attributes["to"])).numpy().name
    if tvm.DataType(str(x.ty.dtype)).bits != tvm.DataType(to).bits or "bool" in (to, str(x.ty.dtype)):
        raise ValueError(f"BitCast from {x.ty.dtype} to {to}, which has another width")

    def cast(data: Any) -> Any:
        return te.compute(data.shape, lambda *at: tirx.reinterpret(to, data[at]), name="bit_cast")

    return x if to == str(x.ty.dtype) else builder.emit_te(cast, x, primfunc_name_hint="bit_cast")
