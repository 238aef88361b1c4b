"""Rewrites, one a file; the tables say which run, and in which order."""

from __future__ import annotations

from nncc.passes.drop_noops import drop_noops
from nncc.passes.fold_constants import fold_constants
from nncc.passes.infer_shapes import infer_shapes
from nncc.passes.remove_unused import merge_equal, remove_unused

__all__ = ["SIMPLIFY"]

SIMPLIFY = (
    infer_shapes,
    fold_constants,
    drop_noops,
    merge_equal,
    remove_unused,
)
"""Portable rewrites: ``pass_(graph: onnx_ir.Model) -> Report``, in place, run in this order until none finds work."""
