"""What leaves the graph: no-ops, chains of reshapes and transposes, pads, constants, copies."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from graphs import ops, parse, refusals, simplified
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.passes.simplify import simplify


@settings(max_examples=30, deadline=None)
@given(st.lists(st.permutations(range(4)), min_size=1, max_size=4), st.tuples(*[st.integers(1, 3)] * 4))
def test_any_chain_of_transposes_becomes_at_most_one(perms, shape):
    body, name = "", "x"
    for at, perm in enumerate(perms):
        body += f"t{at} = Transpose <perm: ints = [{','.join(map(str, perm))}]> ({name})\n"
        name = f"t{at}"
    dims = ",".join(map(str, shape))
    model = parse(f"g (float[{dims}] x) => (float y) {{ {body} y = Relu ({name}) }}")
    after = ops(simplified(model))
    assert len(after) <= 2 and after[-1] == "Relu"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.permutations([1, 2, 3, 4]), st.data())
def test_any_chain_of_reshapes_becomes_at_most_one(kinds, shape, data):
    body, name, constants, current = "", "x", {}, list(shape)
    for at, kind in enumerate(kinds):
        out = f"r{at}"
        if kind == 0:
            current = list(data.draw(st.permutations(current)))
            constants[f"s{at}"] = np.array([-1, *current[1:]], np.int64)
            body += f"{out} = Reshape ({name}, s{at})\n"
        elif kind == 1:
            axis = data.draw(st.integers(0, len(current)))
            body += f"{out} = Flatten <axis: int = {axis}> ({name})\n"
            current = [prod(current[:axis]), prod(current[axis:])]
        elif kind == 2:
            axis = data.draw(st.integers(0, len(current)))
            constants[f"a{at}"] = np.array([axis], np.int64)
            body += f"{out} = Unsqueeze ({name}, a{at})\n"
            current.insert(axis, 1)
        else:
            body += f"{out} = Squeeze ({name})\n"
            current = [d for d in current if d != 1]
        name = out
    dims = ",".join(map(str, shape))
    model = parse(f"g (float[{dims}] x) => (float y) {{ {body} y = Relu ({name}) }}", constants)
    after = ops(simplified(model))
    assert len(after) == (1 if current == list(shape) else 2) and after[-1] == "Relu"


def test_a_transpose_that_moves_only_ones_is_a_reshape():
    model = parse("g (float[1,4,5,1] x) => (float[1,1,4,5] y) { y = Transpose <perm = [0,3,1,2]> (x) }")
    assert ops(simplified(model)) == ["Reshape"]


def test_an_empty_tensor_is_reshaped_as_it_was():
    constants = {"s": np.array([2, 0], np.int64), "t": np.array([0, 2], np.int64)}
    body = "a = Reshape <allowzero: int = 1> (x, s) y = Reshape <allowzero: int = 1> (a, t)"
    model = parse(f"g (float[0,2] x) => (float[0,2] y) {{ {body} }}", constants)
    assert simplify(model).outputs[0].shape == (0, 2)


NOOPS = {
    "Identity": "y0 = Identity (x)",
    "Dropout": "y0 = Dropout (x)",
    "Dropout with a ratio": "y0 = Dropout (x, half)",
    "Dropout with its mode": "y0 = Dropout (x, half, no)",
    "Cast": "y0 = Cast <to: int = 1> (x)",
    "Transpose": "y0 = Transpose <perm: ints = [0,1,2]> (x)",
    "Reshape": "y0 = Reshape (x, same)",
    "Expand": "y0 = Expand (x, same)",
    "Pad": "y0 = Pad (x, nothing)",
    "Slice": "y0 = Slice (x, zero, far, one)",
    "Concat": "y0 = Concat <axis: int = 0> (x)",
    "Max": "y0 = Max (x)",
    "Mul": "y0 = Mul (ones, x)",
    "Add": "y0 = Add (x, none)",
    "Sub": "y0 = Sub (x, none)",
    "Div": "y0 = Div (x, ones)",
}
NOOP_CONSTANTS = {
    "half": np.float32(0.5),
    "no": np.array(False),
    "same": np.array([2, 3, 4], np.int64),
    "nothing": np.zeros(6, np.int64),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "far": np.array([2**40], np.int64),
    "ones": np.ones((1, 4), np.float32),
    "none": np.zeros((3, 1), np.float32),
}


@pytest.mark.parametrize("name", NOOPS)
def test_an_operator_that_changes_nothing_is_dropped(name):
    model = parse(f"g (float[2,3,4] x) => (float[2,3,4] y) {{ {NOOPS[name]} y = Relu (y0) }}", NOOP_CONSTANTS)
    assert ops(simplified(model)) == ["Relu"]


WORKING = {
    "Cast": "y = Cast <to: int = 11> (x)",
    "Slice backwards": "y = Slice (x, last, first, one, minus)",
    "Mul that broadcasts": "y = Mul (x, wide)",
    "Pad": "y = Pad (x, some)",
}


@pytest.mark.parametrize("name", WORKING)
def test_an_operator_that_changes_something_stays(name):
    constants = {
        "last": np.array([-1], np.int64),
        "first": np.array([-(2**40)], np.int64),
        "one": np.array([1], np.int64),
        "minus": np.array([-1], np.int64),
        "wide": np.ones((5, 1, 1, 1), np.float32),
        "some": np.array([0, 0, 0, 0, 0, 1], np.int64),
    }
    dtype = "double" if name == "Cast" else "float"
    model = parse(f"g (float[2,3,4] x) => ({dtype} y) {{ {WORKING[name]} }}", constants)
    assert len(ops(simplified(model))) == 1


def test_names_and_order_of_outputs_survive_inputs_constants_and_copies_as_outputs():
    model = parse(
        """g (float[2] x, float[3] unused) => (float[2] a, float[2] b, float[2] c, float[2] d, float[2] e, float[2] f) {
            a = Identity (x)
            b = Dropout (x)
            c = Constant <value = float[2] {1.0, 2.0}> ()
            r = Relu (x)
            d = Identity (r)
            e = Relu (x)
            f = Identity (d)
        }"""
    )
    after = simplified(model)
    assert [v.name for v in after.graph.graph.inputs] == ["x", "unused"]
    assert [v.name for v in after.graph.graph.outputs] == ["a", "b", "c", "d", "e", "f"]
    assert ops(after).count("Relu") == 1


def test_weights_behind_identity_are_weights():
    model = parse(
        "g (float[2,3] x) => (float[2,4] y) { w = Identity (W) y = MatMul (x, w) }", {"W": np.ones((3, 4), np.float32)}
    )
    assert ops(simplified(model)) == ["MatMul"]


def test_shape_arithmetic_is_computed_once():
    model = parse(
        """g (float[2,3,4] x) => (float[2,12] y) {
            s = Shape (x)
            n = Gather (s, zero)
            u = Unsqueeze (n, first)
            r = Constant <value_ints = [-1]> ()
            t = Concat <axis = 0> (u, r)
            y = Reshape (x, t)
        }""",
        {"zero": np.array(0, np.int64), "first": np.array([0], np.int64)},
    )
    assert ops(simplified(model)) == ["Reshape"]


@pytest.mark.parametrize("op", ["Expand (c, big)", "ConstantOfShape (big)"])
def test_a_constant_too_big_to_store_is_not_computed(op):
    model = parse(
        f"g (float[1] x) => (float[1] y) {{ c = Constant <value = float[1] {{1.0}}> () e = {op} "
        "m = ReduceMean <keepdims: int = 0> (e) y = Mul (x, m) }",
        {"big": np.array([2**20, 2**20], np.int64)},
    )
    after = simplify(model)
    assert "ReduceMean" in ops(after)
    assert any("bytes" in why for why in refusals(model).values())


def test_quantized_weights_keep_their_integers():
    model = parse(
        "g (float[2,3] x) => (float[2,2] y) { w = DequantizeLinear (q, s) y = MatMul (x, w) }",
        {"q": np.ones((3, 2), np.int8), "s": np.float32(0.5)},
    )
    assert ops(simplified(model)) == ["DequantizeLinear", "MatMul"]


def test_division_by_powers_of_two_is_multiplication_and_others_stay():
    model = parse("g (float[4] x) => (float[4] y) { y = Div (x, d) }", {"d": np.array([1, 2, 0.25, -8], np.float32)})
    assert ops(simplified(model)) == ["Mul"]
    for divisor in (3.0, 2.0**-149, 0.0, np.inf):
        model = parse("g (float[4] x) => (float[4] y) { y = Div (x, d) }", {"d": np.float32(divisor)})
        assert ops(simplify(model)) == ["Div"]


def test_subtraction_of_a_constant_is_addition():
    model = parse("g (float[4] x) => (float[4] y) { y = Sub (x, d) }", {"d": np.float32(3.3)})
    assert ops(simplified(model)) == ["Add"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.integers(1, 2),
)
def test_a_pad_folds_into_the_convolution_that_reads_it(outer, own, stride):
    constants = {"p": np.array([0, 0, *outer[:2], 0, 0, *outer[2:]], np.int64), "W": np.ones((2, 2, 3, 3), np.float32)}
    attributes = f"pads: ints = [{','.join(map(str, own))}], strides: ints = [{stride},{stride}]"
    body = f"q = Pad (x, p) y = Conv <{attributes}> (q, W)"
    model = parse(f"g (float[1,2,5,6] x) => (float y) {{ {body} }}", constants)
    assert ops(simplified(model, 1e-6)) == ["Conv"]  # the same sums, of the same numbers and zeros


def test_a_pad_folds_into_an_average_that_counts_it():
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 0], np.int64)}
    model = parse(
        "g (float[1,2,5,5] x) => (float y) { q = Pad (x, p) y = AveragePool <kernel_shape: ints = [3,3]> (q) }",
        constants,
    )
    assert ops(simplified(model, 1e-6)) == ["AveragePool"]


@pytest.mark.parametrize(
    ("pad", "why"),
    [
        ('Pad <mode: string = "reflect"> (x, p)', "by reflect"),
        ("Pad (x, p, one)", "something other than zero"),
        ("Pad (x, c)", "the batch or the channels"),
        ("Pad (x, n)", "it crops"),
    ],
)
def test_other_pads_stay_and_say_why(pad, why):
    constants = {
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "c": np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64),
        "n": np.array([0, 0, -1, 0, 0, 0, 0, 0], np.int64),
        "one": np.float32(1),
        "W": np.ones((2, 3 if "c)" in pad else 2, 3, 3), np.float32),
    }
    model = parse(f"g (float[1,2,6,6] x) => (float y) {{ q = {pad} y = Conv (q, W) }}", constants)
    assert ops(simplified(model, 1e-6)) == ["Pad", "Conv"]
    assert any(why in reason for reason in refusals(model).values())


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("op", ["Conv", "MaxPool"])
def test_automatic_padding_is_spelled_out(mode, op):
    attributes = f'auto_pad: string = "{mode}", strides: ints = [2,3], kernel_shape: ints = [3,4]'
    operands = "x, W" if op == "Conv" else "x"
    model = parse(
        f"g (float[1,2,8,9] x) => (float y) {{ y = {op} <{attributes}> ({operands}) }}",
        {"W": np.ones((2, 2, 3, 4), np.float32)} if op == "Conv" else {},
    )
    after = simplified(model, 1e-6)
    assert all("auto_pad" not in node.attributes for node in after.graph.graph)


def test_the_given_model_is_not_changed():
    model = parse("g (float[2] x) => (float[2] y) { a = Identity (x) y = Relu (a) }")
    before = str(model.graph)
    simplify(model)
    assert str(model.graph) == before


def test_simplifying_twice_finds_nothing_more():
    model = parse(
        "g (float[1,2,3,3] x) => (float[1,18] y) { c = Conv (x, W) f = Flatten (c) y = Mul (f, two) }",
        {"W": np.ones((2, 2, 1, 1), np.float32), "two": np.float32(2)},
    )
    once = simplify(model)
    assert ops(simplify(once)) == ops(once)
