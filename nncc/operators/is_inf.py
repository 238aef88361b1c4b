"""IsInf, of both signs or one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax, static_shape

__all__ = ["is_inf"]


def is_inf(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y = x is infinity, where `detect_positive`, or x is minus infinity, where `detect_negative`."""
    (x,) = inputs[:1]
    signs = [
        sign for sign, name in ((np.inf, "detect_positive"), (-np.inf, "detect_negative")) if attributes.get(name, 1)
    ]
    if not signs:
        return relax.const(np.zeros(static_shape(x), bool))
    found = [builder.emit(relax.op.equal(x, relax.const(sign, str(x.ty.dtype)))) for sign in signs]
    return found[0] if len(found) == 1 else relax.op.logical_or(*found)
