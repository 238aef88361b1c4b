"""Constants that the importer wraps in shape operators are reshaped here, in numpy.

    reshape(c), permute_dims(c), expand_dims(c), squeeze(c), broadcast_to(c), astype(c)  ->  c'
    where(c < d, x, y)  ->  y        where c < d holds nowhere: constant indices that do not count from the end

TVM's own FoldConstant compiles a function per expression and takes seconds; ONNX-level constants are folded before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.relax_grids import named
from nncc.passes.rewriter import Rewriter

__all__ = ["FOLDED", "fold", "fold_relax"]


def _shape(call: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in call.ty.shape)


FOLDED: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "relax.reshape": lambda call, a: a.reshape(_shape(call)),
    "relax.expand_dims": lambda call, a: a.reshape(_shape(call)),
    "relax.squeeze": lambda call, a: a.reshape(_shape(call)),
    "relax.broadcast_to": lambda call, a: np.broadcast_to(a, _shape(call)),
    "relax.astype": lambda call, a: a.astype(str(call.attrs.dtype)),
    "relax.permute_dims": lambda call, a: a.transpose(
        None if call.attrs.axes is None else [int(x) for x in call.attrs.axes]
    ),
}
_LARGEST = 1 << 30
"""Bytes: a broadcast beyond this stays a computation."""


def fold(rewriter: Rewriter, call: Any) -> Any:
    """The rule of each operator in `FOLDED`: a constant for that of a constant."""
    argument = rewriter.value(call.args[0])
    if not isinstance(argument, GenericConst):
        return None
    array = FOLDED[call.op.name](call, constant_array(argument))
    return relax.const(np.ascontiguousarray(array), str(array.dtype)) if array.nbytes <= _LARGEST else None


def fold_relax(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``main`` with such expressions replaced by constants."""
    return Rewriter({**dict.fromkeys(FOLDED, fold), "relax.where": _where}).rewrite(module)


def _where(rewriter: Rewriter, call: Any) -> Any:
    condition = rewriter.made.get(call.args[0]) if isinstance(call.args[0], relax.Var) else None
    if not named(condition, "relax.less") or _shape(call) != static_shape(call.args[2]):
        return None
    sides = [rewriter.value(side) for side in condition.args]
    if not all(isinstance(side, GenericConst) for side in sides) or np.less(*map(constant_array, sides)).any():
        return None
    return rewriter.value(call.args[2])
