"""A graph as torch runs it: a differentiable interpreter, one function of `OPERATORS` for each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nncc.distillation.operators import OPERATORS
from nncc.distillation.rounding import rounded
from nncc.errors import ModelError
from nncc.passes.rewriting import add_constant, attribute, constant, is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

    from nncc.distillation.weights import Weight

__all__ = ["Network", "free_batch", "trainable_graph"]

_OPSET = 17
"""What graphs of an opset below 13 are raised to: since then, axes and sizes are operands."""


def trainable_graph(graph: onnx_ir.Model, weights: Sequence[Weight]) -> onnx_ir.Model:
    """A copy for the interpreter: of a known opset, its constants folded, its weights left alone as inputs.

    Raises ModelError that names the operators which cannot be trained through.
    """
    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.remove_unused import remove_unused
    from nncc.quant.prepare import raised

    graph = raised(graph, 13, _OPSET)
    main = graph.graph
    for weight in weights:
        value = main.initializers.pop(weight.name, None)
        if value is None:
            raise ModelError(f"raising the opset lost the weight `{weight.name}`", f"export with opset {_OPSET}")
        value.const_value = None
        main.inputs.append(value)
    infer_shapes(graph)
    fold_constants(graph)
    remove_unused(graph)
    _refuse_others(graph)
    free_batch(graph)
    return graph


def free_batch(graph: onnx_ir.Model) -> None:
    """Reshape keeps the leading axis, whatever its size, where the graph says that it is 1 before and behind."""
    for node in graph.graph:
        if is_op(node, "Reshape") and not attribute(node, "allowzero", 0):
            shape, given = constant(node.inputs[1]), static_shape(node.inputs[0])
            if shape is not None and given and shape.size and given[0] == 1 == shape[0]:
                sizes = shape.copy()
                sizes[0] = 0
                node.replace_input_with(1, add_constant(graph.graph, sizes, f"{node.outputs[0].name}/shape"))


def _refuse_others(graph: onnx_ir.Model) -> None:
    import onnx_ir

    found: dict[str, list[str]] = {}
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        more = not is_op(node, "Split") and any(out.uses() or out.is_graph_output() for out in node.outputs[1:])
        if not is_op(node, *OPERATORS) or more:
            kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain} {node.op_type}"
            found.setdefault(kind + (" with several results" if more and is_op(node, *OPERATORS) else ""), []).append(
                node.name or str(node.outputs[0].name)
            )
    if found:
        lines = [
            f"  {kind}: {len(names)} x, {', '.join(f'`{n}`' for n in names[:3])}{', ...' if len(names) > 3 else ''}"
            for kind, names in sorted(found.items())
        ]
        count = f"{len(found)} operator{'s' if len(found) > 1 else ''} that cannot be trained through"
        raise ModelError(f"the student has {count}:\n" + "\n".join(lines), "cut the model before them")


@dataclass(frozen=True)
class _Step:
    """One node: which values it reads and makes, and which of the former nothing needs later."""

    node: onnx_ir.Node
    operands: tuple[str | None, ...]
    results: tuple[str, ...]
    done: tuple[str, ...]


class Network(torch.nn.Module):
    """A `trainable_graph` and its weights, which are its parameters in their order."""

    def __init__(self, graph: onnx_ir.Model, weights: Sequence[Weight]) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.numbers = torch.nn.ParameterList(torch.nn.Parameter(_tensor(w.start)) for w in weights)
        self._keep = [None if w.keep is None else _tensor(w.keep) for w in weights]
        self._grids = [None if w.grid is None else (_tensor(w.grid.scale), _tensor(w.grid.zero_point)) for w in weights]
        self._constants = {
            name: _tensor(array)
            for name, value in graph.graph.initializers.items()
            if (array := constant(value)) is not None
        }
        self.outputs = tuple(str(value.name) for value in graph.graph.outputs)
        self._steps = _steps(graph)

    def real(self) -> dict[str, np.ndarray]:
        """The weights as they are now, by name, float32; a copy."""
        kept = zip(self.weights, self.numbers, self._keep, strict=True)
        return {w.name: (p if k is None else p * k).detach().numpy().copy() for w, p, k in kept}

    def forward(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
        """The values of these names. Raises ModelError for a form of an operator that torch lacks."""
        values: dict[str, Tensor] = {**self._constants, **inputs}
        for weight, number, keep, grid in zip(self.weights, self.numbers, self._keep, self._grids, strict=True):
            value = number if keep is None else number * keep
            if grid is not None and weight.grid is not None:
                value = torch.clamp(rounded(value / grid[0]) + grid[1], weight.grid.low, weight.grid.high)
            values[weight.name] = value
        wanted, found = set(names), {}
        for name in wanted & set(values):
            found[name] = values[name]
        for step in self._steps:
            made = OPERATORS[step.node.op_type](step.node, *(None if n is None else values[n] for n in step.operands))
            for name, value in zip(step.results, made if isinstance(made, tuple) else (made,), strict=False):
                values[name] = value
                if name in wanted:
                    found[name] = value
            for name in step.done:
                values.pop(name, None)
        return [found[name] for name in names]


def _steps(graph: onnx_ir.Model) -> tuple[_Step, ...]:
    last: dict[str, int] = {}
    for at, node in enumerate(graph.graph):
        for value in node.inputs:
            if value is not None:
                last[str(value.name)] = at
    done: dict[int, list[str]] = {}
    for name, at in last.items():
        done.setdefault(at, []).append(name)
    return tuple(
        _Step(
            node,
            tuple(None if value is None else str(value.name) for value in node.inputs),
            tuple(str(value.name) for value in node.outputs),
            tuple(done.get(at, ())),
        )
        for at, node in enumerate(graph.graph)
    )


def _tensor(array: np.ndarray) -> Tensor:
    """A copy as torch's tensor; integers of fewer than 8 bits become int8 or int16."""
    if array.dtype.name in ("int4", "int2", "uint2"):
        array = array.astype(np.int8)
    elif array.dtype.name == "uint4":
        array = array.astype(np.int16)
    elif array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))
