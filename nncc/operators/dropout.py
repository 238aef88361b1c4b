"""Dropout, which drops nothing where a library runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape

__all__ = ["dropout"]


def dropout(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y = x and a mask of true; training with a ratio that is not 0 draws random numbers, and is refused."""
    x, ratio, training = [*inputs, None, None][:3]
    if training is not None:
        share = constant_array(ratio) if isinstance(ratio, GenericConst) else np.array(0.5)
        known = isinstance(training, GenericConst) and (ratio is None or isinstance(ratio, GenericConst))
        if not known or (constant_array(training).any() and share.any()):
            raise ValueError("Dropout in training mode, which drops elements at random")
    return relax.Tuple([x, relax.const(np.ones(static_shape(x), bool))])
