"""Small quantized models: nets with operators of com.microsoft, full-range integers, and what agreement means there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from compiled import Net, compile_net
from onnx import helper

from nncc.verify import reference

MICROSOFT = "com.microsoft"


class QuantizedNet(Net):
    """A `Net` whose outputs have declared types, and that may use com.microsoft."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        super().__init__(opset, seed)
        self.types: dict[str, int] = {}

    def integers(self, *shape: int, dtype: Any = np.uint8, low: int | None = None) -> str:
        """A constant of random integers over the whole range of the type (from `low` on)."""
        info = np.iinfo(dtype)
        return self.constant(self.random.integers(info.min if low is None else low, info.max + 1, shape).astype(dtype))

    def parameters(self, scale: float, zero: int, dtype: Any = np.uint8) -> tuple[str, str]:
        return self.constant(np.float32(scale)), self.constant(np.array(zero, dtype))

    def ms(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.op(kind, *inputs, domain=MICROSOFT, **attributes)

    def result(self, name: str, dtype: Any) -> str:
        """Make `name` an output of the model."""
        self.output(name)
        self.types[name] = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return name

    def model(self) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(name, self.types[name], None) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, outputs, self.initializers)
        domains = {node.domain for node in self.nodes}
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(MICROSOFT, 1)] if MICROSOFT in domains else []
        return helper.make_model(graph, opset_imports=opsets, ir_version=10 if self.opset > 20 else 8)


def full_range(model: onnx.ModelProto, seed: int = 1, width: float = 1.0) -> dict[str, np.ndarray]:
    """Random inputs: integers over all of their type, floats in [-width, width], many a multiple of 2^-7."""
    random = np.random.default_rng(seed)
    found = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            found[value.name] = random.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
        elif dtype.kind == "b":
            found[value.name] = random.integers(0, 2, shape).astype(bool)
        else:
            numbers = random.uniform(-width, width, shape)
            halves = np.rint(numbers * 2**7) / 2**7
            found[value.name] = np.where(random.random(shape) < 0.4, halves, numbers).astype(dtype)
    return found


def both(source: Net, folder: Path, inputs: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What ONNX Runtime computes of the original file, and what the library does, by output."""
    compiled = compile_net(source, folder)
    actual = compiled.run(inputs)
    return {name: (array, actual[name]) for name, array in reference(compiled.path, inputs).items()}


def steps_apart(expected: np.ndarray, actual: np.ndarray, step: float = 1.0) -> float:
    """The largest difference in steps of a grid; shapes and types are equal, or it is infinite."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    return float(np.abs(expected.astype(np.float64) - actual.astype(np.float64)).max(initial=0.0) / step)
