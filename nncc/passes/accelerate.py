"""Layers of int8 for an accelerator, one kernel each, on the blocks of channels that it reads.

    x[n, c, h, w] = X[n, c div b, h, w, c mod b]          b lanes, a batch of one

What stays on the host keeps the same blocks (`nncc.passes.choose_layout`), so that nothing is packed between the two.
A convolution of few channels multiplies patches, which the host lays out, where that takes the accelerator less time:

    y[o, h, w] = sum_k W[o, k] P[k, h, w]          P[(c, kh, kw), h, w] = x[c, h*sh + kh*dh - pt, w*sw + kw*dw - pl]
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from nncc.compat import IRModule, constant_array, relax, static_shape
from nncc.passes.accelerator_moves import blocks_to_rows, patches_of, rows_to_blocks
from nncc.passes.accelerator_patterns import Graph, OnHost, Requantized, Sum, is_product, requantized, sum_of
from nncc.passes.accelerator_weights import matrix_blocks, pack_depthwise, pack_parameters, pack_weights, patch_matrix
from nncc.passes.blocked import Blocked
from nncc.passes.choose_layout import Layout
from nncc.passes.context import Context
from nncc.passes.convolutions import without_border
from nncc.passes.layout_rules import RULES
from nncc.passes.relax_grids import named
from nncc.vta.decisions import refusal
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine

__all__ = ["accelerate"]

_OPAQUE = 8
"""TVM's OpPatternKind: nothing is fused with the function."""


def accelerate(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``main`` to layers of the target's accelerator, and to blocked channels for the rest."""
    machine = context.target.hardware.accelerator
    assert machine is not None
    return _Accelerate(context, machine).rewrite(module)


class _Accelerate(Layout):
    """Knows, before it walks, which calls become one layer."""

    def __init__(self, context: Context, machine: Machine) -> None:
        super().__init__(context.templates, context.target.hardware, context.graph)
        self.machine = machine
        self.facts = context.offload
        self.rules = {
            **self.rules,
            "relax.quantize": _Accelerate.rounded,
            "relax.nn.max_pool2d": _Accelerate.max_pool,
        }
        self.ends: dict[Any, Requantized | Sum] = {}
        """By variable of the old function that is the result of a layer."""
        self.inside: set[Any] = set()
        """Variables of the old function that are within a layer: nobody reads them any more."""

    def look(self) -> None:
        self.lanes = self.machine.block
        graph = Graph(self.made, self.readers, self.uses)
        products: dict[Any, Requantized] = {}
        for variable, call in self.made.items():
            if not is_product(call):
                continue
            try:
                found = requantized(graph, variable)
                self._check(found)
                products[found.end] = found
            except OnHost as reason:
                self.facts.stays(call, str(reason))
        for variable, call in self.made.items():
            total = sum_of(graph, variable) if named(call, "relax.quantize") and len(call.ty.shape) == 4 else None
            if total is None or static_shape(call)[0] != 1:
                continue
            before = [each for each in total.operands if each in products and self._only_summed(each, products)]
            if before:
                last = max(before, key=list(products).index)
                products[variable] = products.pop(last).added(total, variable)
            else:
                self.ends[variable] = total
                self.inside |= set(total.inside)
        self.ends |= products
        for found in products.values():
            self.inside |= set(found.inside)
            self.facts.offloaded(found.product)

    def _only_summed(self, operand: Any, products: Mapping[Any, Requantized]) -> bool:
        """Whether a convolution's result is read by a sum alone, once, and has none yet; depthwise ones have none."""
        found = products[operand]
        alone = self.uses[operand] == 1 and found.residual is None and named(found.product, "relax.nn.conv2d")
        return alone and int(found.product.attrs.groups) == 1

    def _check(self, found: Requantized) -> None:
        """OnHost where the accelerator has no layer for a product."""
        if not self.machine.has("requantize"):
            raise OnHost(f"`{self.machine.profile}` rounds halves up, and has one scale for all channels")
        if named(found.product, "relax.matmul"):
            if len(static_shape(found.product.args[1])) != 2:
                raise OnHost("it has several matrices of weights")
            layer = self._dense(found)
        else:
            call = found.product
            kernel, groups = static_shape(call.args[1]), int(call.attrs.groups)
            if static_shape(call)[0] != 1:
                raise OnHost(f"its batch is {static_shape(call)[0]}, the accelerator takes one image")
            if groups > 1 and (kernel[1] != 1 or groups != kernel[0]):
                raise OnHost(f"it has {groups} groups of channels")
            layer = self._convolution(found)[0]
        if reason := refusal(layer, self.machine):
            raise OnHost(reason)

    def _bind(self, binding: Any) -> None:
        if binding.var not in self.inside:
            super()._bind(binding)

    def lanes_of(self, channels: int, dtype: str = "float32") -> int:
        return self.lanes

    # Rules

    def rounded(self, call: Any) -> Any:
        found = self.ends.get(self.variable)
        if isinstance(found, Sum):
            return self.sum(found)
        if found is None:
            return Layout.scale(self, call)
        return self.dense(found) if named(found.product, "relax.matmul") else self.convolution(found)

    def max_pool(self, call: Any) -> Any:
        """Of int8 that lies in blocks already."""
        data, attrs = call.args[0], call.attrs
        fits = str(call.ty.dtype) == "int8" and static_shape(call)[0] == 1 and attrs.layout == "NCHW"
        if not (fits and self.is_blocked(data) and self.machine.has("pad_value")):
            return RULES["relax.nn.max_pool2d"](self, call)
        tensor = self.blocked[data]
        layer = Layer(
            "max_pool",
            _blocks(tensor.channels, self.lanes, tensor.size),
            _blocks(tensor.channels, self.lanes, static_shape(call)[2:]),
            kernel=_pair(attrs.pool_size),
            stride=_pair(attrs.strides),
            padding=self._padding(tensor.size, static_shape(call)[2:], attrs, attrs.pool_size),
            dilation=_pair(attrs.dilation),
            pad_value=-128,
        )
        if refusal(layer, self.machine):
            return RULES["relax.nn.max_pool2d"](self, call)
        return Blocked(self.emit_layer(layer, self.rows(tensor)), tensor.channels)

    # Layers

    def _convolution(self, found: Requantized) -> tuple[Layer, Any, bool]:
        """The layer of a convolution, what it reads, and whether that is patches."""
        call = found.product
        kernel, attrs = static_shape(call.args[1]), call.attrs
        data, padding, pad_value = without_border(self, call.args[0], [int(p) for p in attrs.padding])
        depthwise = int(attrs.groups) > 1
        size = static_shape(data)[2:]
        layer = Layer(
            "depthwise" if depthwise else "conv2d",
            _blocks(kernel[0] if depthwise else kernel[1], self.lanes, size),
            _blocks(kernel[0], self.lanes, static_shape(call)[2:]),
            kernel=_pair(kernel[2:]),
            stride=_pair(attrs.strides),
            padding=self._padding(size, static_shape(call)[2:], attrs, kernel[2:], padding),
            dilation=_pair(attrs.dilation),
            pad_value=pad_value,
            zero=found.zero,
            relu=found.relu,
            residual=_place(found),
        )
        patches = Layer(
            "conv2d",
            _blocks(prod(kernel[1:]), self.lanes, layer.output[1:]),
            layer.output,
            zero=found.zero,
            relu=found.relu,
            residual=layer.residual,
        )
        made_here = self.ends.get(data) is not None or named(self.made.get(data), "relax.nn.max_pool2d")
        if not depthwise and not made_here and self._cost(patches) < self._cost(layer):
            return patches, data, True
        return layer, data, False

    def _cost(self, layer: Layer) -> int:
        """Cycles that a convolution takes at least: of its products, or of what it reads."""
        products = prod(layer.output) * layer.input[0] * prod(layer.kernel)
        return max(products, prod(layer.input) * self.lanes // self.machine.bus_bytes)

    def convolution(self, found: Requantized) -> Blocked:
        layer, data, patches = self._convolution(found)
        kernel = constant_array(found.product.args[1])
        if layer.kind == "depthwise":
            weight = pack_depthwise(kernel, self.lanes)
        else:
            weight = pack_weights(patch_matrix(kernel) if patches else kernel, self.lanes)
        if patches:
            border = without_border(self, found.product.args[0], [int(p) for p in found.product.attrs.padding])
            tensor = self.patches(data, found.product, border[1], border[2])
        else:
            tensor = self.rows(self.block(data))
        return Blocked(self.product(layer, tensor, weight, found), len(kernel))

    def patches(self, data: Any, call: Any, padding: list[int], pad_value: int) -> Any:
        """The patches of a convolution of few channels, int8[1, K/b, OH, OW, b], K = C KH KW."""
        window = _pair(static_shape(call.args[1])[2:])
        layout = partial(
            patches_of,
            lanes=self.lanes,
            window=window,
            strides=_pair(call.attrs.strides),
            dilation=_pair(call.attrs.dilation),
            corner=padding[:2],
            outside=pad_value,
            size=static_shape(call)[2:],
        )
        hint = {"primfunc_name_hint": "patches", "primfunc_attrs": {"op_pattern": _OPAQUE}}
        return self.builder.emit_te(layout, self.value(data), **hint)

    def product(self, layer: Layer, data: Any, weight: np.ndarray, found: Requantized) -> Any:
        """Emit a layer of products with its constants, and what is added to its result."""
        residual, more = [], None
        if found.residual is not None:
            own, other = found.residual.ratios if layer.residual == "first" else found.residual.ratios[::-1]
            more = own, other, found.residual.fixed
            residual = [self.rows(self.block(_other(found)))]
        parameters = pack_parameters(found.bias, found.scale, self.lanes, more)
        return self.emit_layer(layer, data, relax.const(weight, "int8"), relax.const(parameters, "int32"), *residual)

    def sum(self, found: Sum) -> Blocked:
        tensors = [self.block(each) for each in found.operands]
        shape = _blocks(tensors[0].channels, self.lanes, tensors[0].size)
        layer = Layer("add", shape, shape)
        none = np.zeros(0)
        parameters = pack_parameters(none, none, self.lanes, (*found.ratios, found.fixed))
        data, other = map(self.rows, tensors)
        new = self.emit_layer(layer, data, relax.const(parameters, "int32"), other)
        return Blocked(new, tensors[0].channels)

    def _dense(self, found: Requantized) -> Layer:
        depth, columns = static_shape(found.product.args[1])
        rows = prod(static_shape(found.product)[:-1])
        data, result = (_blocks(size, self.lanes, (1, rows)) for size in (depth, columns))
        return Layer("conv2d", data, result, zero=found.zero, relu=found.relu)

    def dense(self, found: Requantized) -> Any:
        """Rows of a matrix as pixels of an image; the result is a matrix again."""
        layer, data, lanes = self._dense(found), self.value(found.product.args[0]), self.lanes
        matrix, rows = constant_array(found.product.args[1]), layer.input[2]
        depth, columns = matrix.shape
        if rows == 1 and depth % lanes == 0:
            blocked = self.builder.emit(relax.op.reshape(data, (1, depth // lanes, 1, 1, lanes)))
        else:
            plain = self.builder.emit(relax.op.reshape(data, (rows, depth)))
            blocked = self.builder.emit_te(rows_to_blocks, plain, lanes, primfunc_name_hint="block_rows")
        new = self.product(layer, blocked, pack_weights(matrix_blocks(matrix), lanes), found)
        if rows > 1 or columns % lanes:
            new = self.builder.emit_te(blocks_to_rows, new, columns, primfunc_name_hint="unblock_rows")
        return self.builder.emit(relax.op.reshape(new, static_shape(found.product)))

    def emit_layer(self, layer: Layer, *args: Any) -> Any:
        template = self.templates[f"vta_{layer.kind}"]
        hint = {"primfunc_name_hint": template.name, "primfunc_attrs": {"op_pattern": _OPAQUE}}
        return self.builder.emit_te(partial(template.compute, layer=layer), *args, **hint)

    @staticmethod
    def _padding(
        size: tuple[int, ...], result: tuple[int, ...], attrs: Any, window: Any, padding: Any = None
    ) -> tuple[int, int, int, int]:
        """Top, left, bottom, right: behind the input no more than the last window needs, which may be less or more
        than the operator's own."""
        top, left = (int(p) for p in (attrs.padding if padding is None else padding)[:2])
        stride, dilation, kernel = _pair(attrs.strides), _pair(attrs.dilation), _pair(window)
        ends = [(result[a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1 for a in (0, 1)]
        return top, left, max(0, ends[0] - top - size[0]), max(0, ends[1] - left - size[1])


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _blocks(channels: int, lanes: int, size: Any) -> tuple[int, int, int]:
    return -(-channels // lanes), int(size[0]), int(size[1])


def _other(found: Requantized) -> Any:
    """The operand of the sum behind a product that is not the product's own result."""
    assert found.residual is not None
    first, second = found.residual.operands
    return second if first in found.inside else first


def _place(found: Requantized) -> Any:
    """The place of a product's result in the sum behind it."""
    if found.residual is None:
        return ""
    return "first" if found.residual.operands[0] in found.inside else "second"
