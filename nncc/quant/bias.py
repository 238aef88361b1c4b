"""b' = b - E[q(W) q(x) - W x]: what quantization adds to a product's outputs on average is taken off its bias.

Empirical bias correction, Nagel et al. 2019 (arXiv:1906.04721, section 4.2), with the expectation over calibration
samples and over all positions of an output channel. Every product is given the float model's input, quantized: its own
error is corrected, not what others before it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nncc.passes.rewriting import add_constant, is_op
from nncc.quant.affine import Affine
from nncc.quant.execution import run
from nncc.quant.operators import data_inputs, weight_operand
from nncc.quant.plan import Plan, bias_add
from nncc.quant.weights import Weights, bias_of, channels_out

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["correct_bias", "mean_errors"]


def correct_bias(
    graph: onnx_ir.Model,
    plan: Plan,
    activations: Mapping[str, Affine],
    weights: Mapping[str, Weights],
    samples: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Weights]:
    """The weights of a plan of `graph`, with corrected biases; where there is no place for a bias, as it was."""
    import numpy as np

    wanted = {name: old for name, old in weights.items() if _takes_bias(plan, name)}
    errors = mean_errors(graph, plan, activations, wanted, samples)
    corrected = dict(weights)
    for name, old in wanted.items():
        bias = np.zeros(errors[name].shape) if old.bias is None else old.bias
        corrected[name] = replace(old, bias=bias - errors[name])
    return corrected


def _takes_bias(plan: Plan, name: str) -> bool:
    """Whether the product of that name has a bias that is stored with it, or can be given one."""
    node = next(node for node in plan.nodes if node.name == name)
    if weight_operand(node) != 1 or channels_out(node) is None:
        return False
    if is_op(node, "MatMul"):
        return bias_add(node) is not None and bias_of(node) is not None
    return bias_of(node) is not None or len(node.inputs) < 3 or node.inputs[2] is None


def mean_errors(
    graph: onnx_ir.Model,
    plan: Plan,
    activations: Mapping[str, Affine],
    weights: Mapping[str, Weights],
    samples: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """For each product in `weights`, the mean of what its quantized form gives beyond its float form (float64), by
    output channel."""
    import numpy as np

    trial, names = _side_by_side(graph, plan, activations, weights)
    totals = dict.fromkeys(names, np.zeros(()))
    counts = dict.fromkeys(names, 0)
    for arrays in run(trial, [names[name][0] for name in names], samples, optimized=False):
        for name, array in zip(names, arrays, strict=True):
            rows = np.moveaxis(array, names[name][1], -1).reshape(-1, array.shape[names[name][1]])
            totals[name] = totals[name] + rows.sum(axis=0, dtype=np.float64)
            counts[name] += len(rows)
    return {name: totals[name] / max(counts[name], 1) for name in names}


def _side_by_side(
    graph: onnx_ir.Model, plan: Plan, activations: Mapping[str, Affine], weights: Mapping[str, Weights]
) -> tuple[onnx_ir.Model, dict[str, tuple[str, int]]]:
    """The graph with a quantized copy beside each product, and for each the name of their difference and its axis."""
    import numpy as np
    import onnx_ir

    trial = graph.clone()
    main = trial.graph
    inputs: dict[str, onnx_ir.Value] = {}
    names: dict[str, tuple[str, int]] = {}
    for node in tuple(main):
        quantized = weights.get(str(node.name))
        if quantized is None:
            continue
        given = data_inputs(node)[0]
        key = str(given.name)
        if key not in inputs:
            affine = activations[key]
            scale = add_constant(main, np.array(affine.scale, np.float32), f"{key}/trial_scale")
            zero_point = add_constant(main, np.array(affine.zero_point, affine.dtype), f"{key}/trial_zero_point")
            down = onnx_ir.node("QuantizeLinear", [given, scale, zero_point])
            up = onnx_ir.node("DequantizeLinear", [down.outputs[0], scale, zero_point])
            main.extend([down, up])
            inputs[key] = up.outputs[0]
        weight = add_constant(main, quantized.dequantized(), f"{node.name}/trial_weight")
        at = weight_operand(node)
        operands = [weight if place == at else value for place, value in enumerate(node.inputs)]
        operands = [inputs[key] if value is given else value for value in operands]
        copy = onnx_ir.Node("", node.op_type, operands, list(node.attributes.values()))
        difference = onnx_ir.node("Sub", [copy.outputs[0], node.outputs[0]], name=f"{node.name}/trial_error")
        difference.outputs[0].name = f"{node.name}/trial_error"
        main.extend([copy, difference])
        names[str(node.name)] = (f"{node.name}/trial_error", -1 if is_op(node, "MatMul", "Gemm") else 1)
    return trial, names
