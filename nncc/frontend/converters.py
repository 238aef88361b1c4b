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
from nncc.operators.batch_normalization import batch_normalization
from nncc.operators.bit_cast import bit_cast
from nncc.operators.bit_shift import bit_shift
from nncc.operators.col2im import col2im
from nncc.operators.compress import compress
from nncc.operators.constant import constant, constant_of_shape
from nncc.operators.conv_transpose import conv_transpose
from nncc.operators.cumulative import cum_prod, cum_sum
from nncc.operators.deform_conv import deform_conv
from nncc.operators.det import det
from nncc.operators.dft import dft, stft
from nncc.operators.dropout import dropout
from nncc.operators.einsum import einsum
from nncc.operators.elu import elu
from nncc.operators.equal import equal
from nncc.operators.eye_like import eye_like
from nncc.operators.gather import gather_elements, gather_nd
from nncc.operators.grid_sample import grid_sample
from nncc.operators.gru import gru
from nncc.operators.hyperbolic import cosh, sinh
from nncc.operators.is_inf import is_inf
from nncc.operators.lp_normalization import lp_normalization
from nncc.operators.lstm import lstm
from nncc.operators.max_unpool import max_unpool
from nncc.operators.mel_weight_matrix import mel_weight_matrix
from nncc.operators.modulo import modulo
from nncc.operators.narrow_floats import decode_narrow, encode_narrow
from nncc.operators.non_max_suppression import non_max_suppression
from nncc.operators.non_zero import non_zero
from nncc.operators.one_hot import one_hot
from nncc.operators.pad import pad
from nncc.operators.pooling import average_pool, lp_pool, max_pool
from nncc.operators.power import power
from nncc.operators.prelu import prelu
from nncc.operators.random import bernoulli, multinomial, random_normal, random_uniform
from nncc.operators.reduce import REDUCTIONS
from nncc.operators.regions import max_roi_pool, roi_align
from nncc.operators.reshape import reshape
from nncc.operators.resize import resize, upsample
from nncc.operators.rnn import rnn
from nncc.operators.scatter import scatter_elements, scatter_nd
from nncc.operators.sequences import reverse_sequence, tensor_scatter, top_k
from nncc.operators.softmax import log_softmax, softmax
from nncc.operators.split import split
from nncc.operators.unique import unique
from nncc.operators.variadic import VARIADIC

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


CONVERTERS: dict[str, Callable[[Any, Sequence[Any], Any], Any]] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Bernoulli": bernoulli,
    "BitCast": bit_cast,
    "BitShift": bit_shift,
    "Clip": clip,
    "Col2Im": col2im,
    "Compress": compress,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "Cosh": cosh,
    "CumProd": cum_prod,
    "CumSum": cum_sum,
    "DFT": dft,
    "DecodeNarrow": decode_narrow,
    "DeformConv": deform_conv,
    "DequantizeLinear": dequantize_linear,
    "Det": det,
    "Dropout": dropout,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "Einsum": einsum,
    "Elu": elu,
    "EncodeNarrow": encode_narrow,
    "Equal": equal,
    "EyeLike": eye_like,
    "GRU": gru,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "GridSample": grid_sample,
    "IsInf": is_inf,
    "LSTM": lstm,
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_normalization,
    "LpPool": lp_pool,
    "MatMulInteger": matmul_integer,
    "MaxPool": max_pool,
    "MaxRoiPool": max_roi_pool,
    "MaxUnpool": max_unpool,
    "MelWeightMatrix": mel_weight_matrix,
    "Mod": modulo,
    "Multinomial": multinomial,
    "NonMaxSuppression": non_max_suppression,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "PRelu": prelu,
    "Pad": pad,
    "Pow": power,
    "QuantizeLinear": quantize_linear,
    "RNN": rnn,
    "RandomNormal": random_normal,
    "RandomNormalLike": random_normal,
    "RandomUniform": random_uniform,
    "RandomUniformLike": random_uniform,
    "Reshape": reshape,
    "Resize": resize,
    "ReverseSequence": reverse_sequence,
    "RoiAlign": roi_align,
    "STFT": stft,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Sinh": sinh,
    "Softmax": softmax,
    "Split": split,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "Unique": unique,
    "Upsample": upsample,
    **REDUCTIONS,
    **VARIADIC,
}
"""By operator of the standard domain."""
