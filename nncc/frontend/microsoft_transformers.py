"""Operators of com.microsoft for transformers, as definitions in terms of the standard's: normalization and rotation.

Their source is ONNX Runtime's docs/ContribOperators.md; where that leaves something open, what its kernels for
processors do. Attention itself is in `nncc.frontend.microsoft_attention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, has, number, sizes
from nncc.passes.rewriting import node_text

if TYPE_CHECKING:
    import onnx_ir

__all__ = [
    "angles",
    "bias_gelu",
    "embed_layer_normalization",
    "embedding",
    "fast_gelu",
    "gelu",
    "quick_gelu",
    "rotary_embedding",
    "rotated",
    "simplified_layer_normalization",
    "skip_layer_normalization",
    "skip_simplified_layer_normalization",
]


def bias_gelu(node: onnx_ir.Node, opset: int) -> Definition:
    """gelu(A + B)"""
    text = Text(opset)
    text.let("X", "Add (A, B)")
    gelu(text, "X", "C")
    return text.definition("A, B", "C")


def gelu(text: Text, x: str, y: str) -> None:
    """y = x / 2 (1 + erf(x / sqrt(2)))"""
    root, half, one = (text.scalar(value, x) for value in (0.7071067811865476, 0.5, 1.0))
    error = text.new(f"Erf ({text.new(f'Mul ({x}, {root})')})")
    text.let(y, f"Mul ({text.new(f'Mul ({x}, {half})')}, {text.new(f'Add ({error}, {one})')})")


def fast_gelu(node: onnx_ir.Node, opset: int) -> Definition:
    """x / 2 (1 + tanh(x (0.7978846 + 0.0356774 x^2))) of X + bias"""
    text = Text(opset)
    x = text.new("Add (X, bias)") if has(node, 1) else "X"
    linear, cubic, half, one = (text.scalar(v, x) for v in (0.7978845608028654, 0.035677408136300125, 0.5, 1.0))
    square = text.new(f"Mul ({x}, {x})")
    slope = text.new(f"Add ({text.new(f'Mul ({square}, {cubic})')}, {linear})")
    bent = text.new(f"Tanh ({text.new(f'Mul ({x}, {slope})')})")
    text.let("Y", f"Mul ({text.new(f'Mul ({x}, {half})')}, {text.new(f'Add ({bent}, {one})')})")
    return text.definition("X, bias", "Y")


def quick_gelu(node: onnx_ir.Node, opset: int) -> Definition:
    """x sigmoid(alpha x)"""
    text = Text(opset)
    alpha = text.scalar(number(node, "alpha", 1.702), "X")
    steep = text.new(f"Mul (X, {alpha})")
    text.let("Y", f"Mul (X, {text.new(f'Sigmoid ({steep})')})")
    return text.definition("X", "Y")


def skip_layer_normalization(node: onnx_ir.Node, opset: int) -> Definition:
    """layer_normalization(input + skip + bias)"""
    text = Text(opset)
    _sum(text, node, 4)
    shift = ", beta" if has(node, 3) else ""
    epsilon = number(node, "epsilon", 1e-12)
    text.let(
        "output, mean, inv_std_var", f"LayerNormalization <axis = -1, epsilon = {epsilon!r}> (total, gamma{shift})"
    )
    text.let("input_skip_bias_sum", "Identity (total)")
    return text.definition("input, skip, gamma, beta, bias", "output, mean, inv_std_var, input_skip_bias_sum")


def skip_simplified_layer_normalization(node: onnx_ir.Node, opset: int) -> Definition:
    """root_mean_square_normalization(input + skip + bias)"""
    _refuse_results(node, 1, 2)
    text = Text(opset)
    _sum(text, node, 3)
    root_mean_square(text, "total", "gamma", "output", number(node, "epsilon", 1e-12))
    text.let("input_skip_bias_sum", "Identity (total)")
    return text.definition("input, skip, gamma, bias", "output, mean, inv_std_var, input_skip_bias_sum")


def simplified_layer_normalization(node: onnx_ir.Node, opset: int) -> Definition:
    """x / sqrt(mean(x^2) + epsilon) * scale along the last axis"""
    _refuse_results(node, 1)
    rank, axis = len(sizes(node, 0)), int(number(node, "axis", -1))
    if axis not in (-1, rank - 1):
        raise ModelError(f"{node_text(node)} is over the axes from {axis} on, and not the last one alone")
    text = Text(opset)
    root_mean_square(text, "X", "scale", "Y", number(node, "epsilon", 1e-5))
    return text.definition("X, scale", "Y, inv_std_var")


def _sum(text: Text, node: onnx_ir.Node, bias_at: int) -> None:
    added = text.new("Add (input, skip)") if has(node, bias_at) else ""
    text.let("total", f"Add ({added}, bias)" if added else "Add (input, skip)")


def root_mean_square(text: Text, x: str, gamma: str, y: str, epsilon: float) -> None:
    """y = x / sqrt(mean(x^2) + epsilon) * gamma along the last axis; of halves too in float32, rounded before gamma."""
    wide = text.new(f"Cast <to = 1> ({x})")
    mean = text.mean(text.new(f"Mul ({wide}, {wide})"))
    root = text.new(f"Sqrt ({text.new(f'Add ({mean}, {text.number(epsilon)})')})")
    normal = text.new(f"CastLike ({text.new(f'Div ({wide}, {root})')}, {x})")
    text.let(y, f"Mul ({normal}, {gamma})")


def _refuse_results(node: onnx_ir.Node, *places: int) -> None:
    for at in places:
        if at < len(node.outputs) and (node.outputs[at].uses() or node.outputs[at].is_graph_output()):
            raise ModelError(f"{node_text(node)} gives statistics for training, which cannot be compiled")


def embed_layer_normalization(node: onnx_ir.Node, opset: int) -> Definition:
    """layer_normalization(words[input_ids] + positions[position_ids] + segments[segment_ids])"""
    text = Text(opset)
    words = text.new("Gather (word_embedding, input_ids)")
    if has(node, 8):
        places = text.new("Gather (position_embedding, position_ids)")
    else:
        places = text.slice("position_embedding", 0, 0, sizes(node, 0)[1])
    segments = text.new("Gather (segment_embedding, segment_ids)") if has(node, 1) and has(node, 4) else ""
    embedding(text, node, words, places, segments)
    text.let("embedding_sum", "Identity (total)")
    names = "input_ids, segment_ids, word_embedding, position_embedding, segment_embedding, gamma, beta, mask"
    return text.definition(f"{names}, position_ids", "output, mask_index, embedding_sum")


def embedding(text: Text, node: onnx_ir.Node, words: str, places: str, segments: str) -> None:
    """``output``, the normalized sum of what was looked up, which is ``total``; `segments` where there are any.

    ``mask_index`` is how many of each row of the mask are 1.
    """
    added = text.new(f"Add ({words}, {places})") if segments else ""
    text.let("total", f"Add ({added}, {segments})" if segments else f"Add ({words}, {places})")
    epsilon = number(node, "epsilon", 1e-12)
    text.let("output", f"LayerNormalization <axis = -1, epsilon = {epsilon!r}> (total, gamma, beta)")
    if has(node, 7):
        wide = text.new("Cast <to = 6> (mask)")
        text.let("mask_index", f"ReduceSum <keepdims = 0> ({wide}, {text.integers([1])})")
    else:
        text.let("mask_index", f"ConstantOfShape <value = int32[1] {{0}}> ({text.integers([sizes(node, 0)[0]])})")


def rotary_embedding(node: onnx_ir.Node, opset: int) -> Definition:
    """Pairs of each head's elements turned by angles: (a cos - b sin, b cos + a sin)."""
    if number(node, "scale", 1.0) != 1.0 or number(node, "is_packed_batching", 0):
        raise ModelError(f"{node_text(node)} has a scale or packed batches, which cannot be compiled")
    text = Text(opset)
    shape, table = sizes(node, 0), sizes(node, 2)
    positions = sizes(node, 1)
    heads, width = int(number(node, "num_heads", 0)), int(number(node, "rotary_embedding_dim", 0))
    turned = width or 2 * table[1]
    if turned != 2 * table[1] or len(shape) not in (3, 4) or (width and len(shape) == 3 and heads < 1):
        raise ModelError(f"{node_text(node)} has sizes that do not fit: it turns {turned} of {shape}, by {table}")
    length, head = shape[-2], shape[-1]
    x = "input"
    if len(shape) == 3:
        head = shape[2] // heads if heads > 0 else turned
        if head < turned or shape[2] % head:
            raise ModelError(f"{node_text(node)} has heads that do not fit: {shape[2]} elements, {head} each")
        x = text.heads("input", shape[2] // head, head)
    steps, batch = "position_ids", shape[0]
    if len(positions) < 2:  # the first of them
        steps, batch = text.new(f"Add ({text.places(0, length)}, position_ids)"), 1
    tables = [angles(text, name, steps, batch, length, turned // 2) for name in ("cos_cache", "sin_cache")]
    made = rotated(text, x, (tables[0], tables[1]), turned, bool(number(node, "interleaved", 0)), turned < head)
    if len(shape) == 4:
        text.let("output", f"Identity ({made})")
    else:
        text.let("output", text.joined(made))
    return text.definition("input, position_ids, cos_cache, sin_cache", "output")


def angles(text: Text, table: str, steps: str, batch: int, length: int, pairs: int) -> str:
    """Rows of a table by positions, as [batch, 1, length, pairs]."""
    return text.new(f"Reshape ({text.new(f'Gather ({table}, {steps})')}, {text.integers([batch, 1, length, pairs])})")


def rotated(text: Text, x: str, tables: tuple[str, str], turned: int, interleaved: bool, more: bool) -> str:
    """The first `turned` elements of each row of `x` in pairs, neighbours or halves, as rotated; and whether there are
    `more`, which are kept.

    `tables` are cosines and sines, one a pair.
    """
    half = turned // 2
    if interleaved:
        a, b = (text.slice(x, -1, at, turned, 2) for at in (0, 1))
    else:
        a, b = text.slice(x, -1, 0, half), text.slice(x, -1, half, turned)
    cosine, sine = tables

    def product(value: str, factor: str) -> str:
        return text.new(f"Mul ({value}, {factor})")

    first = text.new(f"Sub ({product(a, cosine)}, {product(b, sine)})")
    second = text.new(f"Add ({product(b, cosine)}, {product(a, sine)})")
    if interleaved:
        axis = text.integers([-1])
        pair = [text.new(f"Unsqueeze ({each}, {axis})") for each in (first, second)]
        joined = text.new(f"Concat <axis = -1> ({pair[0]}, {pair[1]})")
        made = text.new(f"Reshape ({joined}, {text.integers([0, 0, 0, turned])})")
    else:
        made = text.new(f"Concat <axis = -1> ({first}, {second})")
    return text.new(f"Concat <axis = -1> ({made}, {text.slice(x, -1, turned, 2**31 - 1)})") if more else made
