"""ONNX operators that are imported by us and not by TVM's importer: its form is wrong, slow, or missing.

A converter takes (block builder, inputs, attributes) and returns a Relax expression; an input that is left out is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax

__all__ = ["CONVERTERS"]


def clip(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """min(max(x, low), high), elementwise; a bound that is NaN or left out does not bound.

    TVM's makes four operators of it, which nothing is fused with.
    """
    x, *bounds = inputs
    bounds = [*bounds, None, None][:2]
    for i, name in enumerate(("min", "max")):
        if name in attributes:  # before opset 11
            bounds[i] = relax.const(attributes[name], str(x.ty.dtype))
    result = x
    for bound, apply, is_max in zip(bounds, (relax.op.maximum, relax.op.minimum), (False, True), strict=True):
        if bound is None:
            continue
        if isinstance(bound, GenericConst):
            if np.isnan(constant_array(bound)).any():
                continue
            bound = relax.const(constant_array(bound).reshape(()), str(x.ty.dtype))
        elif "float" in str(x.ty.dtype):
            unbounded = relax.const(np.inf if is_max else -np.inf, str(x.ty.dtype))
            bound = builder.emit(relax.op.where(relax.op.isnan(bound), unbounded, bound))
        result = builder.emit(apply(result, bound))
    return result


CONVERTERS: dict[str, Callable[[Any, Sequence[Any], dict[str, Any]], Any]] = {
    "Clip": clip,
}
"""By operator of the standard domain."""
