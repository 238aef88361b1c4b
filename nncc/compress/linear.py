"""Products with constant weights as matrices: rows are the positions of the output, columns what each one sums up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import attribute, constant, is_op

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["MOST_COLUMNS", "Linear", "linear", "set_constant", "values"]

MOST_COLUMNS = 4608
"""Inputs of a product, each pixel of its window counted: the normal equations of more would take over 170 MB."""


@dataclass(frozen=True)
class Linear:
    """A product with constant weights as a matrix: rows are positions, columns are inputs and, last, the bias."""

    node: onnx_ir.Node
    matrix: np.ndarray
    """[inputs, outputs], float64; of a depthwise convolution [channels, window, 1]."""
    bias: np.ndarray | None
    restore: Callable[[np.ndarray], np.ndarray]
    """The matrix as weights of the node."""

    def whole(self) -> np.ndarray:
        """The matrix with the bias as its last row, if there is one."""
        import numpy as np

        if self.bias is None:
            return self.matrix
        row = self.bias.astype(np.float64)
        row = row[:, None, None] if self.matrix.ndim == 3 else row[None]
        return np.concatenate([self.matrix, row], axis=-2)

    def write(self, whole: np.ndarray) -> None:
        """Make such a matrix the weights and the bias of the node."""
        import numpy as np

        if self.bias is not None:
            set_constant(self.node, 2, np.ascontiguousarray(whole[..., -1, :].reshape(-1), np.float32))
            whole = whole[..., :-1, :]
        set_constant(self.node, 1, np.ascontiguousarray(self.restore(whole), np.float32))


def linear(node: onnx_ir.Node) -> Linear | None:
    """The product as a matrix; None for what is none, or cannot be fitted."""
    import numpy as np

    if not is_op(node, "Conv", "Gemm", "MatMul"):
        return None
    weight = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if weight is None or weight.ndim < 2 or weight.dtype != np.float32 or (bias is not None and bias.ndim != 1):
        return None
    if (
        is_op(node, "Gemm")
        and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), attribute(node, "transA", 0)) != (1.0, 1.0, 0)
    ) or (is_op(node, "MatMul") and weight.ndim != 2):
        return None
    wide = weight.astype(np.float64)
    shape = weight.shape
    if is_op(node, "Conv"):
        if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return None
        groups = int(attribute(node, "group", 1))
        if groups > 1:
            if shape[1] != 1 or shape[0] != groups:
                return None
            return Linear(node, wide.reshape(groups, -1, 1), bias, lambda matrix: matrix.reshape(shape))
        matrix = wide.reshape(shape[0], -1).T
        restore: Callable[[np.ndarray], np.ndarray] = lambda matrix: matrix.T.reshape(shape)  # noqa: E731
    elif is_op(node, "Gemm") and attribute(node, "transB", 0):
        matrix, restore = wide.T, lambda matrix: matrix.T
    else:
        matrix, restore = wide, lambda matrix: matrix
    return Linear(node, matrix, bias, restore) if len(matrix) <= MOST_COLUMNS else None


def values(graph: onnx_ir.Model, name: str, samples: Sequence[Mapping[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """One value for each sample, by a graph of what it needs alone."""
    from nncc.passes.remove_unused import remove_unused
    from nncc.quant.session import open_graph

    given = {str(value.name) for value in graph.graph.inputs}
    if name in given:
        yield from (sample[name] for sample in samples)
        return
    part = graph.clone()
    value = next(out for node in part.graph for out in node.outputs if out.name == name)
    part.graph.outputs[:] = [value]
    remove_unused(part)
    session = open_graph(part)
    for sample in samples:
        yield session.run(sample, [name])[0]


def set_constant(node: onnx_ir.Node, at: int, array: np.ndarray) -> None:
    """Give the node a constant of its own, in place of one that it may share."""
    import onnx_ir

    from nncc.passes.rewriting import add_constant

    value = node.inputs[at]
    assert value is not None and node.graph is not None
    if value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
        value.const_value = onnx_ir.tensor(array, name=value.name)
        value.shape = onnx_ir.Shape(array.shape)
    else:
        node.replace_input_with(at, add_constant(node.graph, array, str(value.name)))  # type: ignore[arg-type]
