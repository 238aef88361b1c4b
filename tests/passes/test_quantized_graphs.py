"""What the passes make of QDQ graphs: exact rewrites, and what they must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import ops, parse, refusals, same_bits, simplified
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_nets import QuantizedNet, both, full_range

from nncc.frontend.onnx import import_onnx
from nncc.ir import Model
from nncc.passes.simplify import simplify
from nncc.verify import reference

U8, S8, F32 = np.uint8, np.int8, np.float32
Q, DQ = "QuantizeLinear", "DequantizeLinear"

SCALES = st.floats(2.0**-20, 2.0**20, width=32)
BYTES = {U8: st.integers(0, 255), S8: st.integers(-128, 127)}


def agrees(model: Model, low: float, high: float) -> Model:
    """Simplify; claim that ONNX Runtime gives the same bits for data between `low` and `high` and far beyond."""
    after = simplify(model)
    same_bits(
        model, after, 5, lambda random, shape: random.uniform(low, high, shape) * random.choice([0.5, 1, 1, 4], shape)
    )
    return after


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([U8, S8]), SCALES, st.data())
def test_quantizing_what_was_dequantized_by_the_same_numbers_gives_the_integers_back(dtype, scale, data):
    constants = {"s": F32(scale), "z": np.array(data.draw(BYTES[dtype]), dtype)}
    word = np.dtype(dtype).name
    body = f"r = {DQ} (x, s, z) q = {Q} (r, s, z) y = {DQ} (q, s, z)"
    model = parse(f"g ({word}[2,200] x) => (float y) {{ {body} }}", constants)
    assert ops(agrees(model, 0, 1)) == [DQ]


@pytest.mark.parametrize(
    ("other", "why"),
    [({"t": F32(0.25)}, "it gives another scale"), ({"w": np.array(4, U8)}, "it gives another scale")],
)
def test_quantizing_by_other_numbers_stays(other, why):
    constants = {"s": F32(0.5), "t": F32(0.5), "z": np.array(3, U8), "w": np.array(3, U8), **other}
    model = parse(f"g (uint8[2,9] x) => (uint8 y) {{ r = {DQ} (x, s, z) y = {Q} (r, t, w) }}", constants)
    assert ops(agrees(model, 0, 1)) == [DQ, Q]
    assert any(why in reason for reason in refusals(model).values())


def test_a_scale_at_which_the_numbers_overflow_is_not_undone():
    constants = {"s": F32(3e38), "z": np.array(3, U8)}
    model = parse(f"g (uint8[2,9] x) => (uint8 y) {{ r = {DQ} (x, s, z) y = {Q} (r, s, z) }}", constants)
    assert ops(agrees(model, 0, 1)) == [DQ, Q]


def test_a_pair_in_front_of_a_float_operator_stays_because_it_rounds():
    constants = {"s": F32(0.5), "z": np.array(3, U8)}
    body = f"q = {Q} (x, s, z) r = {DQ} (q, s, z) y = Exp (r)"
    assert ops(simplified(parse(f"g (float[2,3] x) => (float[2,3] y) {{ {body} }}", constants))) == [Q, DQ, "Exp"]


MOVEMENTS = {
    "Reshape": "m = Reshape (r, flat)",
    "Flatten": "m = Flatten <axis: int = 2> (r)",
    "Squeeze": "m = Squeeze (r, zero)",
    "Unsqueeze": "m = Unsqueeze (r, zero)",
    "Transpose": "m = Transpose <perm: ints = [0,2,3,1]> (r)",
    "MaxPool": "m = MaxPool <kernel_shape: ints = [3,2], pads: ints = [1,0,1,1], strides: ints = [2,1]> (r)",
    "Slice": "m = Slice (r, one, three, axis, one)",
    "Gather": "m = Gather <axis: int = 1> (r, picks)",
    "Expand": "m = Expand (r, big)",
    "Tile": "m = Tile (r, twice)",
    "Concat": "m = Concat <axis: int = 2> (r, r)",
    "Pad": "m = Pad (r, widths)",
    "Pad by a number": "m = Pad (r, widths, filling)",
    "Pad by the edge": 'm = Pad <mode: string = "edge"> (r, widths)',
    "DepthToSpace": "m = DepthToSpace <blocksize: int = 2> (r)",
    "SpaceToDepth": "m = SpaceToDepth <blocksize: int = 2> (r)",
    "Resize": 'm = Resize <mode: string = "nearest"> (r, , factors)',
}
MOVED_BY = {
    "flat": np.array([4, -1], np.int64),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "three": np.array([3], np.int64),
    "axis": np.array([2], np.int64),
    "picks": np.array([3, 0, 0], np.int64),
    "big": np.array([2, 4, 6, 8], np.int64),
    "twice": np.array([1, 2, 1, 1], np.int64),
    "widths": np.array([0, 0, 1, 0, 0, 1, 0, 2], np.int64),
    "filling": F32(1.5),
    "factors": np.array([1, 1, 2, 2], F32),
}


@pytest.mark.parametrize("dtype", [U8, S8])
@pytest.mark.parametrize("name", MOVEMENTS)
def test_what_only_moves_moves_integers(name, dtype):
    constants = {**MOVED_BY, "s": F32(0.5), "z": np.array(7, dtype)}
    body = f"q = {Q} (x, s, z) r = {DQ} (q, s, z) {MOVEMENTS[name]} p = {Q} (m, s, z) y = {DQ} (p, s, z)"
    after = agrees(parse(f"g (float[1,4,6,8] x) => (float y) {{ {body} }}", constants), -30, 30)
    found = ops(after)
    kind = found[1]
    assert (len(found), found[0], found[2]) == (3, Q, DQ) and kind in (name.split()[0], "Reshape")


def test_movements_of_integers_compile(tmp_path):
    """All of them in one library, on uint8 and on int8; results are integers, and equal."""
    net = QuantizedNet(17)
    given = {name: net.constant(array) for name, array in MOVED_BY.items()}
    for dtype, zero in ((U8, 7), (S8, -7)):
        parameters = net.parameters(0.5, zero, dtype)
        x = net.op(DQ, net.input(1, 4, 6, 8, dtype=dtype), *parameters)
        pool = {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}
        moved = [
            net.op("Reshape", x, given["flat"]),
            net.op("Transpose", x, perm=[0, 2, 3, 1]),
            net.op("MaxPool", x, **pool),
            net.op("Slice", x, given["one"], given["three"], given["axis"], given["one"]),
            net.op("Gather", x, given["picks"], axis=1),
            net.op("Expand", x, given["big"]),
            net.op("Tile", x, given["twice"]),
            net.op("Concat", x, x, axis=2),
            net.op("Pad", x, given["widths"], given["filling"]),
            net.op("Pad", x, given["widths"], mode="edge"),
            net.op("DepthToSpace", x, blocksize=2),
            net.op("SpaceToDepth", x, blocksize=2),
            net.op("Resize", x, "", given["factors"], mode="nearest"),
            *net.op("Split", x, axis=1, outputs=2),
        ]
        for value in moved:
            net.result(net.op(Q, value, *parameters), dtype)
    model = import_onnx(net.save(tmp_path / "net.onnx"))
    assert not {Q, DQ} & set(ops(simplify(model)))
    for name, (expected, actual) in both(net, tmp_path, full_range(net.model())).items():
        np.testing.assert_array_equal(actual, expected, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(3)), st.integers(0, 2), st.booleans())
def test_scales_per_axis_follow_their_axis(perm, axis, reshaped):
    shape = (2, 3, 4)
    steps = np.linspace(0.25, 0.5, shape[axis], dtype=F32)
    constants = {"s": steps, "z": np.arange(shape[axis]).astype(S8), "to": np.array([2, 3, 1, 4], np.int64)}
    tail = "y = Reshape (t, to)" if reshaped and list(perm) == [0, 1, 2] else "y = Relu (t)"
    move = f"t = Transpose <perm: ints = [{','.join(map(str, perm))}]> (r)"
    body = f"r = {DQ} <axis: int = {axis}> (x, s, z) {move} {tail}"
    after = agrees(parse(f"g (int8[2,3,4] x) => (float y) {{ {body} }}", constants), 0, 1)
    kinds = ops(after)
    if "Transpose" in kinds:
        assert kinds.index("Transpose") < kinds.index(DQ)


STAYING = {
    "a padding off the grid": ("m = Pad (r, widths, filling)", {"filling": F32(0.3)}, "is not a number of the grid"),
    "a linear resize": ('m = Resize <mode: string = "linear"> (r, , factors)', {}, None),
    "a pool that tells where": ("m, i = MaxPool <kernel_shape: ints = [2,2]> (r)", {}, None),
    "a sum": ("m = Add (r, r)", {}, None),
}


@pytest.mark.parametrize("name", STAYING)
def test_other_operators_stay_on_floats(name):
    body, more, why = STAYING[name]
    constants = {**MOVED_BY, "s": F32(0.5), "z": np.array(7, U8), **more}
    extra = ", int64 i" if "m, i" in body else ""
    model = parse(
        f"g (uint8[1,4,6,8] x) => (uint8 y{extra}) {{ r = {DQ} (x, s, z) {body} y = {Q} (m, s, z) }}", constants
    )
    kinds = ops(agrees(model, 0, 1))
    assert DQ in kinds and Q in kinds
    assert why is None or any(why in reason for reason in refusals(model).values())


def test_a_concat_of_different_scales_stays():
    constants = {"s": F32(0.5), "t": F32(0.25), "z": np.array(7, U8)}
    body = f"a = {DQ} (x, s, z) b = {DQ} (x, t, z) m = Concat <axis: int = 0> (a, b) y = {Q} (m, s, z)"
    model = parse(f"g (uint8[2,3] x) => (uint8 y) {{ {body} }}", constants)
    assert ops(agrees(model, 0, 1)) == [DQ, DQ, "Concat", Q]
    assert any("different scales" in reason for reason in refusals(model).values())


def test_other_readers_keep_their_own_dequantization():
    constants = {"s": F32(0.5), "z": np.array(7, U8)}
    body = f"r = {DQ} (x, s, z) t = Transpose (r) a = Exp (r) b = Exp (t)"
    after = agrees(parse(f"g (uint8[2,3] x) => (float a, float b) {{ {body} }}", constants), 0, 1)
    assert sorted(ops(after)) == sorted([DQ, "Exp", "Transpose", DQ, "Exp"])


def test_copies_of_a_dequantization_are_one():
    constants = {"s": F32(0.5), "z": np.array(7, U8)}
    body = f"a = {DQ} (x, s, z) b = {DQ} (x, s, z) y = Add (a, b)"
    assert ops(agrees(parse(f"g (uint8[2,3] x) => (float y) {{ {body} }}", constants), 0, 1)) == [DQ, "Add"]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([U8, S8]),
    st.floats(2.0**-8, 2.0**3, width=32),
    st.floats(-20, 20, width=32),
    st.floats(-20, 20, width=32),
    st.data(),
)
def test_a_clip_is_dropped_only_where_quantization_does_it(dtype, scale, low, high, data):
    info = np.iinfo(dtype)
    zero = data.draw(st.sampled_from([info.min, info.max]) | BYTES[dtype])
    low, high = min(low, high), max(low, high)
    constants = {"s": F32(scale), "z": np.array(zero, dtype), "a": F32(low), "b": F32(high)}
    body = f"c = Clip (x, a, b) q = {Q} (c, s, z) y = {DQ} (q, s, z)"
    after = agrees(parse(f"g (float[4,200] x) => (float y) {{ {body} }}", constants), -40, 40)
    reaches = np.clip(np.rint(np.array([low, high], F32) / F32(scale)) + zero, info.min, info.max)
    assert ("Clip" in ops(after)) == (list(reaches) != [info.min, info.max])


@pytest.mark.parametrize(("dtype", "zero", "kept"), [(U8, 0, 0), (S8, -128, 0), (U8, 1, 1), (S8, 0, 1)])
def test_a_relu_is_dropped_where_zero_is_the_smallest_integer(dtype, zero, kept):
    constants = {"s": F32(0.1), "z": np.array(zero, dtype)}
    before = parse(f"g (float[2,99] x) => ({np.dtype(dtype).name} y) {{ r = Relu (x) y = {Q} (r, s, z) }}", constants)
    assert ops(agrees(before, -30, 30)) == ["Relu"] * kept + [Q]
    word = np.dtype(dtype).name
    after = parse(f"g ({word}[2,99] x) => (float y) {{ r = {DQ} (x, s, z) y = Relu (r) }}", constants)
    assert ops(agrees(after, 0, 1)) == [DQ] + ["Relu"] * kept


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([U8, S8]), SCALES, st.data())
def test_weights_quantized_at_run_time_are_integers(dtype, scale, data):
    weight = np.random.default_rng(1).uniform(-200 * scale, 200 * scale, (6, 5)).astype(F32)
    weight[0, :3] = np.array([0.5, 1.5, -2.5]) * scale
    constants = {"w": weight, "s": F32(scale), "z": np.array(data.draw(BYTES[dtype]), dtype)}
    body = f"q = {Q} (w, s, z) r = {DQ} (q, s, z) y = Add (x, r)"
    assert ops(agrees(parse(f"g (float[6,5] x) => (float y) {{ {body} }}", constants), -1, 1)) == [DQ, "Add"]


def test_weights_quantized_per_channel_at_run_time_are_integers():
    random = np.random.default_rng(1)
    constants = {
        "w": random.uniform(-1, 1, (4, 3, 2, 2)).astype(F32),
        "s": random.uniform(0.004, 0.02, 4).astype(F32),
        "z": np.zeros(4, S8),
    }
    body = f"q = {Q} <axis: int = 0> (w, s, z) r = {DQ} <axis: int = 0> (q, s, z) y = Conv (x, r)"
    assert ops(agrees(parse(f"g (float[1,3,5,5] x) => (float y) {{ {body} }}", constants), -1, 1)) == [DQ, "Conv"]


def test_a_clip_of_integers_between_the_quantization_of_weights_is_done_once():
    """Exporters of PyTorch write it where a range is narrower than the type."""
    random = np.random.default_rng(1)
    constants = {
        "w": random.uniform(-2, 2, (4, 3, 1, 1)).astype(F32),
        "s": F32(0.01),
        "z": np.array(0, S8),
        "low": np.array(-127, S8),
        "high": np.array(127, S8),
    }
    body = f"q = {Q} (w, s, z) c = Clip (q, low, high) r = {DQ} (c, s, z) y = Conv (x, r)"
    after = agrees(parse(f"g (float[1,3,5,5] x) => (float y) {{ {body} }}", constants), -1, 1)
    assert ops(after) == [DQ, "Conv"] and weights_of(after).min() == -127


def weights_of(model: Model, op: str = "Conv") -> np.ndarray:
    """The integers behind the weights of the only such operator."""
    (node,) = [node for node in model.graph.graph if node.op_type == op]
    dequantize = node.inputs[1].producer()
    assert dequantize is not None and dequantize.op_type == DQ
    return dequantize.inputs[0].const_value.numpy()


def test_weights_of_uint8_are_int8():
    random = np.random.default_rng(1)
    weight = random.integers(0, 256, (4, 3, 1, 1)).astype(U8)
    constants = {"w": weight, "s": F32(0.1), "z": np.array(100, U8)}
    body = f"r = {DQ} (w, s, z) y = Conv (x, r)"
    after = agrees(parse(f"g (float[1,3,5,5] x) => (float y) {{ {body} }}", constants), -1, 1)
    np.testing.assert_array_equal(weights_of(after), (weight.astype(int) - 128).astype(S8))


def test_a_gemm_does_not_transpose_quantized_weights_they_are():
    random = np.random.default_rng(1)
    weight = random.integers(-128, 128, (4, 3)).astype(S8)
    constants = {"w": weight, "s": random.uniform(0.1, 0.2, 4).astype(F32), "z": np.zeros(4, S8)}
    body = f"r = {DQ} <axis: int = 0> (w, s, z) y = Gemm <transB: int = 1> (x, r)"
    after = agrees(parse(f"g (float[2,3] x) => (float y) {{ {body} }}", constants), -1, 1)
    assert ops(after) == [DQ, "Gemm"]
    np.testing.assert_array_equal(weights_of(after, "Gemm"), weight.T)


BATCH_NORM = "BatchNormalization (c, gamma, beta, mean, var)"


def quantized_conv(tail: str, gamma: list[float], lowest: int = -127, bias: bool = True) -> Model:
    random = np.random.default_rng(2)
    weight = random.integers(-127, 128, (3, 2, 3, 3)).astype(S8)
    weight[0, 0, 0, 0] = lowest
    constants = {
        "w": weight,
        "s": random.uniform(0.01, 0.02, 3).astype(F32),
        "z": np.zeros(3, S8),
        "b": random.integers(-900, 900, 3).astype(np.int32),
        "bs": random.uniform(1e-3, 2e-3, 3).astype(F32),
        "gamma": np.array(gamma, F32),
        "beta": np.array([0.5, -0.25, 1], F32),
        "mean": np.array([0.1, 0.2, -3], F32),
        "var": np.array([1, 0.5, 4], F32),
        "by": np.array([[[2.0]], [[0.5]], [[3.0]]], F32),
        "xs": F32(0.05),
        "xz": np.array(120, U8),
        "ys": F32(0.25),
        "yz": np.array(90, U8),
    }
    head = f"x = {DQ} (q, xs, xz) r = {DQ} <axis: int = 0> (w, s, z)"
    head += f" d = {DQ} <axis: int = 0> (b, bs) c = Conv (x, r, d)" if bias else " c = Conv (x, r)"
    return parse(f"g (uint8[1,2,6,6] q) => (uint8 y) {{ {head} {tail} y = {Q} (n, ys, yz) }}", constants)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("tail", "gamma"),
    [
        (f"n = {BATCH_NORM}", [1.5, 0.5, 2]),
        (f"n = {BATCH_NORM}", [1.5, -0.5, 2]),
        ("n = Mul (c, by)", [1, 1, 1]),
        ("m = Mul (c, by) n = Add (m, by)", [1, 1, 1]),
        (f"m = {BATCH_NORM} n = Relu (m)", [1.5, 0.5, 2]),
    ],
)
def test_a_batch_norm_after_quantized_weights_goes_into_their_scales(tail, gamma, bias):
    model = quantized_conv(tail, gamma, bias=bias)
    after = simplify(model)
    kinds = ops(after)
    assert [kind for kind in kinds if kind not in (Q, DQ, "Relu")] == ["Conv"]
    before = next(v for v in model.graph.graph.initializers.values() if v.name == "w").const_value.numpy()
    np.testing.assert_array_equal(np.abs(weights_of(after).astype(int)), np.abs(before.astype(int)))
    inputs = {"q": np.random.default_rng(3).integers(0, 256, (1, 2, 6, 6)).astype(U8)}
    expected, actual = reference(model, inputs)["y"], reference(after, inputs)["y"]
    # The new scales are rounded to float32: a result that lies between two integers may go to the other.
    assert np.abs(expected.astype(int) - actual.astype(int)).max() <= 1 and np.mean(expected != actual) < 0.02


def test_weights_that_cannot_be_negated_keep_their_batch_norm():
    model = quantized_conv(f"n = {BATCH_NORM}", [-1.5, -0.5, -2], lowest=-128)
    assert weights_of(simplify(model)).min() == -128
    assert any("negative" in why for why in refusals(model).values())


def test_a_batch_norm_of_zero_keeps_its_place():
    model = quantized_conv(f"n = {BATCH_NORM}", [1.5, 0.0, 2])
    assert any("is zero" in why for why in refusals(model).values())
    assert {"Mul", "Add"} <= set(ops(simplify(model)))


def test_narrow_integers_are_held_in_eight_bits(tmp_path):
    import ml_dtypes

    net = QuantizedNet(21)
    weight = net.constant(np.arange(-8, 8).reshape(4, 4).astype(ml_dtypes.int4))
    given = [net.constant(F32(0.5)), net.constant(np.array(1, ml_dtypes.int4))]
    net.result(net.op("MatMul", net.input(2, 4), net.op(DQ, weight, *given)), F32)
    after = simplify(import_onnx(net.save(tmp_path / "net.onnx")))
    np.testing.assert_array_equal(weights_of(after, "MatMul"), np.arange(-8, 8).reshape(4, 4).astype(S8))


def trained_net() -> QuantizedNet:
    """As exporters write a network that was trained with quantization: weights are quantized when it runs."""
    net = QuantizedNet(17)
    random = net.random

    def fake(value: str, scale, zero: int, dtype=U8, **axis) -> str:
        parameters = [net.constant(np.asarray(scale, F32)), net.constant(np.full(np.shape(scale), zero, dtype))]
        return net.op(DQ, net.op(Q, value, *parameters, **axis), *parameters, **axis)

    def weight(*shape: int) -> str:
        return fake(net.weight(*shape), random.uniform(0.01, 0.02, shape[0]), 0, S8, axis=0)

    x = fake(net.input(1, 3, 8, 8), 0.02, 128)
    c = net.op("Conv", x, weight(8, 3, 3, 3), net.weight(8), pads=[1, 1, 1, 1])
    norm = [net.constant(random.uniform(0.5, 1.5, 8).astype(F32)) for _ in range(4)]
    r = fake(net.op("Relu", net.op("BatchNormalization", c, *norm)), 0.03, 0)
    m = fake(net.op("MaxPool", r, kernel_shape=[2, 2], strides=[2, 2]), 0.03, 0)
    d = net.op("Conv", m, weight(8, 1, 3, 3), net.weight(8), pads=[1, 1, 1, 1], group=8)
    a = fake(net.op("Clip", d, net.constant(F32(0)), net.constant(F32(6))), 6 / 255, 0)
    f = fake(net.op("Flatten", fake(net.op("Add", a, m), 0.05, 0)), 0.05, 0)
    y = net.op("Gemm", f, weight(10, 128), net.weight(10), transB=1)
    net.result(fake(y, 0.05, 120), F32)
    return net


def test_a_model_trained_with_quantization_comes_in_unchanged(tmp_path):
    net = trained_net()
    after = simplify(import_onnx(net.save(tmp_path / "net.onnx")))
    kinds = [kind for kind in ops(after) if kind not in (Q, DQ)]
    assert kinds == ["Conv", "MaxPool", "Conv", "Add", "Flatten", "Gemm"]
    assert ops(after).count(Q) == 5  # of the input, both convolutions, the sum and the result
    expected, actual = next(iter(both(net, tmp_path, full_range(net.model(), width=3)).values()))
    # Sums of floats in another order may be rounded to the next integer, and that once more behind the Gemm.
    apart = np.abs(expected - actual) / F32(0.05)
    assert apart.max() <= 1.001 and (apart > 0.5).mean() <= 0.2
