"""Equal; of booleans by what TVM has for them: LLVM has no comparison of two that are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax
from nncc.operators.operands import dtype_of

__all__ = ["equal"]


def equal(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """a = b, elementwise; for booleans not (a xor b)."""
    a, b = inputs
    if dtype_of(a) == "bool":
        return relax.op.logical_not(builder.emit(relax.op.logical_xor(a, b)))
    return relax.op.equal(a, b)
