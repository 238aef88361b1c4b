"""A graph that nodes are added to which compute gradients, as `nncc.compress.gradients` says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["UNKNOWN", "Tape"]

UNKNOWN = "?"
"""In place of the name of a gradient."""


class Tape:
    """A graph with nodes behind it that compute gradients."""

    def __init__(self, graph: onnx_ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`graph` has an opset of 13 to 17; `shapes` are those of its values, of which other sizes of batch and image
        may come."""
        import onnx_ir

        self.shapes = shapes
        self.proto: onnx.ModelProto = onnx_ir.to_proto(graph)
        self.nodes = tuple(graph.graph)
        self._found: dict[str, str] = {}
        """By value, its gradient so far."""
        self._number = 0

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A new node; returns the name of its first output."""
        from onnx import helper

        self._number += 1
        name = f"nncc/gradient/{self._number}"
        self.proto.graph.node.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def const(self, array: Any, dtype: Any = None) -> str:
        """A new initializer, float32 unless `dtype` says otherwise; returns its name."""
        import numpy as np
        from onnx import numpy_helper

        self._number += 1
        name = f"nncc/gradient/{self._number}"
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype or np.float32), name))
        return name

    def ints(self, *numbers: int) -> str:
        """A new initializer of int64, of one axis."""
        import numpy as np

        return self.const(numbers, np.int64)

    def shape(self, value: onnx_ir.Value) -> tuple[int, ...]:
        """The shape of a value for the first sample. Raises KeyError where it is not known."""
        return self.shapes[str(value.name)]

    def add(self, value: onnx_ir.Value, gradient: str | None) -> None:
        """One more part of the gradient of a value; UNKNOWN makes all of it unknown, None adds nothing."""
        name = str(value.name)
        before = self._found.get(name)
        if gradient is None:
            return
        if before is None:
            self._found[name] = gradient
        elif UNKNOWN in (before, gradient):
            self._found[name] = UNKNOWN
        else:
            self._found[name] = self.op("Add", before, gradient)

    def put(self, name: str, gradient: str) -> None:
        """The gradient of an output."""
        self._found[name] = gradient

    def behind(self, node: onnx_ir.Node) -> list[str | None]:
        """The gradients of the outputs of a node so far: names, UNKNOWN or None."""
        return [self._found.get(str(out.name)) for out in node.outputs]

    def of(self, name: str) -> str | None:
        """The name of the gradient of a value; None where it is not known, or the outputs do not depend on it."""
        found = self._found.get(name)
        return None if found in (None, UNKNOWN) else found

    def reduced(self, gradient: str, of: onnx_ir.Value, out: onnx_ir.Value) -> str:
        """The gradient of an operand that was broadcast: summed where it was repeated."""
        shape, whole = self.shape(of), self.shape(out)
        extra = len(whole) - len(shape)
        if extra:
            gradient = self.op("ReduceSum", gradient, self.ints(*range(extra)), keepdims=0)
        ones = [at for at, size in enumerate(shape) if size == 1 and whole[extra + at] != 1]
        return self.op("ReduceSum", gradient, self.ints(*ones), keepdims=1) if ones else gradient
