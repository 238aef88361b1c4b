"""Operators of com.microsoft that exported and fused models contain, as definitions in terms of the standard's.

Their source is ONNX Runtime's docs/ContribOperators.md. `nncc.passes.qoperators` has those from integers to integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, has, kept, number, sizes
from nncc.frontend.microsoft_attention import attention, group_query_attention, multi_head_attention
from nncc.frontend.microsoft_quantized import (
    dynamic_quantize_lstm,
    matmul_integer16,
    nhwc_max_pool,
    quantized_attention,
    quantized_embedding,
)
from nncc.frontend.microsoft_transformers import (
    bias_gelu,
    embed_layer_normalization,
    fast_gelu,
    gelu,
    quick_gelu,
    rotary_embedding,
    simplified_layer_normalization,
    skip_layer_normalization,
    skip_simplified_layer_normalization,
)
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["DEFINITIONS", "MICROSOFT", "claim_strays"]

MICROSOFT = "com.microsoft"
STRAYS = ("LayerNormalization", "SimplifiedLayerNormalization")
"""Operators that ONNX Runtime has in the standard domain, in opsets in which the standard has not."""


def _fused_matmul(node: onnx_ir.Node, opset: int) -> Definition:
    """alpha op(A) op(B)"""
    if number(node, "transBatchA", 0) or number(node, "transBatchB", 0):
        raise ModelError(f"{node_text(node)} transposes batches, which cannot be compiled", "export it without fusions")
    text = Text(opset)
    operands = []
    for at, name in enumerate("AB"):
        turned = number(node, f"trans{name}", 0)
        operands.append(text.new(f"Transpose <perm = {_swapped(node, at)}> ({name})") if turned else name)
    product, alpha = f"MatMul ({', '.join(operands)})", number(node, "alpha", 1.0)
    if alpha != 1.0:
        product = text.new(product)
        product = f"Mul ({product}, {text.scalar(alpha, product)})"
    text.let("Y", product)
    return text.definition("A, B", "Y")


def _swapped(node: onnx_ir.Node, at: int) -> list[int]:
    """The permutation that exchanges the last two axes of operand `at`."""
    axes = list(range(len(sizes(node, at))))
    if len(axes) < 2:
        raise ModelError(f"{node_text(node)} transposes an operand of {len(axes)} axes")
    axes[-1], axes[-2] = axes[-2], axes[-1]
    return axes


def _gelu(node: onnx_ir.Node, opset: int) -> Definition:
    text = Text(opset)
    gelu(text, "X", "Y")
    return text.definition("X", "Y")


_ACTIVATIONS = {
    "": "Identity",
    "Relu": "Relu",
    "Tanh": "Tanh",
    "Sigmoid": "Sigmoid",
    "LeakyRelu": "LeakyRelu <alpha = {0!r}>",
    "HardSigmoid": "HardSigmoid <alpha = {0!r}, beta = {1!r}>",
}
"""By the attribute `activation`: the operator, with its parameters."""


def _activation(node: onnx_ir.Node) -> str:
    name = str(attribute(node, "activation", ""))
    if name not in _ACTIVATIONS:
        raise ModelError(f"{node_text(node)} has the activation `{name}`, which cannot be compiled")
    names = ("activation_alpha", "activation_beta")
    given = attribute(node, "activation_params", None) or [attribute(node, each, 0.01) for each in names]
    return _ACTIVATIONS[name].format(*map(float, given), *(0.0, 0.0))


def _fused_conv(node: onnx_ir.Node, opset: int) -> Definition:
    """activation(conv(X, W, B) + Z)"""
    text = Text(opset)
    words = kept(node, ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"))
    made = text.new(f"Conv {words} (X, W{', B' if has(node, 2) else ''})")
    if has(node, 3):
        made = text.new(f"Add ({made}, Z)")
    text.let("Y", f"{_activation(node)} ({made})")
    return text.definition("X, W, B, Z", "Y")


def _fused_gemm(node: onnx_ir.Node, opset: int) -> Definition:
    """activation(gemm(A, B, C))"""
    text = Text(opset)
    words = kept(node, ("alpha", "beta", "transA", "transB"))
    made = text.new(f"Gemm {words} (A, B{', C' if has(node, 2) else ''})")
    text.let("Y", f"{_activation(node)} ({made})")
    return text.definition("A, B, C", "Y")


def _layer_normalization(node: onnx_ir.Node, opset: int) -> Definition:
    text = Text(opset)
    words = f"axis = {int(number(node, 'axis', -1))}, epsilon = {float(number(node, 'epsilon', 1e-5))!r}"
    shift = ", B" if has(node, 2) else ""
    text.let("Y, Mean, InvStdDev", f"LayerNormalization <{words}> (X, Scale{shift})")
    return text.definition("X, Scale, B", "Y, Mean, InvStdDev")


DEFINITIONS: dict[str, Callable[[onnx_ir.Node, int], Definition]] = {
    "Attention": attention,
    "BiasGelu": bias_gelu,
    "DynamicQuantizeLSTM": dynamic_quantize_lstm,
    "EmbedLayerNormalization": embed_layer_normalization,
    "FastGelu": fast_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu,
    "GroupQueryAttention": group_query_attention,
    "LayerNormalization": _layer_normalization,
    "MatMulInteger16": matmul_integer16,
    "MultiHeadAttention": multi_head_attention,
    "NhwcMaxPool": nhwc_max_pool,
    "QAttention": quantized_attention,
    "QEmbedLayerNormalization": quantized_embedding,
    "QuickGelu": quick_gelu,
    "RotaryEmbedding": rotary_embedding,
    "SimplifiedLayerNormalization": simplified_layer_normalization,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
}
"""By operator."""


def claim_strays(proto: onnx.ModelProto) -> bool:
    """Say, in place, of `STRAYS` that they are of com.microsoft where the standard does not have them; whether there
    were any."""
    import onnx

    versions = {opset.domain: opset.version for opset in proto.opset_import}
    version = versions.get("", versions.get("ai.onnx", 1))
    found = False
    for node in proto.graph.node:
        stray = node.op_type in STRAYS and node.domain in ("", "ai.onnx")
        if stray and not onnx.defs.has(node.op_type, version, ""):
            node.domain, found = MICROSOFT, True
    if found and MICROSOFT not in versions:
        proto.opset_import.add(domain=MICROSOFT, version=1)
    return found
