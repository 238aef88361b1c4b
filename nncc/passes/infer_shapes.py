"""shape(op(x)) is written beside op(x), for every operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, quiet

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["infer_shapes"]


def infer_shapes(graph: onnx_ir.Model) -> Report:
    """Annotate every value with the type and shape that onnx infers, data propagation included. Never a rewrite."""
    from onnx_ir.passes.common import ShapeInferencePass

    from nncc.passes.infer_regions import infer_regions

    with quiet():
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)
        while infer_regions(graph):
            ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)
    return Report()
