"""Cut graphs compute what the graph with silent channels computes, exactly, and are what ONNX Runtime takes."""

from __future__ import annotations

import numpy as np
import pytest
from compress_models import Net, analyzed, inputs, outputs, silenced, without
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.compress.cut import chosen, cut, kept_counts
from nncc.passes.rewriting import constant


def same(graph, keep, sample=None, found=None):
    """The cut graph gives exactly what the graph gives in which the removed channels are silent; returns it."""
    found = found or analyzed(graph, sample)
    silent = silenced(graph, found, keep)
    small = cut(silent, found, keep)
    for expected, got in zip(outputs(silent, sample), outputs(small, sample), strict=True):
        np.testing.assert_array_equal(got, expected)
    return small


def weights(graph, name):
    return constant(graph.graph.initializers[name])


@st.composite
def nets(draw):
    """Chains of convolutions, batch norms, depthwise and grouped convolutions, residuals and concatenations, with a
    Flatten or a pool before the last layer."""
    net = Net(seed=draw(st.integers(0, 999)))
    channels = draw(st.sampled_from([4, 6]))
    x = net.conv("x", 3, channels, 3)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["conv", "depthwise", "grouped", "residual", "concat", "norm", "scale", "split"]))
        if kind == "conv":
            x = net.op("Relu", net.conv(x, channels, channels + 2, draw(st.sampled_from([1, 3]))))
            channels += 2
        elif kind == "depthwise":
            x = net.conv(x, channels, channels, 3, group=channels, bias=draw(st.booleans()))
        elif kind == "grouped":
            x = net.conv(x, channels, 2 * channels, 1, group=2)
            channels *= 2
        elif kind == "residual":
            x = net.op("Add", x, net.conv(net.op("Relu", x), channels, channels))
        elif kind == "concat":
            x = net.op("Concat", x, net.conv(x, channels, 4), axis=1)
            channels += 4
        elif kind == "norm":
            x = net.batch_norm(net.conv(x, channels, channels, bias=False), channels)
        elif kind == "scale":
            x = net.op("Mul", x, net.whole(f"s{len(net.nodes)}", 1, channels, 1, 1))
        else:
            first, second = net.op("Split", x, outputs=2, axis=1)
            x = net.op("Add", first, net.conv(second, channels // 2, channels // 2)) if channels % 2 == 0 else x
            channels //= 2
    if draw(st.booleans()):
        y = net.gemm(net.op("Flatten", net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])), 4 * channels, 5)
    else:
        y = net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x)), channels, 5, transB=1)
    return net.model([y])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=nets(), data=st.data())
def test_removing_silent_channels_changes_nothing(graph, data):
    found = analyzed(graph)
    keep = np.ones(found.count, bool)
    for group in found.prunable():
        gone = data.draw(st.sets(st.sampled_from(group.units.tolist()), max_size=len(group.units) - 1))
        keep[sorted(gone)] = False
        for span in group.spans:
            if not keep[span].any():
                keep[span[0]] = True
    assert found.prunable() or all(group.reason for group in found.groups)
    same(graph, keep, found=found)


def test_shapes_and_attributes_shrink_and_names_stay():
    net = Net()
    a = net.conv("x", 3, 8)
    d = net.conv(a, 8, 8, 3, group=8)
    y = net.conv(d, 8, 2)
    graph = net.model([y])
    small = same(graph, without(analyzed(graph), conv0=3))
    assert weights(small, "w0").shape == (5, 3, 1, 1)
    assert weights(small, "b0").shape == (5,)
    assert weights(small, "w1").shape == (5, 1, 3, 3)
    assert weights(small, "w2").shape == (2, 5, 1, 1)
    assert list(small.graph)[1].attributes["group"].value == 5
    assert [node.name for node in small.graph] == [node.name for node in graph.graph]
    assert small.opset_imports == graph.opset_imports
    assert [str(d) for d in next(iter(small.graph)).outputs[0].shape] == ["N", "5", "4", "4"]


def test_a_written_out_reshape_gets_the_new_size():
    net = Net()
    a = net.conv("x", 3, 8)
    flat = net.op("Reshape", a, net.const("to", np.array([0, 8 * 16])))
    graph = net.model([net.gemm(flat, 128, 2)])
    small = same(graph, without(analyzed(graph), conv0=2))
    assert weights(small, "to").tolist() == [0, 6 * 16]


def test_reshapes_by_0_and_minus_1_find_the_size_themselves():
    net = Net()
    flat = net.op("Reshape", net.conv("x", 3, 8), net.const("to", np.array([0, -1])))
    graph = net.model([net.gemm(flat, 128, 2)])
    small = same(graph, without(analyzed(graph), conv0=2))
    assert weights(small, "to").tolist() == [0, -1]


def test_a_reshape_by_a_computed_batch_finds_the_size_itself():
    net = Net()
    a = net.conv("x", 3, 8)
    batch = net.op("Gather", net.op("Shape", a), net.const("zero", np.array([0])))
    flat = net.op("Reshape", a, net.op("Concat", batch, net.const("rest", np.array([-1])), axis=0))
    graph = net.model([net.gemm(flat, 128, 2)])
    same(graph, without(analyzed(graph), conv0=2))


def test_a_constant_that_two_nodes_read_is_changed_for_one():
    net = Net()
    to = net.const("to", np.array([-1, 8, 16]))
    a = net.op("Reshape", net.conv("x", 3, 8), to)
    fixed = net.op("Reshape", net.op("Concat", "x", "x", "x", axis=1), net.const("like", np.array([-1, 8, 18])))
    other = net.op("Reshape", net.op("Slice", fixed, *[net.const(n, np.array([v])) for n, v in
                                                       (("s", 0), ("e", 16), ("ax", 2))]), to)  # fmt: skip
    b = net.op("ReduceSum", a, net.const("axis", np.array([2])), keepdims=0)
    graph = net.model([net.gemm(b, 8, 2), other])
    small = same(graph, without(analyzed(graph), conv0=2))
    assert weights(small, "to").tolist() == [-1, 8, 16]


def test_slices_of_channels_move():
    net = Net()
    a = net.conv("x", 3, 8)
    parts = [
        net.op("Slice", a, *[net.const(f"{word}{start}", np.array([value])) for word, value in
                             (("from", start), ("to", end), ("along", 1))])
        for start, end in ((0, 3), (3, 2**31))
    ]  # fmt: skip
    graph = net.model([net.conv(parts[0], 3, 2), net.conv(parts[1], 5, 2)])
    found = analyzed(graph)
    keep = np.ones(found.count, bool)
    keep[found.axes["conv0_out"][1][[1, 2, 5]]] = False
    small = same(graph, keep)
    assert (weights(small, "to0"), weights(small, "from3"), weights(small, "to3")) == (1, 1, 5)


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_splits_of_channels_get_new_sizes(opset):
    net = Net(opset=opset)
    a = net.conv("x", 3, 8)
    extra = {"num_outputs": 2} if opset == 18 else {}
    sizes = [net.const("sizes", np.array([4, 4]))] if opset == 17 else []
    first, second = net.op("Split", a, *sizes, outputs=2, axis=1, **extra)
    graph = net.model([net.conv(first, 4, 2), net.conv(second, 4, 2)])
    found = analyzed(graph)
    keep = np.ones(found.count, bool)
    keep[found.axes["conv0_out"][1][[0, 1, 7]]] = False
    same(graph, keep)


def test_heads_of_attention_go_as_a_whole():
    """q, k and v of 3 heads of 2: what is left of a head goes from all of them, and from the layer behind."""
    net = Net()
    tokens = net.op("Transpose", net.op("Reshape", "x", net.const("flat", np.array([0, 3, 16]))), perm=[0, 2, 1])

    def heads(perm):
        wide = net.op("MatMul", tokens, net.whole(f"w{len(net.nodes)}", 3, 6))
        return net.op("Transpose", net.op("Reshape", wide, net.const(f"to{len(net.nodes)}", np.array([0, 0, 3, 2]))),
                      perm=perm)  # fmt: skip

    q, k, v = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
    mixed = net.op("MatMul", net.op("Relu", net.op("MatMul", q, k)), v)
    joined = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.const("to", np.array([0, 0, 6])))
    graph = net.model([net.op("MatMul", joined, net.whole("out", 6, 2))])
    found = analyzed(graph)
    group = found.prunable()[0]
    assert (len(group.makers), len(group.units), group.width) == (3, 3, 2)
    small = same(graph, without(found, **{group.name: 1}))
    assert weights(small, "out").shape == (4, 2)
    assert weights(small, "to").tolist() == [0, 0, 4]


def test_transposed_convolutions_and_channels_last():
    net = Net()
    a = net.op("Transpose", net.conv("x", 3, 8), perm=[0, 2, 3, 1])
    scaled = net.op("Transpose", net.op("Mul", a, net.whole("s", 8)), perm=[0, 3, 1, 2])
    up = net.op("ConvTranspose", scaled, net.whole("up", 8, 6, 2, 2), net.whole("upb", 6), strides=[2, 2])
    graph = net.model([net.conv(up, 6, 2)])
    small = same(graph, without(analyzed(graph), conv0=3, convtranspose4=2))
    assert weights(small, "s").shape == (5,)
    assert weights(small, "up").shape == (5, 4, 2, 2)


def test_resize_pads_and_squeezes_keep_channels():
    net = Net()
    a = net.conv("x", 3, 8)
    sizes = net.const("sizes", np.array([1, 8, 8, 8]))
    big = net.op("Resize", a, "", "", sizes, mode="nearest")
    wide = net.op("Pad", big, net.const("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    mean = net.op("ReduceSum", wide, net.const("axes", np.array([2, 3])), keepdims=0)
    graph = net.model(
        [net.gemm(net.op("Squeeze", net.op("Unsqueeze", mean, net.const("at", np.array([1]))), "at"), 8, 2)]
    )
    small = same(graph, without(analyzed(graph), conv0=3))
    assert weights(small, "sizes").tolist() == [1, 5, 8, 8]


def test_counts_are_multiples_and_one_multiple_stays():
    net = Net()
    graph = net.model([net.conv(net.conv("x", 3, 40), 40, 2)])
    group = analyzed(graph).prunable()[0]
    assert kept_counts(group, 16) == [40, 32, 16]
    assert kept_counts(group, 64) == [40]
    assert kept_counts(group, 1)[-1] == 1
    assert kept_counts(group, 16, 32) == [40, 32]
    assert kept_counts(group, 16, 33) == [40]


def test_the_most_important_stay_and_every_axis_keeps_one():
    net = Net()
    first, second = net.op("Split", net.conv("x", 3, 8), outputs=2, axis=1)
    graph = net.model([net.conv(first, 4, 2), net.conv(second, 4, 2)])
    found = analyzed(graph)
    importance = np.arange(found.count)[::-1].astype(float)
    keep = chosen(found.prunable(), {"conv0": 3}, importance, found.count)
    assert keep[found.axes["conv0_out"][1]].tolist() == [True, True, False, False, True, False, False, False]
    assert outputs(cut(graph, found, keep), inputs())[0].shape == (1, 2, 4, 4)
