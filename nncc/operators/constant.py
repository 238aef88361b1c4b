"""Constant, in each of its forms that holds numbers, and ConstantOfShape, which holds but one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax

__all__ = ["constant", "constant_of_shape"]


_FORMS = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
"""Attributes beside `value`, and what their numbers are."""


def constant(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """The tensor in `value`, or the numbers in `value_float`, `value_floats`, `value_int`, `value_ints`."""
    import onnx

    for name, dtype in _FORMS.items():
        if name in attributes:
            return relax.const(np.array(attributes[name], dtype), dtype)
    value = attributes.get("value")
    if not isinstance(value, onnx.TensorProto) or value.data_type == onnx.TensorProto.STRING:
        raise ValueError("a Constant that is no dense tensor of numbers")
    array = np.ascontiguousarray(onnx.numpy_helper.to_array(value)).reshape(tuple(value.dims))
    return relax.const(array, array.dtype.name)


def constant_of_shape(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """One number, of a shape that is known: written at run time, since the file may ask for any amount of memory."""
    import onnx

    if not isinstance(inputs[0], GenericConst):
        return None
    value = attributes.get("value")
    number = np.zeros((), np.float32) if value is None else onnx.numpy_helper.to_array(value).reshape(())
    dtype = number.dtype.name
    return relax.op.full([int(n) for n in constant_array(inputs[0])], relax.const(number, dtype), dtype)
