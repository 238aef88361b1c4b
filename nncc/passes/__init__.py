"""Rewrites, one a file; the table says which run, and in which order. Importing it loads no onnx, numpy or TVM."""

from __future__ import annotations

from nncc.passes.canonical_arithmetic import canonical_arithmetic
from nncc.passes.drop_noops import drop_noops
from nncc.passes.fold_affine import expand_batch_norm, fold_affine_after, fold_affine_before
from nncc.passes.fold_constants import fold_constants
from nncc.passes.fold_pads import explicit_pads, fold_pads
from nncc.passes.infer_shapes import infer_shapes
from nncc.passes.merge_reshapes import merge_reshapes
from nncc.passes.merge_transposes import merge_transposes
from nncc.passes.remove_unused import merge_equal, remove_unused

__all__ = ["SIMPLIFY"]

SIMPLIFY = (
    infer_shapes,
    fold_constants,
    drop_noops,
    merge_transposes,
    merge_reshapes,
    merge_equal,
    explicit_pads,
    fold_pads,
    fold_affine_after,
    fold_affine_before,
    expand_batch_norm,
    canonical_arithmetic,
    remove_unused,
)
"""Portable rewrites: ``pass_(graph: onnx_ir.Model) -> Report``, in place, run in this order until none finds work."""
