"""Nets of many random forms of one operator: each form that ONNX Runtime takes becomes an output of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from compiled import Net

__all__ = ["Draw", "many"]

Draw = Callable[[Net, np.random.Generator], str]
"""Adds the inputs, constants and the node of one form to a net; the name of its result."""


def many(draw: Draw, count: int, opset: int, seed: int = 0) -> tuple[Net, Mapping[str, str]]:
    """A net of `count` forms, and by output what it is, for messages. What ONNX Runtime refuses is drawn again."""
    net, random, said, tries = Net(opset=opset), np.random.default_rng(seed), {}, 0
    while len(net.outputs) < count:
        tries += 1
        assert tries < 10 * count, "ONNX Runtime takes too few of these forms"
        trial = Net(opset=opset)
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
    return net, said


def _runs(net: Net) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(net.model().SerializeToString(), options)
        session.run(None, {x.name: _ones(x) for x in session.get_inputs()})
    except Exception:  # ONNX Runtime raises a class for each of its states
        return False
    return True


def _ones(x: Any) -> np.ndarray:
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}.get(x.type)
    dtype = dtype or np.dtype(x.type.removeprefix("tensor(").removesuffix(")")).type
    return np.zeros(x.shape, dtype)


def _text(net: Net) -> str:
    node = net.nodes[-1]
    shapes = [[d.dim_value for d in x.type.tensor_type.shape.dim] for x in net.inputs]
    words = {a.name: list(a.ints) or list(a.floats) or a.s.decode() or a.i or a.f for a in node.attribute}
    return f"{node.op_type} of {shapes} with {words}"
