"""Activations of int8 as uint8 and back: the same numbers, bit for bit, and what cannot be shifted stays."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import parse, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir import Model
from nncc.passes.activation_sign import to_signed, to_unsigned
from nncc.passes.simplify import check_graph

S8, U8, F32 = np.int8, np.uint8, np.float32
Q, DQ = "QuantizeLinear", "DequantizeLinear"
SHIFTS = {S8: to_unsigned, U8: to_signed}
OTHER = {S8: U8, U8: S8}


def shifted(model: Model, dtype=S8):
    """The model with its activations in the other type; claims the same outputs for data that saturate."""
    graph = model.graph.clone()
    report = SHIFTS[dtype](graph)
    check_graph(graph, "test")
    after = Model(graph, model.name, model.inputs, model.outputs)
    same_bits(model, after, 4, lambda random, shape: random.uniform(-99, 99, shape))
    return after, report


def types(model: Model) -> set[str]:
    """Of the results of quantizations."""
    return {str(n.outputs[0].dtype) for n in model.graph.graph if n.op_type == Q}


def constants(dtype, zero=0, scale=0.5):
    return {
        "s": F32(scale),
        "z": np.array(zero, dtype),
        "w": np.random.default_rng(0).integers(-128, 128, (3, 2, 1, 1)).astype(S8),
        "ws": F32(0.1),
        "wz": np.array(0, S8),
        "widths": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "filling": np.array(zero, dtype),
    }


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([S8, U8]), st.integers(0, 255), st.floats(2.0**-6, 2.0**2, width=32))
def test_a_convolution_between_quantizations(dtype, zero, scale):
    info = np.iinfo(dtype)
    body = f"q = {Q} (x, s, z) r = {DQ} (q, s, z) v = {DQ} (w, ws, wz) c = Conv (r, v)"
    body += f" p = {Q} (c, s, z) y = {DQ} (p, s, z)"
    model = parse(f"g (float[1,2,4,4] x) => (float y) {{ {body} }}", constants(dtype, zero + info.min, scale))
    after, report = shifted(model, dtype)
    assert types(after) == {np.dtype(OTHER[dtype]).name.upper()}
    weights = [n for n in after.graph.graph if n.op_type == DQ and n.inputs[0].producer() is None]
    assert [str(n.inputs[0].dtype) for n in weights] == ["INT8"]
    assert report.rewrites == 4


@pytest.mark.parametrize(
    "middle",
    [
        "m = MaxPool <kernel_shape: ints = [2,2], pads: ints = [1,1,0,0]> (q)",
        "m = Transpose (q)",
        "m = Concat <axis: int = 1> (q, q)",
        "m = Pad (q, widths, filling)",
        'm = Pad <mode: string = "reflect"> (q, widths)',
    ],
)
@pytest.mark.parametrize("dtype", [S8, U8])
def test_movements_of_integers_follow(middle, dtype):
    body = f"q = {Q} (x, s, z) {middle} y = {DQ} (m, s, z)"
    after, report = shifted(parse(f"g (float[1,2,4,4] x) => (float y) {{ {body} }}", constants(dtype, 5)), dtype)
    assert types(after) == {np.dtype(OTHER[dtype]).name.upper()} and not report.refusals


LEFT = {
    "an output": (f"q = {Q} (x, s, z)", "(int8 q)", "`q` is an input or output of the model"),
    "a comparison": (f"q = {Q} (x, s, z) y = Max (q, z)", "(int8 y)", "`q` is read by Max"),
    "a clip": (f"q = {Q} (x, s, z) y = Clip (q, z)", "(int8 y)", "`q` is read by Clip"),
    "a product of integers": (
        f"q = {Q} (x, s, z) t = Reshape (w, shape) y = MatMulInteger (q, t)",
        "(int32 y)",
        "`q` is read by MatMulInteger",
    ),
    "a padding by the integer zero": (
        f"q = {Q} (x, s, z) m = Pad (q, widths) y = {DQ} (m, s, z)",
        "(float y)",
        "pads with the integer zero",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_shifted_stays_and_says_why(name):
    body, outputs, why = LEFT[name]
    given = {**constants(S8, 5), "shape": np.array([2, 3], np.int64)}
    shape = "2,2" if "MatMul" in body else "1,2,4,4"
    model = parse(f"g (float[{shape}] x) => {outputs} {{ {body} }}", given)
    after, report = shifted(model)
    assert types(after) == {"INT8"} and report.rewrites == 0
    assert any(why in reason for reason in report.refusals.values())


def test_an_input_of_integers_keeps_its_type_while_others_are_shifted():
    body = f"r = {DQ} (x, s, z) e = Exp (r) q = {Q} (e, s, z) y = {DQ} (q, s, z)"
    after, _ = shifted(parse(f"g (int8[2,3] x) => (float y) {{ {body} }}", constants(S8, 5, 0.01)))
    assert str(after.graph.graph.inputs[0].dtype) == "INT8" and types(after) == {"UINT8"}


def test_there_and_back_is_where_it_was():
    body = f"q = {Q} (x, s, z) m = Transpose (q) y = {DQ} (m, s, z)"
    model = parse(f"g (float[2,3] x) => (float y) {{ {body} }}", constants(S8, -7))
    graph = model.graph.clone()
    to_unsigned(graph)
    to_signed(graph)
    zeros = [n.inputs[2].const_value.numpy() for n in graph.graph if n.op_type in (Q, DQ)]
    assert [(z.dtype, int(z)) for z in zeros] == [(np.dtype(S8), -7)] * 2
