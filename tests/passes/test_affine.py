"""Batch norms, scales and shifts fold into the weights beside them, and the model computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import ops, parse, refusals, simplified
from hypothesis import given, settings
from hypothesis import strategies as st

# Folding rounds each weight once more (2^-24 of it) and sums K <= 200 products of other roundings:
# about sqrt(200) * 2 * 6e-8 = 2e-6 of the largest term; cancellation between terms leaves a factor of ten.
ROUNDING = 2e-5


def norm(rng: np.random.Generator, channels: int, prefix: str = "") -> dict[str, np.ndarray]:
    draw = lambda low, high: rng.uniform(low, high, channels).astype(np.float32)  # noqa: E731
    return {
        f"{prefix}gamma": draw(-2, 2),
        f"{prefix}beta": draw(-1, 1),
        f"{prefix}mean": draw(-1, 1),
        f"{prefix}var": draw(0.1, 2),
    }


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.5, shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    per_in=st.integers(1, 3),
    per_out=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    bias=st.booleans(),
    transposed=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_batch_norm_folds_into_any_convolution_before_it(
    groups, per_in, per_out, kernel, stride, pads, bias, transposed, seed
):
    rng = np.random.default_rng(seed)
    cin, cout = groups * per_in, groups * per_out
    shape = (cin, per_out, kernel, kernel) if transposed else (cout, per_in, kernel, kernel)
    if transposed:
        pads = [min(p, kernel - 1) for p in pads]
    constants = {"W": weights(rng, *shape), **norm(rng, cout)} | ({"b": weights(rng, cout)} if bias else {})
    op = "ConvTranspose" if transposed else "Conv"
    model = parse(
        f"""g (float[2,{cin},6,7] x) => (float y) {{
            c = {op} <group: int = {groups}, pads: ints = [{",".join(map(str, pads))}],
                      strides: ints = [{stride},{stride}]> (x, W{", b" if bias else ""})
            y = BatchNormalization <epsilon = 0.001> (c, gamma, beta, mean, var)
        }}""",
        constants,
    )
    assert ops(simplified(model, ROUNDING)) == [op]


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(1, 3), padded=st.booleans(), shifted=st.booleans(), seed=st.integers(0, 2**16))
def test_batch_norm_folds_into_the_convolution_after_it_unless_padding_meets_its_shift(groups, padded, shifted, seed):
    rng = np.random.default_rng(seed)
    cin = 2 * groups
    constants = norm(rng, cin)
    if not shifted:
        constants["beta"] = constants["mean"] = np.zeros(cin, np.float32)
    pad = 1 if padded else 0
    model = parse(
        f"""g (float[1,{cin},6,6] x) => (float y) {{
            n = BatchNormalization (x, gamma, beta, mean, var)
            y = Conv <group: int = {groups}, pads: ints = [{pad},{pad},{pad},{pad}]> (n, W)
        }}""",
        {"W": weights(rng, 3 * groups, 2, 3, 3), **constants},
    )
    after = simplified(model, ROUNDING)
    if padded and shifted:
        assert ops(after) == ["Mul", "Add", "Conv"]
        assert any("pads with zeros" in why for why in refusals(model).values())
    else:
        assert ops(after) == ["Conv"]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["", ", b", ", scalar"])
def test_gemm_absorbs_maps_on_both_sides_with_alpha_and_beta(transposed, bias):
    rng = np.random.default_rng(0)
    w = weights(rng, 4, 3)
    model = parse(
        f"""g (float[2,4] x) => (float[2,3] y) {{
            n = BatchNormalization (x, pgamma, pbeta, pmean, pvar)
            c = Gemm <alpha: float = 0.5, beta: float = 2.0, transB: int = {transposed}> (n, W{bias})
            m = Mul (c, s)
            y = BatchNormalization (m, gamma, beta, mean, var)
        }}""",
        {
            "W": w.T.copy() if transposed else w,
            "b": weights(rng, 3),
            "scalar": weights(rng),
            "s": weights(rng, 1, 3),
            **norm(rng, 3),
            **norm(rng, 4, "p"),
        },
    )
    assert ops(simplified(model, ROUNDING)) == ["Gemm"]


def test_matmul_and_add_absorb_a_batch_norm():
    rng = np.random.default_rng(1)
    model = parse(
        """g (float[2,4] x) => (float[2,3] y) {
            m = MatMul (x, W)
            a = Add (b, m)
            y = BatchNormalization (a, gamma, beta, mean, var)
        }""",
        {"W": weights(rng, 4, 3), "b": weights(rng, 3), **norm(rng, 3)},
    )
    assert ops(simplified(model, ROUNDING)) == ["MatMul", "Add"]


def test_matmul_of_sequences_folds_columns_but_not_a_batch_norm_of_rows():
    rng = np.random.default_rng(2)
    constants = {"W": weights(rng, 4, 3), "s": weights(rng, 3), **norm(rng, 5)}
    scaled = parse("g (float[2,5,4] x) => (float[2,5,3] y) { m = MatMul (x, W) y = Mul (m, s) }", constants)
    assert ops(simplified(scaled, ROUNDING)) == ["MatMul"]
    rows = parse(
        """g (float[2,5,4] x) => (float[2,5,3] y) {
            m = MatMul (x, W)
            y = BatchNormalization (m, gamma, beta, mean, var)
        }""",
        constants,
    )
    assert ops(simplified(rows, ROUNDING)) == ["MatMul", "Mul", "Add"]


def test_a_chain_of_constants_after_a_convolution_becomes_its_weights_and_bias():
    rng = np.random.default_rng(3)
    model = parse(
        """g (float[1,2,5,5] x) => (float[1,3,3,3] y) {
            c = Conv (x, W)
            a = Add (c, b)
            m = Mul (s, a)
            d = Div (m, third)
            y = Sub (d, b)
        }""",
        {
            "W": weights(rng, 3, 2, 3, 3),
            "b": weights(rng, 3, 1, 1),
            "s": weights(rng, 1, 3, 1, 1),
            "third": np.float32(3),
        },
    )
    assert ops(simplified(model, ROUNDING)) == ["Conv"]


def test_shared_weights_stay_as_they_are_for_the_others():
    rng = np.random.default_rng(4)
    model = parse(
        """g (float[1,2,5,5] x) => (float[1,2,3,3] y, float[1,2,3,3] z) {
            z = Conv (x, W)
            c = Conv (x, W, b)
            y = BatchNormalization (c, gamma, beta, mean, var)
        }""",
        {"W": weights(rng, 2, 2, 3, 3), "b": weights(rng, 2), **norm(rng, 2)},
    )
    assert ops(simplified(model, ROUNDING)) == ["Conv", "Conv"]


def test_a_convolution_read_by_others_keeps_its_values_and_a_norm_may_have_many_readers():
    rng = np.random.default_rng(5)
    constants = {"W": weights(rng, 2, 2, 1, 1), **norm(rng, 2)}
    kept = parse(
        """g (float[1,2,3,3] x) => (float[1,2,3,3] y, float[1,2,3,3] c) {
            c = Conv (x, W)
            y = BatchNormalization (c, gamma, beta, mean, var)
        }""",
        constants,
    )
    assert ops(simplified(kept, ROUNDING)) == ["Conv", "Mul", "Add"]
    shared = parse(
        """g (float[1,2,3,3] x) => (float[1,2,3,3] y, float[1,2,3,3] z) {
            c = Conv (x, W)
            n = BatchNormalization (c, gamma, beta, mean, var)
            y = Relu (n)
            z = Sigmoid (n)
        }""",
        constants,
    )
    assert ops(simplified(shared, ROUNDING)) == ["Conv", "Relu", "Sigmoid"]


def test_constants_that_vary_over_space_are_refused_with_the_reason():
    rng = np.random.default_rng(6)
    model = parse(
        "g (float[1,2,3,3] x) => (float[1,2,3,3] y) { c = Conv (x, W) y = Mul (c, s) }",
        {"W": weights(rng, 2, 2, 1, 1), "s": weights(rng, 1, 1, 3, 3)},
    )
    assert ops(simplified(model)) == ["Conv", "Mul"]
    assert "its constant varies along more than the channels" in refusals(model).values()


def test_a_constant_that_broadcasts_the_result_is_not_folded():
    model = parse(
        "g (float[1,2,3,3] x) => (float[4,2,3,3] y) { c = Conv (x, W) y = Mul (c, s) }",
        {"W": np.ones((2, 2, 1, 1), np.float32), "s": np.ones((4, 1, 1, 1), np.float32) * 3},
    )
    assert ops(simplified(model)) == ["Conv", "Mul"]


def test_training_mode_is_refused():
    rng = np.random.default_rng(7)
    model = parse(
        """g (float[1,2,3,3] x) => (float[1,2,3,3] y, float[2] m, float[2] v) {
            c = Conv (x, W)
            y, m, v = BatchNormalization <training_mode: int = 1> (c, gamma, beta, mean, var)
        }""",
        {"W": weights(rng, 2, 2, 1, 1), **norm(rng, 2)},
    )
    assert any("training mode" in why for why in refusals(model).values())


def test_float16_weights_are_computed_in_float64_and_rounded_once():
    rng = np.random.default_rng(8)
    w, parts = weights(rng, 3, 2, 1, 1).astype(np.float16), norm(rng, 3)
    parts = {name: array.astype(np.float16) for name, array in parts.items()}
    model = parse(
        """g (float16[1,2,3,3] x) => (float16[1,3,3,3] y) {
            c = Conv (x, W)
            y = BatchNormalization <epsilon = 0.0> (c, gamma, beta, mean, var)
        }""",
        {"W": w, **parts},
    )
    after = simplified(model, 1e-2)  # one rounding in each of three float16 operators: 3 * 2^-11 of values up to 5
    assert ops(after) == ["Conv"]
    gamma, var = parts["gamma"].astype(np.float64), parts["var"].astype(np.float64)
    expected = (w.astype(np.float64) * (gamma / np.sqrt(var)).reshape(3, 1, 1, 1)).astype(np.float16)
    conv = next(iter(after.graph.graph))
    assert np.array_equal(conv.inputs[1].const_value.numpy(), expected)


def test_weights_that_would_overflow_float16_are_left():
    model = parse(
        "g (float16[1,1,2,2] x) => (float16[1,1,2,2] y) { c = Conv (x, W) y = Mul (c, s) }",
        {"W": np.full((1, 1, 1, 1), 6e4, np.float16), "s": np.full(1, 10, np.float16)},
    )
    assert any("do not fit float16" in why for why in refusals(model).values())


def test_weights_that_are_computed_are_left():
    rng = np.random.default_rng(9)
    model = parse(
        """g (float[1,2,3,3] x, float[2,2,1,1] W) => (float[1,2,3,3] y) {
            c = Conv (x, W)
            y = BatchNormalization (c, gamma, beta, mean, var)
        }""",
        norm(rng, 2),
    )
    assert ops(simplified(model, ROUNDING)) == ["Conv", "Mul", "Add"]
    assert "its weights are not constant" in refusals(model).values()


def test_integer_arithmetic_is_left_alone():
    model = parse(
        "g (int32[2,3] x) => (int32[2,3] y) { a = Sub (x, two) y = Div (a, two) }", {"two": np.array(2, np.int32)}
    )
    assert ops(simplified(model)) == ["Sub", "Div"]
