"""What moves between TVM releases, imported from here only (checked against 0.27).

Importing this module imports TVM, which takes seconds: only the target half does so, inside its functions.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, s_tir, te, tirx, topi
from tvm.ir import GenericConst, GlobalVar, IRModule, PointerType, PrimType, StringImm
from tvm.relax.frontend.onnx import from_onnx, onnx_frontend
from tvm.s_tir import Schedule
from tvm_ffi.structural import structural_map, structural_walk

__all__ = [
    "GenericConst",
    "GlobalVar",
    "IRModule",
    "PointerType",
    "PrimType",
    "Schedule",
    "StringImm",
    "constant_array",
    "from_onnx",
    "importable_operators",
    "is_buffer",
    "relax",
    "s_tir",
    "static_shape",
    "structural_map",
    "structural_walk",
    "te",
    "tirx",
    "topi",
    "tvm",
]


def is_buffer(parameter: Any) -> bool:
    """Whether a TIR function's parameter is a buffer; 0.27 has no buffer_map, a parameter's type tells."""
    return type(parameter.ty).__name__ == "BufferType"


def static_shape(expr: Any) -> tuple[int, ...]:
    """The shape of a Relax expression whose every dimension is known."""
    return tuple(int(d) for d in expr.ty.shape)


def constant_array(expr: Any) -> Any:
    """The numpy array of a Relax constant."""
    return expr.value.numpy()


def importable_operators() -> dict[str, set[str]]:
    """By domain, the ONNX operators that TVM's importer takes; it looks at names only."""
    names = set(onnx_frontend._get_convert_map())
    contributed = {"BiasGelu", "EmbedLayerNormalization", "FastGelu", "SkipLayerNormalization"}
    return {"": names - contributed, "com.microsoft": names & contributed}
