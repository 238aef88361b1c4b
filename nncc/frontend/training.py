"""Steps of optimizers, the operators of ai.onnx.preview.training, as definitions in terms of the standard's.

    g = G + norm_coefficient X

Each step is for any number n of tensors, whose operands and results are in groups of n: X, G and what is remembered.
Their source is ONNX's docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, number
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["DEFINITIONS"]


def adagrad(node: onnx_ir.Node, opset: int) -> Definition:
    """H' = H + g^2;  X' = X - R / (1 + decay_factor T) g / (sqrt(H') + epsilon)"""
    count = _tensors(node, 3)
    text = Text(opset)
    steps = text.new("CastLike (T, R)")
    slowed = text.new(f"Mul ({text.scalar(number(node, 'decay_factor', 0.0), 'R')}, {steps})")
    one = text.scalar(1.0, "R")
    rate = text.new(f"Div (R, {text.new(f'Add ({slowed}, {one})')})")
    epsilon = text.scalar(number(node, "epsilon", 0.0), "R")
    for at in range(count):
        slope = _slope(text, node, at)
        text.let(f"H{at}_new", f"Add (H{at}, {text.new(f'Mul ({slope}, {slope})')})")
        size = text.new(f"Add ({text.new(f'Sqrt (H{at}_new)')}, {epsilon})")
        step = text.new(f"Div ({text.new(f'Mul ({rate}, {slope})')}, {size})")
        text.let(f"X{at}_new", f"Sub (X{at}, {step})")
    return _definition(text, count, "XGH", "XH")


def adam(node: onnx_ir.Node, opset: int) -> Definition:
    """V' = alpha V + (1 - alpha) g;  H' = beta H + (1 - beta) g^2;  X' = (1 - post) (X - r V' / (sqrt(H') + epsilon))

    r = R sqrt(1 - beta^T) / (1 - alpha^T) where T > 0, else R.
    """
    count = _tensors(node, 4)
    text = Text(opset)
    decays = {"alpha": number(node, "alpha", 0.9), "beta": number(node, "beta", 0.999)}
    one, steps = text.scalar(1.0, "R"), text.new("CastLike (T, R)")
    kept = {name: text.scalar(value, "R") for name, value in decays.items()}
    rest = {name: text.new(f"Sub ({one}, {text.new(f'Pow ({decay}, {steps})')})") for name, decay in kept.items()}
    root = text.new(f"Sqrt ({rest['beta']})")
    scaled = text.new(f"Div ({text.new(f'Mul (R, {root})')}, {rest['alpha']})")
    nothing = text.scalar(0, "T")
    rate = text.new(f"Where ({text.new(f'Greater (T, {nothing})')}, {scaled}, R)")
    epsilon = text.scalar(number(node, "epsilon", 0.0), "R")
    post = text.scalar(1.0 - number(node, "norm_coefficient_post", 0.0), "R")
    for at in range(count):
        slope = _slope(text, node, at)
        square = text.new(f"Mul ({slope}, {slope})")
        for name, memory, new in (("alpha", "V", slope), ("beta", "H", square)):
            old = text.new(f"Mul ({kept[name]}, {memory}{at})")
            share = text.new(f"Mul ({text.new(f'Sub ({one}, {kept[name]})')}, {new})")
            text.let(f"{memory}{at}_new", f"Add ({old}, {share})")
        size = text.new(f"Add ({text.new(f'Sqrt (H{at}_new)')}, {epsilon})")
        step = text.new(f"Div ({text.new(f'Mul ({rate}, V{at}_new)')}, {size})")
        text.let(f"X{at}_new", f"Mul ({post}, {text.new(f'Sub (X{at}, {step})')})")
    return _definition(text, count, "XGVH", "XVH")


def momentum(node: onnx_ir.Node, opset: int) -> Definition:
    """V' = alpha V + b g;  X' = X - R V', or, of Nesterov, X - R (g + alpha V'); b = beta where T > 0, else 1"""
    count = _tensors(node, 3)
    mode = str(attribute(node, "mode", "standard"))
    if mode not in ("standard", "nesterov"):
        raise ModelError(f"{node_text(node)} has the mode `{mode}`, which cannot be compiled")
    text = Text(opset)
    alpha, beta = (text.scalar(number(node, name, 0.0), "R") for name in ("alpha", "beta"))
    later = text.new(f"Greater (T, {text.scalar(0, 'T')})")
    share = text.new(f"Where ({later}, {beta}, {text.scalar(1.0, 'R')})")
    for at in range(count):
        slope = _slope(text, node, at)
        old, new = text.new(f"Mul ({alpha}, V{at})"), text.new(f"Mul ({share}, {slope})")
        text.let(f"V{at}_new", f"Add ({old}, {new})")
        way = f"V{at}_new"
        if mode == "nesterov":
            way = text.new(f"Add ({slope}, {text.new(f'Mul ({alpha}, V{at}_new)')})")
        text.let(f"X{at}_new", f"Sub (X{at}, {text.new(f'Mul (R, {way})')})")
    return _definition(text, count, "XGV", "XV")


def _tensors(node: onnx_ir.Node, groups: int) -> int:
    """How many tensors are optimized: behind R and T, operands come in that many groups."""
    count, rest = divmod(len(node.inputs) - 2, groups)
    if count < 1 or rest:
        raise ModelError(f"{node_text(node)} has {len(node.inputs)} operands, which are not R, T and {groups} groups")
    return count


def _slope(text: Text, node: onnx_ir.Node, at: int) -> str:
    factor = text.scalar(number(node, "norm_coefficient", 0.0), f"X{at}")
    return text.new(f"Add ({text.new(f'Mul ({factor}, X{at})')}, G{at})")


def _definition(text: Text, count: int, operands: str, results: str) -> Definition:
    given = ", ".join(["R", "T", *(f"{letter}{at}" for letter in operands for at in range(count))])
    made = ", ".join(f"{letter}{at}_new" for letter in results for at in range(count))
    return text.definition(given, made)


DEFINITIONS: dict[str, Callable[[onnx_ir.Node, int], Definition]] = {
    "Adagrad": adagrad,
    "Adam": adam,
    "Momentum": momentum,
}
"""By operator."""
