"""Attention, MultiHeadAttention and GroupQueryAttention of com.microsoft, as definitions in the standard's operators.

    softmax(scale Q K' + M) V      M: 0 where a query sees a key; `mask_filter_value` where the key is padding

Their source is ONNX Runtime's docs/ContribOperators.md and its kernels for processors. A cache that is longer than what
is in it (``past_present_share_buffer``) has no meaning in a graph of values, and is refused, as is a quantized one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, has, number, sizes
from nncc.frontend.microsoft_transformers import angles, rotated
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["attention", "attention_of", "group_query_attention", "multi_head_attention"]

_UNSEEN = -3.4028234663852886e38
"""What is added for keys that come after the query: the smallest number of float32, as ONNX Runtime does."""


def attention(node: onnx_ir.Node, opset: int) -> Definition:
    """The projection of Q, K and V from one input, and the attention of these."""
    _refuse(node, (), {6: "past_sequence_length"})
    text = Text(opset)
    product = text.new("MatMul (input, weights)")
    projected = text.new(f"Add ({product}, bias)") if has(node, 2) else product
    attention_of(text, node, projected, mask_at=3, past_at=4, bias_at=5)
    return text.definition(
        "input, weights, bias, mask_index, past, attention_bias, past_sequence_length", "output, present"
    )


def attention_of(
    text: Text, node: onnx_ir.Node, projected: str, *, mask_at: int, past_at: int, bias_at: int | None = None
) -> None:
    """``output``, and ``present`` if asked for, of Q, K and V, which lie side by side in `projected`; `mask_at` and so
    on are the places of ``mask_index``, ``past`` and ``attention_bias`` among the operands."""
    _refuse(node, ("do_rotary", "past_present_share_buffer"), {})
    batch, length, _ = _rank(node, 0, 3)
    heads = _heads(node, "num_heads")
    columns = sizes(node, 1)[-1]
    widths = [int(size) for size in attribute(node, "qkv_hidden_sizes", None) or [columns // 3] * 3]
    if len(widths) != 3 or sum(widths) != columns or any(w % heads or w < 1 for w in widths) or widths[0] != widths[1]:
        raise ModelError(f"{node_text(node)} has {columns} columns of weights, which do not fit {heads} heads")
    parts, first = [], 0
    for width in widths:
        part = text.slice(projected, -1, first, first + width)
        parts.append(text.heads(part, heads, width // heads))
        first += width
    q, k, v = parts
    past = 0
    if has(node, past_at):
        past = _rank(node, past_at, 5)[3]
        axis = text.integers([0])
        earlier = [text.new(f"Squeeze ({text.slice('past', 0, at, at + 1)}, {axis})") for at in (0, 1)]
        k, v = (text.new(f"Concat <axis = 2> ({old}, {new})") for old, new in zip(earlier, (k, v), strict=True))
    if has(node, past_at) or len(node.outputs) > 1:
        axis = text.integers([0])
        both = [text.new(f"Unsqueeze ({each}, {axis})") for each in (k, v)]
        text.let("present", f"Concat <axis = 0> ({both[0]}, {both[1]})")
    bias = "attention_bias" if bias_at is not None and has(node, bias_at) else ""
    mask = _mask(text, node, mask_at, "mask_index", q, batch, (length, past + length), bias)
    mask = _causal(text, node, mask, q, length, past)
    _core(text, node, (q, k, v), mask, widths[0] // heads, "output")


def multi_head_attention(node: onnx_ir.Node, opset: int) -> Definition:
    """The attention of Q, K and V, each with its part of the bias."""
    _refuse(node, (), {8: "past_sequence_length", 9: "cache_indirection"})
    _refuse_output(node, 3, "its scores as an output")
    if not (has(node, 1) and has(node, 2)):
        raise ModelError(f"{node_text(node)} has its Q, K and V packed in one operand, which cannot be compiled")
    text = Text(opset)
    heads = _heads(node, "num_heads")
    batch, length, hidden = _rank(node, 0, 3)
    shapes = [sizes(node, at) for at in (1, 2)]
    crossed = [len(shape) for shape in shapes] == [4, 4]
    if not crossed and [len(shape) for shape in shapes] != [3, 3]:
        raise ModelError(f"{node_text(node)} has its K and V packed in one operand, which cannot be compiled")
    widths = (hidden, *(heads * shape[3] if crossed else shape[2] for shape in shapes))
    if any(width % heads for width in widths) or widths[0] != widths[1]:
        raise ModelError(f"{node_text(node)} has Q, K and V of {widths} elements, which do not fit {heads} heads")
    made, first = [], 0
    for name, width in zip(("query", "key", "value"), widths, strict=True):
        if name != "query" and crossed:
            made.append(name)
            continue
        whole = name
        if has(node, 3):
            whole = text.new(f"Add ({name}, {text.slice('bias', 0, first, first + width)})")
            first += width
        made.append(text.heads(whole, heads, width // heads))
    if crossed and has(node, 3):
        raise ModelError(f"{node_text(node)} has a bias, and K and V in heads, which cannot be compiled")
    q, k, v = made
    past = 0
    if has(node, 6) and has(node, 7):
        past = _rank(node, 6, 4)[2]
        k, v = text.new(f"Concat <axis = 2> (past_key, {k})"), text.new(f"Concat <axis = 2> (past_value, {v})")
    if len(node.outputs) > 1:
        text.let("present_key", f"Identity ({k})")
        text.let("present_value", f"Identity ({v})")
    keys = past + (shapes[0][2] if crossed else shapes[0][1])
    bias = "attention_bias" if has(node, 5) else ""
    mask = _mask(text, node, 4, "key_padding_mask", q, batch, (length, keys), bias)
    mask = _causal(text, node, mask, q, length, keys - length)
    _core(text, node, (q, k, v), mask, hidden // heads, "output")
    names = "query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value, past_sequence_length"
    return text.definition(f"{names}, cache_indirection", "output, present_key, present_value, qk")


def group_query_attention(node: onnx_ir.Node, opset: int) -> Definition:
    """Attention of a prompt from its start, where several heads of Q share one of K and V.

    These heads are rows of one product, so that K and V are not repeated. What lies behind ``seqlens_k`` of each batch
    is padding that no query before it sees; its own results are not specified.
    """
    _refuse(
        node,
        ("smooth_softmax", "qk_output", "kv_cache_bit_width", "sliding_window_cache"),
        {3: "past_key", 4: "past_value", 10: "attention_bias", 11: "head_sink", 12: "k_scale", 13: "v_scale",
         14: "q_norm_weight", 15: "k_norm_weight", 16: "query_seqlens"},
    )  # fmt: skip
    _refuse_output(node, 3, "its scores as an output")
    text = Text(opset)
    heads, shared = _heads(node, "num_heads"), _heads(node, "kv_num_heads")
    batch, length, hidden = _rank(node, 0, 3)
    packed = not has(node, 1)
    width = hidden // (heads + 2 * shared) if packed else hidden // heads
    group = heads // shared
    if heads % shared or width * (heads + 2 * shared if packed else heads) != hidden:
        raise ModelError(f"{node_text(node)} has {hidden} elements, which do not fit {heads} and {shared} heads")
    if packed:
        bounds = [0, heads * width, (heads + shared) * width, hidden]
        wide = [text.slice("query", -1, a, b) for a, b in pairwise(bounds)]
    else:
        if any(_rank(node, at, 3) != (batch, length, shared * width) for at in (1, 2)):
            raise ModelError(f"{node_text(node)} has K or V of other sizes than Q, which cannot be compiled")
        wide = ["query", "key", "value"]
    q, k, v = (text.heads(x, n, width) for x, n in zip(wide, (heads, shared, shared), strict=True))
    if number(node, "do_rotary", 0):
        pairs = sizes(node, 7)[-1]
        if 2 * pairs > width:
            raise ModelError(f"{node_text(node)} turns {2 * pairs} elements of heads that have {width}")
        steps = text.places(0, length)
        tables = [angles(text, name, steps, 1, length, pairs) for name in ("cos_cache", "sin_cache")]
        interleaved = bool(number(node, "rotary_interleaved", 0))
        options = ((tables[0], tables[1]), 2 * pairs, interleaved, 2 * pairs < width)
        q, k = rotated(text, q, *options), rotated(text, k, *options)
    text.let("present_key", f"Identity ({k})")
    text.let("present_value", f"Identity ({v})")
    if group > 1:
        q = text.new(f"Reshape ({q}, {text.integers([batch, shared, group * length, width])})")
    mask = _window(text, node, q, length, group) if number(node, "causal", 1) else ""
    _core(text, node, (q, k, v), mask, width, "" if group > 1 else "output")
    if group > 1:
        apart = text.new(f"Reshape (mixed, {text.integers([batch, heads, length, width])})")
        text.let("output", text.joined(apart))
    names = "query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos_cache, sin_cache"
    return text.definition(f"{names}, position_ids", "output, present_key, present_value, output_qk")


def _core(text: Text, node: onnx_ir.Node, operands: tuple[str, str, str], mask: str, width: int, output: str) -> None:
    """softmax(cap(scale q k') + mask) v, as [batch, length, hidden] in `output`; or in heads, as ``mixed``."""
    q, k, v = operands
    scale = number(node, "scale", 0.0) or width**-0.5
    scores = text.new(f"MatMul ({q}, {text.new(f'Transpose <perm = [0, 1, 3, 2]> ({k})')})")
    scores = text.new(f"Mul ({scores}, {text.scalar(scale, q)})")
    if cap := number(node, "softcap", 0.0):
        bound = text.scalar(cap, q)
        bent = text.new(f"Tanh ({text.new(f'Div ({scores}, {bound})')})")
        scores = text.new(f"Mul ({bent}, {bound})")
    if mask:
        scores = text.new(f"Add ({scores}, {mask})")
    mixed = f"MatMul ({text.new(f'Softmax <axis = -1> ({scores})')}, {v})"
    text.let(*(("mixed", mixed) if not output else (output, text.joined(text.new(mixed)))))


def _mask(
    text: Text, node: onnx_ir.Node, at: int, name: str, like: str, batch: int, scores: tuple[int, int], bias: str
) -> str:
    """What is added to the scores, of the type of `like`, by a mask or by lengths; `bias` where there is none."""
    if not has(node, at):
        return bias
    shape, (queries, keys) = sizes(node, at), scores
    if shape in ((batch, keys), (batch, queries, keys)):
        seen = text.new(f"Greater ({name}, {text.scalar(0, name)})")
    elif len(shape) == 1 and shape[0] in (batch, 2 * batch):
        places = text.new(f"Cast <to = 6> ({text.places(0, keys, (1, -1))})")
        axis = text.integers([1])
        ends = text.new(f"Unsqueeze ({text.slice(name, 0, 0, batch)}, {axis})")
        seen = text.new(f"Less ({places}, {ends})")
        if shape[0] == 2 * batch:
            starts = text.new(f"Unsqueeze ({text.slice(name, 0, batch, 2 * batch)}, {axis})")
            seen = text.new(f"And ({seen}, {text.new(f'GreaterOrEqual ({places}, {starts})')})")
    else:
        raise ModelError(
            f"{node_text(node)} has a mask of shape {list(shape)}, which cannot be compiled",
            f"a mask of [{batch}, {keys}] or [{batch}, {queries}, {keys}], or lengths [{batch}], can",
        )
    rows = queries if len(shape) == 3 else 1
    seen = text.new(f"Reshape ({seen}, {text.integers([batch, 1, rows, keys])})")
    none, filtered = text.scalar(0, like), text.scalar(number(node, "mask_filter_value", -10000.0), like)
    mask = text.new(f"Where ({seen}, {none}, {filtered})")
    return text.new(f"Add ({mask}, {bias})") if bias else mask


def _causal(text: Text, node: onnx_ir.Node, mask: str, like: str, length: int, past: int) -> str:
    """`mask`, and what hides later keys from each query where the node asks for it."""
    if not number(node, "unidirectional", 0):
        return mask
    hidden = _hidden(text, like, length, past + length, past, 0)
    if not mask:
        return hidden[1]
    return text.new(f"Where ({hidden[0]}, {mask}, {hidden[2]})")


def _window(text: Text, node: onnx_ir.Node, like: str, length: int, group: int) -> str:
    """What hides later keys, and those before the window, for `group` heads below each other."""
    window = int(number(node, "local_window_size", -1))
    return _hidden(text, like, length, length, 0, max(window, 0), group)[1]


def _hidden(
    text: Text, like: str, queries: int, keys: int, past: int, window: int, group: int = 1
) -> tuple[str, str, str]:
    """Which keys queries see, [1, 1, group queries, keys]; what is added for it; and that of one that is not seen."""
    rows, columns = text.places(past, past + queries, (1, 1, -1, 1)), text.places(0, keys, (1, 1, 1, -1))
    seen = text.new(f"LessOrEqual ({columns}, {rows})")
    if window:
        first = text.new(f"Sub ({rows}, {text.integers([window])})")
        seen = text.new(f"And ({seen}, {text.new(f'Greater ({columns}, {first})')})")
    if group > 1:
        seen = text.new(f"Concat <axis = 2> ({', '.join([seen] * group)})")
    unseen = text.new(f"CastLike ({text.number(_UNSEEN)}, {like})")
    return seen, text.new(f"Where ({seen}, {text.scalar(0, like)}, {unseen})"), unseen


def _heads(node: onnx_ir.Node, name: str) -> int:
    heads = int(number(node, name, 0))
    if heads < 1:
        raise ModelError(f"{node_text(node)} does not say how many heads it has: `{name}` is missing")
    return heads


def _rank(node: onnx_ir.Node, at: int, rank: int) -> tuple[int, ...]:
    shape = sizes(node, at)
    if len(shape) != rank:
        raise ModelError(f"{node_text(node)} has an operand {at} of shape {list(shape)}, which cannot be compiled")
    return shape


def _refuse(node: onnx_ir.Node, attributes: tuple[str, ...], operands: dict[int, str]) -> None:
    """ModelError for attributes that are set, and for operands that are given."""
    for name in attributes:
        if number(node, name, 0) > 0:
            raise ModelError(f"{node_text(node)} has the attribute `{name}`, which cannot be compiled")
    for at, name in operands.items():
        if has(node, at):
            raise ModelError(f"{node_text(node)} has the operand `{name}`, which cannot be compiled")


def _refuse_output(node: onnx_ir.Node, at: int, what: str) -> None:
    if at < len(node.outputs) and (node.outputs[at].uses() or node.outputs[at].is_graph_output()):
        raise ModelError(f"{node_text(node)} has {what}, which cannot be compiled")
