"""Values of an ONNX graph as TensorSpecs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.ir import TensorSpec
from nncc.passes.rewriting import static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["CUT", "dtype_of", "specs"]

CUT = "cut the model before it: for a detector, before its non-maximum suppression"
"""What to do about outputs whose shape the data decide."""


def specs(values: Sequence[onnx_ir.Value], what: str, hint: str | None = CUT) -> tuple[TensorSpec, ...]:
    """A TensorSpec for each value; `what` ("input", "output") names them in errors, `hint` says what to do."""
    found = []
    for value in values:
        dtype = dtype_of(value, what)
        shape = static_shape(value)
        if shape is None:
            raise ModelError(
                f"the shape of {what} `{value.name}` depends on the data, not only on the shapes of the inputs",
                hint,
            )
        found.append(TensorSpec(str(value.name), dtype, shape))
    return tuple(found)


def dtype_of(value: onnx_ir.Value, what: str) -> str:
    """The name of its numpy dtype; ModelError where it is no tensor of numbers, of which `what` says what it is."""
    import onnx_ir

    if not isinstance(value.type, onnx_ir.TensorType) and value.type is not None:
        kind = type(value.type).__name__.removesuffix("Type").lower()
        raise ModelError(f"{what} `{value.name}` is a {kind}, not a tensor", "nncc takes and gives tensors only")
    if value.dtype is None or value.dtype == onnx_ir.DataType.UNDEFINED:
        raise ModelError(f"{what} `{value.name}` has no data type", "export the model again: the file is incomplete")
    if value.dtype == onnx_ir.DataType.STRING:
        raise ModelError(f"{what} `{value.name}` holds strings", "cut the model after its text processing")
    return value.dtype.numpy().name
