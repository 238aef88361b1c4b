"""Products of one tensor by several constants are one product on GPUs, whose blocks are as many times more.

    matmul(x, U) + a, matmul(x, V) + b, ..  ->  slices of  matmul(x, [U V ..]) + [a b ..]

Only where attention reads the results, as it reads queries, keys and values in their places
(`nncc.passes.fuse_attention`); elsewhere the slices would be copies.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.relax_grids import named
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_joint_products"]

_MOVES = ("relax.reshape", "relax.permute_dims", "relax.multiply", "relax.divide")
"""What may stand between a product and attention."""


def gpu_joint_products(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.matmul`` of float32 by constants; see the module's equation."""
    return _Joint().rewrite(module)


@dataclass(frozen=True)
class _Product:
    """Of the old function: the variable of a product, that of its sum with `bias` or its own, and its constants."""

    variable: Any
    result: Any
    weight: np.ndarray
    bias: np.ndarray | None


class _Joint(Rewriter):
    def __init__(self) -> None:
        super().__init__({"relax.matmul": _Joint.matmul, "relax.add": _Joint.add})
        self.groups: dict[Any, list[_Product]] = {}
        """By the variable of each product, all that become one with it."""
        self.slices: dict[Any, Any] = {}
        """By the variable of a product's result, what it is in the new function."""

    def look(self) -> None:
        by_factor = defaultdict(list)
        for variable, call in self.made.items():
            product = self.product(variable, call)
            if product is not None:
                by_factor[call.args[0], product.bias is None].append(product)
        self.groups = {each.variable: group for group in by_factor.values() if len(group) > 1 for each in group}

    def product(self, variable: Any, call: Any) -> _Product | None:
        """What a variable is, if it is a product by a constant that attention reads."""
        if not named(call, "relax.matmul") or not isinstance(call.args[0], relax.Var):
            return None
        data, weight = call.args
        if not isinstance(weight, GenericConst) or len(static_shape(weight)) != 2 or 0 in static_shape(call):
            return None
        if any(str(each.ty.dtype) != "float32" for each in (data, weight, call)):
            return None
        result, bias = variable, None
        readers = self.readers[variable]
        if len(readers) == 1 and named(readers[0][1], "relax.add"):
            columns = static_shape(weight)[1]
            constants = [constant_array(a) for a in readers[0][1].args if isinstance(a, GenericConst)]
            if len(constants) != 1 or constants[0].size != columns or constants[0].shape[-1:] != (columns,):
                return None
            result, bias = readers[0][0], constants[0].reshape(-1)
        return _Product(variable, result, constant_array(weight), bias) if self.is_attended(result) else None

    def is_attended(self, variable: Any) -> bool:
        """Whether all that becomes of a value is moved, or scaled, into a product of two tensors."""
        readers = self.readers[variable]
        if len(readers) != 1 or readers[0][0] is None:
            return False
        result, reader = readers[0]
        if named(reader, "relax.matmul"):
            return not any(isinstance(a, GenericConst) for a in reader.args)
        return named(reader, *_MOVES) and self.is_attended(result)

    def matmul(self, call: Any) -> Any:
        group = self.groups.get(self.variable)
        if group is None:
            return None
        if group[0].result not in self.slices:
            self.join(call, group)
        return self.slices.get(self.variable)

    def add(self, call: Any) -> Any:
        return self.slices.get(self.variable)

    def join(self, call: Any, group: list[_Product]) -> None:
        """Emit the product by all constants of `group`, and what each had of it."""
        weight = relax.const(np.concatenate([each.weight for each in group], axis=1), "float32")
        whole = self.builder.emit(relax.op.matmul(self.value(call.args[0]), weight))
        biases = [each.bias for each in group if each.bias is not None]
        if biases:
            whole = self.builder.emit(relax.op.add(whole, relax.const(np.concatenate(biases), "float32")))
        axis, start = len(static_shape(call)) - 1, 0
        for each in group:
            end = start + each.weight.shape[1]
            self.slices[each.result] = self.builder.emit(relax.op.strided_slice(whole, [axis], [start], [end]))
            start = end
