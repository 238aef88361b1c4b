"""Constant, in each of its forms that holds numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax

__all__ = ["constant"]


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
