"""Shapes of outputs that inference leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import ModelError, RunError
from nncc.frontend.binding import bind_hint
from nncc.ir import Model, TensorSpec
from nncc.passes.rewriting import is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["derive_outputs"]

MOST_TRIAL_BYTES = 2**31
"""Of inputs: with larger ones a model is not run while it is imported."""


def derive_outputs(graph: onnx_ir.Model, name: str, inputs: tuple[TensorSpec, ...]) -> None:
    """Set output shapes that inference left open: fold shape arithmetic, then run the model if it ends.

    Raises ModelError where it cannot be run on its inputs, and so nothing is known.
    """
    import onnx_ir

    from nncc.passes.expand_loops import expand_loops
    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.integer_matmuls import integer_matmuls
    from nncc.passes.qoperators import qoperators_to_qdq
    from nncc.passes.resolve_sequences import resolve_sequences

    trial = graph.clone()
    for pass_ in (qoperators_to_qdq, integer_matmuls):  # inference knows the standard operators only
        pass_(trial)
    for _ in range(4):
        infer_shapes(trial)
        if not sum(pass_(trial).rewrites for pass_ in (expand_loops, resolve_sequences, fold_constants)):
            break
    for value, found in zip(graph.graph.outputs, trial.graph.outputs, strict=True):
        if static_shape(value) is None and static_shape(found) is not None:
            value.shape, value.type = found.shape, value.type or found.type
    unknown = [value for value in graph.graph.outputs if static_shape(value) is None]
    if not unknown or any(is_op(n, "Loop") for n in onnx_ir.traversal.RecursiveGraphIterator(trial.graph)):
        return  # a loop might run without end
    from nncc.frontend.samples import fill
    from nncc.frontend.unsupported import unsupported
    from nncc.verify import reference

    names = [str(value.name) for value in unknown]
    model = Model(trial, name, inputs, ())
    if (nbytes := sum(spec.nbytes for spec in inputs)) > MOST_TRIAL_BYTES:
        raise ModelError(
            f"the shape of output `{names[0]}` cannot be derived from the shapes of the inputs, and the model cannot be"
            f" tried out: its inputs have {nbytes:,} bytes",
            "choose smaller inputs with `--shape`",
        )
    try:
        runs = [reference(model, fill(inputs, mode, seed=7), outputs=names) for mode in ("zeros", "random", "ones")]
    except RunError as error:
        standard = {node.op_type for node in onnx_ir.traversal.RecursiveGraphIterator(trial.graph) if _standard(node)}
        if foreign := unsupported(model, {"": standard}):
            raise foreign from error
        raise ModelError(
            f"the shape of output `{names[0]}` cannot be derived from the shapes of the inputs: {error.message}",
            bind_hint(graph, "it may depend on the data: cut the model before it"),
        ) from error
    for value in unknown:
        shapes = {tuple(run[str(value.name)].shape) for run in runs}
        if len(shapes) == 1:
            value.shape = onnx_ir.Shape(shapes.pop())


def _standard(node: onnx_ir.Node) -> bool:
    return node.domain in ("", "ai.onnx")
