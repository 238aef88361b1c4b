"""Max, Min, Sum and Mean of any number of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncc.compat import relax

__all__ = ["VARIADIC"]


def _variadic(combine: Any, mean: bool = False) -> Callable[[Any, Sequence[Any], dict[str, Any]], Any]:
    def converter(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
        """x1, x2, ... combined elementwise, broadcast; the mean is the sum divided by how many there are."""
        result = inputs[0]
        for x in inputs[1:]:
            result = builder.emit(combine(result, x))
        return relax.op.divide(result, relax.const(len(inputs), str(result.ty.dtype))) if mean else result

    return converter


VARIADIC = {
    "Max": _variadic(relax.op.maximum),
    "Mean": _variadic(relax.op.add, mean=True),
    "Min": _variadic(relax.op.minimum),
    "Sum": _variadic(relax.op.add),
}
"""By operator."""
