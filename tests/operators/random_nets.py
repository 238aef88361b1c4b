"""Nets of many random forms of one operator: each form that ONNX Runtime takes becomes an output of one model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from compiled import Net, compile_net

__all__ = ["Draw", "agrees_on", "many"]

Draw = Callable[[Net, np.random.Generator], str]
"""Adds the inputs, constants and nodes of one form to a net; the name of its result."""

_TRIES = 10
"""For each form, before it is said that ONNX Runtime takes too few of them."""


def many(draw: Draw, count: int, opset: int, seed: int = 0) -> tuple[Net, dict[str, str]]:
    """A net of `count` forms, and by output what it is, for messages. What ONNX Runtime refuses is drawn again."""
    net, random, said = Net(opset=opset), np.random.default_rng(seed), {}
    for _ in range(_TRIES * count):
        trial = Net(opset=opset, seed=len(said))
        trial._count = net._count
        name = draw(trial, random)
        trial.output(name)
        net._count = trial._count
        if not _runs(trial):
            continue
        net.inputs += trial.inputs
        net.initializers += trial.initializers
        net.nodes += trial.nodes
        net.output(name)
        said[name] = _text(trial)
        if len(said) == count:
            return net, said
    raise AssertionError("ONNX Runtime takes too few of these forms")


def agrees_on(draw: Draw, count: int, opset: int, folder: Path, tolerance: float = 1e-5, seed: int = 0) -> None:
    """Claim that the library computes `count` forms as ONNX Runtime does: max|a - b| at most tolerance max(1, |a|)."""
    net, said = many(draw, count, opset, seed)
    compiled = compile_net(net, folder)
    inputs = compiled.sample()
    expected, found = compiled.expected(inputs), compiled.run(inputs)
    wrong = []
    for name, what in said.items():
        a, b = expected[name], found[name]
        same = a.dtype == b.dtype and a.shape == b.shape
        if not same or not np.all(np.abs(a.astype(float) - b) <= tolerance * max(1.0, float(np.abs(a).max(initial=0)))):
            wrong.append(f"{what}: {b.dtype}{b.shape} for {a.dtype}{a.shape}")
    assert not wrong, "\n".join(wrong)


def _runs(net: Net) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(net.model().SerializeToString(), options)
        session.run(None, {x.name: np.zeros(x.shape, _dtype(x.type)) for x in session.get_inputs()})
    except Exception:  # ONNX Runtime raises a class for each of its states
        return False
    return True


def _dtype(type_: str) -> Any:
    word = type_.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(word, word))


def _text(net: Net) -> str:
    node = net.nodes[-1]
    shapes = [[d.dim_value for d in x.type.tensor_type.shape.dim] for x in net.inputs]
    words = {a.name: list(a.ints) or list(a.floats) or a.s.decode() or a.i or a.f for a in node.attribute}
    return f"{node.op_type} of {shapes} with {words}"
