"""ONNX operators that are imported by us and not by TVM's importer: its form is wrong, slow, or missing.

A converter takes (block builder, inputs, attributes) and returns a Relax expression, or None to leave the node to
TVM's; an input that is left out is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax
from nncc.frontend.integer_converters import conv_integer, matmul_integer
from nncc.frontend.quantization_converters import dequantize_linear, dynamic_quantize_linear, quantize_linear
from nncc.operators.col2im import col2im
from nncc.operators.conv_transpose import conv_transpose
from nncc.operators.cumulative import cum_prod, cum_sum
from nncc.operators.deform_conv import deform_conv
from nncc.operators.det import det
from nncc.operators.dft import dft, stft
from nncc.operators.einsum import einsum
from nncc.operators.gather import gather_elements, gather_nd
from nncc.operators.grid_sample import grid_sample
from nncc.operators.gru import gru
from nncc.operators.hyperbolic import cosh, sinh
from nncc.operators.lstm import lstm
from nncc.operators.max_unpool import max_unpool
from nncc.operators.mel_weight_matrix import mel_weight_matrix
from nncc.operators.pooling import average_pool, lp_pool, max_pool
from nncc.operators.random import bernoulli, multinomial, random_normal, random_uniform
from nncc.operators.regions import max_roi_pool, roi_align
from nncc.operators.resize import resize, upsample
from nncc.operators.rnn import rnn
from nncc.operators.scatter import scatter_elements, scatter_nd
from nncc.operators.sequences import reverse_sequence, tensor_scatter, top_k

__all__ = ["CONVERTERS"]


def clip(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """min(max(x, low), high), elementwise; a bound that is NaN or left out does not bound.

    TVM's makes four operators of it, which nothing is fused with.
    """
    x, *bounds = inputs
    bounds = [*bounds, None, None][:2]
    for i, name in enumerate(("min", "max")):
        if name in attributes:  # before opset 11
            bounds[i] = relax.const(attributes[name], str(x.ty.dtype))
    result = x
    for bound, apply, is_max in zip(bounds, (relax.op.maximum, relax.op.minimum), (False, True), strict=True):
        if bound is None:
            continue
        if isinstance(bound, GenericConst):
            if np.isnan(constant_array(bound)).any():
                continue
            bound = relax.const(constant_array(bound).reshape(()), str(x.ty.dtype))
        elif "float" in str(x.ty.dtype):
            unbounded = relax.const(np.inf if is_max else -np.inf, str(x.ty.dtype))
            bound = builder.emit(relax.op.where(relax.op.isnan(bound), unbounded, bound))
        result = builder.emit(apply(result, bound))
    return result


def pad(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """A constant, mirrored or repeated border of constant widths as one operator, which keeps its layout open.

    TVM's makes a kernel of it at once.
    """
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = modes.get(_text(attributes.get("mode", "constant")))
    x, amounts, filler, axes = [*inputs, None, None, None][:4]
    if mode is None or axes is not None or not isinstance(amounts, GenericConst):
        return None
    if filler is not None and not isinstance(filler, GenericConst):
        return None
    widths = [int(n) for n in constant_array(amounts)]
    rank = len(x.ty.shape)
    if len(widths) != 2 * rank or (min(widths) < 0 and mode != "constant") or str(x.ty.dtype) != "float32":
        return None
    value = float(constant_array(filler).reshape(())) if filler is not None else 0.0
    pairs = [width for axis in range(rank) for width in (widths[axis], widths[rank + axis])]
    return relax.op.nn.pad(x, pairs, mode, value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


CONVERTERS: dict[str, Callable[[Any, Sequence[Any], Any], Any]] = {
    "AveragePool": average_pool,
    "Bernoulli": bernoulli,
    "Clip": clip,
    "Col2Im": col2im,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "Cosh": cosh,
    "CumProd": cum_prod,
    "CumSum": cum_sum,
    "DFT": dft,
    "DeformConv": deform_conv,
    "DequantizeLinear": dequantize_linear,
    "Det": det,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "Einsum": einsum,
    "GRU": gru,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "GridSample": grid_sample,
    "LSTM": lstm,
    "LpPool": lp_pool,
    "MatMulInteger": matmul_integer,
    "MaxPool": max_pool,
    "MaxRoiPool": max_roi_pool,
    "MaxUnpool": max_unpool,
    "MelWeightMatrix": mel_weight_matrix,
    "Multinomial": multinomial,
    "Pad": pad,
    "QuantizeLinear": quantize_linear,
    "RNN": rnn,
    "RandomNormal": random_normal,
    "RandomNormalLike": random_normal,
    "RandomUniform": random_uniform,
    "RandomUniformLike": random_uniform,
    "Resize": resize,
    "ReverseSequence": reverse_sequence,
    "RoiAlign": roi_align,
    "STFT": stft,
    "Sinh": sinh,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "Upsample": upsample,
}
"""By operator of the standard domain."""
