"""Definitions of operators in ONNX's textual form: how they are written, and what they ask of the node they define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.rewriting import attribute, node_text, static_shape

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir

__all__ = ["Definition", "Text", "UnknownShape", "has", "kept", "number", "sizes"]

MOST_PLACES = 2**24
"""Of one axis, where each place is written down."""


class UnknownShape(ModelError):
    """A definition depends on a shape that is not known, or not known yet: what stands before may become known."""


def has(node: onnx_ir.Node, at: int) -> bool:
    """Whether operand `at` is there."""
    return at < len(node.inputs) and node.inputs[at] is not None


def sizes(node: onnx_ir.Node, at: int) -> tuple[int, ...]:
    """The shape of operand `at`. Raises UnknownShape, and ModelError where there is no operand."""
    if not has(node, at):
        raise ModelError(f"{node_text(node)} has no operand {at}")
    shape = static_shape(node.inputs[at])
    if shape is None:
        raise UnknownShape(
            f"{node_text(node)} has an operand {at} whose shape is not known",
            "run ONNX's shape inference, or fix open dimensions with `--shape`",
        )
    return shape


def number(node: onnx_ir.Node, name: str, default: float) -> float:
    """An attribute that is a number; a ModelError where it is something else."""
    value = attribute(node, name, default)
    if not isinstance(value, (int, float)):
        raise ModelError(f"{node_text(node)} has an attribute `{name}` that is no number")
    return value


def kept(node: onnx_ir.Node, names: Sequence[str]) -> str:
    """Those attributes of a node, as words of its definition."""
    values = {name: attribute(node, name) for name in names if name in node.attributes}
    words = ", ".join(f'{name} = "{v}"' if isinstance(v, str) else f"{name} = {v!r}" for name, v in values.items())
    return f"<{words}>" if words else ""


@dataclass(frozen=True)
class Definition:
    """A definition: its text, and by name the constants that this leaves out, since they would be long."""

    text: str
    tensors: Mapping[str, np.ndarray]

    def function(self, domain: str, opset: int) -> onnx.FunctionProto:
        """As a function that uses the standard's operators of this version."""
        import onnx

        made = onnx.parser.parse_function(f'<opset_import: ["" : {opset}], domain: "{domain}"> {self.text}')
        for name, array in self.tensors.items():
            made.node.insert(
                0, onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))
            )
        return made


class Text:
    """The body of a definition in the making: each operator a line, names of values free."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.lines: list[str] = []
        self.tensors: dict[str, np.ndarray] = {}

    def let(self, names: str, expression: str) -> None:
        """``names = expression``"""
        self.lines.append(f"{names} = {expression}")

    def new(self, expression: str) -> str:
        """The name of a new value."""
        name = f"v{len(self.lines)}"
        self.let(name, expression)
        return name

    def number(self, value: float) -> str:
        """A scalar of float32."""
        return self.new(f"Constant <value_float = {float(value)!r}> ()")

    def scalar(self, value: float, like: str) -> str:
        """A scalar of the type of another value."""
        return self.new(f"CastLike ({self.number(value)}, {like})")

    def integers(self, values: Sequence[int]) -> str:
        """A row of int64."""
        words = ", ".join(map(str, values))
        return self.new(f"Constant <value_ints = [{words}]> ()")

    def tensor(self, array: np.ndarray) -> str:
        """A constant of any type and size."""
        name = f"t{len(self.tensors)}"
        self.tensors[name] = array
        return name

    def places(self, first: int, last: int, shape: Sequence[int] = (-1,)) -> str:
        """The integers from `first` to below `last`, as int64 of a shape. Raises ModelError for very many."""
        import numpy as np

        if last - first > MOST_PLACES:
            raise ModelError(f"a sequence of {last - first:,} elements is longer than nncc takes ({MOST_PLACES:,})")
        return self.tensor(np.arange(first, last, dtype=np.int64).reshape(shape))

    def slice(self, x: str, axis: int, first: int, last: int, step: int = 1) -> str:
        """Elements ``first:last:step`` along an axis."""
        words = ", ".join(self.integers([each]) for each in (first, last, axis, step))
        return self.new(f"Slice ({x}, {words})")

    def mean(self, x: str) -> str:
        """The mean along the last axis, which stays."""
        if self.opset < 18:
            return self.new(f"ReduceMean <axes = [-1], keepdims = 1> ({x})")
        return self.new(f"ReduceMean <keepdims = 1> ({x}, {self.integers([-1])})")

    def heads(self, x: str, heads: int, width: int) -> str:
        """[batch, length, heads width] as [batch, heads, length, width]."""
        split = self.new(f"Reshape ({x}, {self.integers([0, 0, heads, width])})")
        return self.new(f"Transpose <perm = [0, 2, 1, 3]> ({split})")

    def joined(self, x: str) -> str:
        """The expression of [batch, heads, length, width] as [batch, length, heads width]."""
        return f"Reshape ({self.new(f'Transpose <perm = [0, 2, 1, 3]> ({x})')}, {self.integers([0, 0, -1])})"

    def definition(self, operands: str, results: str) -> Definition:
        """The whole of it."""
        text = f"definition ({operands}) => ({results}) {{ {' '.join(self.lines)} }}"
        return Definition(text, dict(self.tensors))
