"""Quantization on one screen: prepare a graph, collect statistics of it, quantize it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError, UsageError, did_you_mean
from nncc.passes.products import product_of
from nncc.passes.rewriting import constant, operand
from nncc.quant.bias import correct_bias
from nncc.quant.calibrate import Statistics, collect
from nncc.quant.equalize import equalize
from nncc.quant.measure import sqnr_db
from nncc.quant.operators import is_product, weight_operand
from nncc.quant.plan import plan
from nncc.quant.prepare import prepare, raised
from nncc.quant.qdq import insert
from nncc.quant.recipe import Recipe
from nncc.quant.reconstruct import reconstruct
from nncc.quant.scales import choose_scales
from nncc.quant.weight_only import INT4_OPSET, convert
from nncc.quant.weights import choose_weights

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.layer_time import Product

__all__ = ["Layer", "layers", "prepare", "quantize", "shapes_of"]

STEPS = ("equalize", "reconstruct", "correct_bias")
"""The steps of a recipe that may be `"auto"`, in the order in which they are tried."""
MOST_FITTED = 32
MOST_MEASURED = 16


@dataclass(frozen=True)
class Layer:
    """A node that can compute on integers: what `Recipe.nodes` and `Recipe.float_nodes` may name."""

    name: str
    op_type: str
    macs: int
    """Multiply-accumulate operations for one run; 0 for what is not a product."""
    weights: int
    """Elements of its constant weights."""
    product: Product | None = None
    """Its shapes; None for what is not a product, or where they are not known."""


def layers(graph: onnx_ir.Model, sample: Mapping[str, np.ndarray] | None = None) -> tuple[Layer, ...]:
    """The quantizable nodes of a prepared `graph`, in its order.

    Products are counted for the shapes of `sample`; without one, an open first dimension counts as 1 and any other open
    dimension as 256.
    """
    shapes = shapes_of(graph, sample)
    found = []
    for node in plan(graph).nodes:
        at = weight_operand(node) if is_product(node) else None
        elements = 0 if at is None else int(prod(_size(operand(node, at))))
        product = product_of(node, shapes) if is_product(node) else None
        found.append(Layer(str(node.name), node.op_type, 0 if product is None else product.macs, elements, product))
    return tuple(found)


def _size(value: onnx_ir.Value) -> tuple[int, ...]:
    array = constant(value)
    return () if array is None else array.shape


def shapes_of(graph: onnx_ir.Model, sample: Mapping[str, np.ndarray] | None) -> dict[str, tuple[int, ...]]:
    """Shapes of values with every open dimension given a size; values whose shape stays unknown are left out."""
    import onnx_ir

    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.rewriting import static_shape

    trial = graph.clone()
    for value in trial.graph.inputs:
        if sample is not None and value.name in sample:
            value.shape = onnx_ir.Shape(sample[str(value.name)].shape)
        elif value.shape is not None:
            sizes = [d if isinstance(d, int) else (1 if at == 0 else 256) for at, d in enumerate(value.shape)]
            value.shape = onnx_ir.Shape(sizes)
    for node in trial.graph:
        for value in node.outputs:
            value.shape = None
    for _ in range(4):
        infer_shapes(trial)
        if not fold_constants(trial).rewrites:
            break
    values = [*trial.graph.inputs, *trial.graph.initializers.values(), *(v for n in trial.graph for v in n.outputs)]
    known = {str(value.name): static_shape(value) for value in values}
    return {name: shape for name, shape in known.items() if shape is not None}


def quantize(graph: onnx_ir.Model, statistics: Statistics | None, recipe: Recipe) -> onnx_ir.Model:
    """The quantized form of a prepared `graph`, by `recipe`, with the `statistics` that were collected of it.

    Statistics are needed where a layer is to be int8, and not for other precisions. Steps of the recipe look at
    MOST_FITTED samples; what is `"auto"` is judged by MOST_MEASURED others, if there are others. The same bytes for the
    same graph, statistics and recipe. Raises UsageError if the recipe names a node that is not there or statistics are
    missing, ModelError if there is nothing to quantize.
    """
    _check_names(graph, recipe)
    if any(recipe.precision_of(str(node.name)) == "weight_int4" for node in graph.graph if is_product(node)):
        graph = raised(graph, INT4_OPSET, INT4_OPSET)
    settled = recipe
    for step in STEPS:
        settled = _with(settled, step, getattr(recipe, step) is True)
    tried = [step for step in STEPS if getattr(recipe, step) == "auto"]
    result = _quantized(graph, statistics, settled)
    if not tried or statistics is None:
        return result
    held_out = _held_out(statistics.samples)
    error = sqnr_db(graph, result, held_out)
    for step in tried:
        candidate = _with(settled, step, True)
        other = _quantized(graph, statistics, candidate)
        if (found := sqnr_db(graph, other, held_out)) > error:
            settled, result, error = candidate, other, found
    return result


def _with(recipe: Recipe, step: str, value: bool) -> Recipe:
    changes: dict[str, Any] = {step: value}
    return replace(recipe, **changes)


def _fitted(samples: Sequence[Mapping[str, np.ndarray]]) -> list[Mapping[str, np.ndarray]]:
    """At most MOST_FITTED samples, evenly apart, the first one among them."""
    step = max(1, -(-len(samples) // MOST_FITTED))
    return [samples[at] for at in range(0, len(samples), step)]


def _held_out(samples: Sequence[Mapping[str, np.ndarray]]) -> list[Mapping[str, np.ndarray]]:
    """At most MOST_MEASURED samples that are not fitted; the fitted ones where there are no others."""
    step = max(1, -(-len(samples) // MOST_FITTED))
    others = [at for at in range(len(samples)) if at % step]
    if not others:
        return _fitted(samples)[:MOST_MEASURED]
    return [samples[at] for at in others[:: max(1, -(-len(others) // MOST_MEASURED))]]


def _quantized(graph: onnx_ir.Model, statistics: Statistics | None, recipe: Recipe) -> onnx_ir.Model:
    """`quantize` for a recipe in which no step is `"auto"`."""
    from nncc.passes.remove_unused import remove_unused
    from nncc.passes.simplify import check_graph

    def is_int8(node: onnx_ir.Node) -> bool:
        wanted = recipe.precision_of(str(node.name)) == "int8"
        return wanted and (statistics is None or statistics.cover(node))

    integer = any(is_product(node) for node in plan(graph, is_int8).nodes)
    if integer and statistics is None:
        raise UsageError("int8 needs statistics of the activations", "give calibration samples, or another precision")
    if integer and statistics is not None and recipe.equalize:
        graph = equalize(graph)
        statistics = collect(graph, statistics.samples, recipe)
    graph = graph.clone()
    if integer and statistics is not None:
        chosen, fitted = plan(graph, is_int8), _fitted(statistics.samples)
        activations = choose_scales(chosen, statistics, recipe)
        weights = choose_weights(chosen, activations, recipe)
        if recipe.reconstruct:
            weights = reconstruct(graph, chosen, activations, weights, fitted, recipe.seed)
        if recipe.correct_bias:
            weights = correct_bias(graph, chosen, activations, weights, fitted)
        insert(graph, chosen, activations, weights, recipe)
    if not convert(graph, recipe) and not integer:
        raise ModelError(
            "there is nothing to quantize: no convolution or matrix product with constant float32 weights stays",
            "look at the list of float nodes, or at the model with `nncc show`",
        )
    remove_unused(graph)
    check_graph(graph, "quantize")
    return graph


def _check_names(graph: onnx_ir.Model, recipe: Recipe) -> None:
    names = {str(node.name) for node in graph.graph}
    for name in (*recipe.float_nodes, *recipe.nodes):
        if name not in names:
            hint = did_you_mean(name, names) or "names are those of the nodes after `prepare`"
            raise UsageError(f"the recipe names `{name}`, which is no node of the model", hint)
