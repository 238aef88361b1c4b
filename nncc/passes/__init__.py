"""Rewrites, one a file; the table says which run, and in which order. Importing it loads no onnx, numpy or TVM."""

from __future__ import annotations

from nncc.passes.canonical_arithmetic import canonical_arithmetic
from nncc.passes.canonical_quantization import canonical_quantization
from nncc.passes.drop_noops import drop_noops
from nncc.passes.drop_requantize import drop_implied_clips, drop_requantize
from nncc.passes.expand_loops import expand_loops
from nncc.passes.fold_affine import expand_batch_norm, fold_affine_after, fold_affine_before
from nncc.passes.fold_constants import fold_constants
from nncc.passes.fold_pads import explicit_pads, fold_pads
from nncc.passes.fold_quantize import fold_quantize
from nncc.passes.fold_quantized_affine import fold_quantized_affine
from nncc.passes.infer_shapes import infer_shapes
from nncc.passes.integer_matmuls import integer_matmuls
from nncc.passes.merge_reshapes import merge_reshapes
from nncc.passes.merge_transposes import merge_transposes
from nncc.passes.qoperators import qoperators_to_qdq
from nncc.passes.remove_unused import merge_equal, remove_unused
from nncc.passes.resolve_sequences import resolve_sequences
from nncc.passes.sink_dequantize import sink_dequantize
from nncc.passes.widen_integers import widen_integers

__all__ = ["SIMPLIFY"]

SIMPLIFY = (
    qoperators_to_qdq,
    integer_matmuls,
    infer_shapes,
    expand_loops,
    resolve_sequences,
    fold_constants,
    canonical_quantization,
    widen_integers,
    fold_quantize,
    drop_noops,
    merge_transposes,
    merge_reshapes,
    merge_equal,
    explicit_pads,
    fold_pads,
    sink_dequantize,
    drop_requantize,
    drop_implied_clips,
    fold_affine_after,
    fold_affine_before,
    fold_quantized_affine,
    expand_batch_norm,
    canonical_arithmetic,
    remove_unused,
)
"""Portable rewrites: ``pass_(graph: onnx_ir.Model) -> Report``, in place, run in this order until none finds work."""
