"""Operators of com.microsoft on integers that give real numbers, or move them, as definitions in the standard's.

Their source is ONNX Runtime's docs/ContribOperators.md, and its kernels for processors.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, has, kept, number, sizes
from nncc.frontend.microsoft_attention import attention_of
from nncc.frontend.microsoft_transformers import embedding
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["dynamic_quantize_lstm", "matmul_integer16", "nhwc_max_pool", "quantized_attention", "quantized_embedding"]


def quantized_attention(node: onnx_ir.Node, opset: int) -> Definition:
    """Attention whose projection is a product of integers; its weights may have a scale for each column."""
    text = Text(opset)
    given = _real(text, node, "input", "input", 3, 6)
    weight = _real(text, node, "weight", "weight", 4, 7, columns=sizes(node, 1)[-1])
    product = text.new(f"MatMul ({given}, {weight})")
    attention_of(text, node, text.new(f"Add ({product}, bias)"), mask_at=5, past_at=8)
    names = "input, weight, bias, input_scale, weight_scale, mask_index, input_zero, weight_zero, past"
    return text.definition(names, "output, present")


_TABLES = ("word", "position", "segment", "gamma", "beta")
"""What a quantized embedding is made of: operands 2 to 6, their scales 8 to 12, their zero points 13 to 17."""


def quantized_embedding(node: onnx_ir.Node, opset: int) -> Definition:
    """The normalized sum of rows of tables of integers, each of which is on a grid of its own."""
    text = Text(opset)
    with_segments = has(node, 1) and has(node, 4)
    rows = {
        "word": text.new("Gather (word, input_ids)"),
        "position": text.slice("position", 0, 0, sizes(node, 0)[1]),
        "segment": text.new("Gather (segment, segment_ids)") if with_segments else "",
        "gamma": "gamma_integers",
        "beta": "beta_integers",
    }
    real = {
        name: _real(text, node, integers, name, 8 + at, 13 + at) if integers else ""
        for at, (name, integers) in enumerate(rows.items())
    }
    for name in ("gamma", "beta"):
        text.let(name, f"Identity ({real[name]})")
    embedding(text, node, real["word"], real["position"], real["segment"])
    operands = ["input_ids", "segment_ids", *(f"{n}_integers" if n in ("gamma", "beta") else n for n in rows), "mask"]
    grids = [f"{name}_{word}" for word in ("scale", "zero") for name in rows]
    return text.definition(", ".join([*operands, *grids]), "output, mask_index")


def _real(text: Text, node: onnx_ir.Node, q: str, name: str, scale: int, zero: int, columns: int = 1) -> str:
    """The integers `q` as real numbers, by operands ``name_scale`` and ``name_zero`` at these places, which have one
    number, or one for each of `columns`, the last axis. Raises ModelError for others."""
    counts = [prod(sizes(node, at)) for at in (scale, zero) if has(node, at)]
    if not has(node, scale) or not set(counts) <= {1, columns} or len(set(counts)) > 1:
        raise ModelError(f"{node_text(node)} has scales or zero points that fit no axis of `{name}`")
    words = [f"{name}_{word}" for word, at in (("scale", scale), ("zero", zero)) if has(node, at)]
    if counts[0] == 1:
        words = [text.new(f"Squeeze ({word})") for word in words]
    return text.new(f"DequantizeLinear <axis = -1> ({q}, {', '.join(words)})")


def matmul_integer16(node: onnx_ir.Node, opset: int) -> Definition:
    """A product of int16 into int32."""
    text = Text(opset)
    wide = [text.new(f"Cast <to = 6> ({name})") for name in "AB"]
    text.let("Y", f"MatMul ({', '.join(wide)})")
    return text.definition("A, B", "Y")


def nhwc_max_pool(node: onnx_ir.Node, opset: int) -> Definition:
    """MaxPool of bytes whose channels come last."""
    text = Text(opset)
    rank = len(sizes(node, 0))
    first = text.new(f"Transpose <perm = {[0, rank - 1, *range(1, rank - 1)]}> (x)")
    words = kept(node, ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"))
    pooled = text.new(f"MaxPool {words} ({first})")
    text.let("y", f"Transpose <perm = {[0, *range(2, rank), 1]}> ({pooled})")
    return text.definition("x", "y")


_LSTM = (
    "X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P", "W_scale", "W_zero", "R_scale", "R_zero",
)  # fmt: skip
_ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")
"""Of the gates, of what goes into the cell, and of what comes out."""


def dynamic_quantize_lstm(node: onnx_ir.Node, opset: int) -> Definition:
    """An LSTM whose products are of integers: X is quantized as a whole, the state anew before each step.

    So does ONNX Runtime for batches of one; larger ones it quantizes in parts, by its number of threads.
    """
    for at in (4, 7):
        if has(node, at):
            raise ModelError(f"{node_text(node)} has the operand `{_LSTM[at]}`, which cannot be compiled")
    for name in ("clip", "input_forget"):
        if number(node, name, 0):
            raise ModelError(f"{node_text(node)} has the attribute `{name}`, which cannot be compiled")
    direction = str(attribute(node, "direction", "forward"))
    ways = {"forward": (0,), "reverse": (1,), "bidirectional": (0, 1)}.get(direction, ())
    wanted = attribute(node, "activations", None) or _ACTIVATIONS * len(ways)
    if tuple(wanted) != _ACTIVATIONS * len(ways):
        raise ModelError(f"{node_text(node)} has activations {', '.join(wanted)}, which cannot be compiled")
    _, batch, _ = sizes(node, 0)
    directions, hidden, columns = sizes(node, 2)
    if directions != len(ways) or columns != 4 * hidden:
        raise ModelError(f"{node_text(node)} has weights that do not fit its direction, or each other")
    text = Text(opset)
    text.let("x, x_scale, x_zero", "DynamicQuantizeLinear (X)")
    found = [_direction(text, node, at, way, batch, hidden) for at, way in enumerate(ways)]
    for result, axis, values in zip(("Y", "Y_h", "Y_c"), (1, 0, 0), zip(*found, strict=True), strict=True):
        places = text.integers([axis])
        parts = [text.new(f"Unsqueeze ({value}, {places})") for value in values]
        text.let(result, f"Concat <axis = {axis}> ({', '.join(parts)})")
    return text.definition(", ".join(_LSTM), "Y, Y_h, Y_c")


def _direction(text: Text, node: onnx_ir.Node, at: int, way: int, batch: int, hidden: int) -> tuple[str, str, str]:
    """All states, the last one and the last cell of direction `at`; `way` is 1 where it starts at the last step."""
    axis, columns = text.integers([0]), 4 * hidden

    def part(name: str) -> str:
        return text.new(f"Squeeze ({text.slice(name, 0, at, at + 1)}, {axis})")

    weights, recurrent, w_scale, w_zero, r_scale, r_zero = map(part, ("W", "R", *_LSTM[8:]))
    sums = text.new(f"MatMulInteger (x, {weights}, x_zero, {w_zero})")
    step = text.new(f"Mul (x_scale, {w_scale})")
    given = text.new(f"Mul ({text.new(f'Cast <to = 1> ({sums})')}, {step})")
    if has(node, 3):
        both = part("B")
        halves = text.slice(both, 0, 0, columns), text.slice(both, 0, columns, 2 * columns)
        bias = text.new(f"Add ({', '.join(halves)})")
    else:
        bias = text.number(0)
    zeros = text.new(f"ConstantOfShape ({text.integers([batch, hidden])})")
    start = [part(_LSTM[place]) if has(node, place) else zeros for place in (5, 6)]
    results = [f"{name}_{at}" for name in ("last", "last_cell", "states")]
    body = _step(text, (recurrent, r_scale, r_zero), bias, batch, hidden)
    words = f"num_scan_inputs = 1, scan_input_directions = [{way}], scan_output_directions = [{way}]"
    text.let(", ".join(results), f"Scan <{words}, body = step_{at} {body}> ({', '.join(start)}, {given})")
    return results[2], results[0], results[1]


def _step(text: Text, recurrent: tuple[str, str, str], bias: str, batch: int, hidden: int) -> str:
    """One step of h and c with what comes from x, as a graph; gates lie in the order input, output, forget, cell."""
    weights, scale, zero = recurrent
    parts = text.integers([hidden] * 4)
    state, wide = f"float[{batch}, {hidden}]", f"float[{batch}, {4 * hidden}]"
    lines = (
        "q, q_scale, q_zero = DynamicQuantizeLinear (h)",
        f"sums = MatMulInteger (q, {weights}, q_zero, {zero})",
        "real = Cast <to = 1> (sums)",
        f"step = Mul (q_scale, {scale})",
        "product = Mul (real, step)",
        "total = Add (x, product)",
        f"gates = Add (total, {bias})",
        f"i, o, f, g = Split <axis = 1> (gates, {parts})",
        "enter = Sigmoid (i)",
        "leave = Sigmoid (o)",
        "stay = Sigmoid (f)",
        "fresh = Tanh (g)",
        "old = Mul (stay, c)",
        "new = Mul (enter, fresh)",
        "c_next = Add (old, new)",
        "bent = Tanh (c_next)",
        "h_next = Mul (leave, bent)",
        "y = Identity (h_next)",
    )
    given, made = f"({state} h, {state} c, {wide} x)", f"({state} h_next, {state} c_next, {state} y)"
    return f"{given} => {made} {{ {' '.join(lines)} }}"
