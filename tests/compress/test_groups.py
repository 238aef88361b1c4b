"""Which channels depend on each other, and why some cannot go."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from compress_models import Net, analyzed, inputs, reasons
from onnx import TensorProto, helper


def test_residuals_unite_and_concatenations_do_not():
    net = Net()
    a, b = net.conv("x", 3, 4), net.conv("x", 3, 4)
    c = net.conv(net.op("Add", a, b), 4, 6)
    joined = net.op("Concat", c, net.conv("x", 3, 5), axis=1)
    found = analyzed(net.model([net.conv(joined, 11, 2)]))
    assert [(group.makers, len(group.units)) for group in found.prunable()] == [
        (("conv0", "conv1"), 4),
        (("conv3",), 6),
        (("conv4",), 5),
    ]


def test_a_group_convolution_goes_by_whole_groups():
    net = Net()
    grouped = net.conv(net.conv("x", 3, 6), 6, 12, group=3)
    group = analyzed(net.model([net.conv(grouped, 12, 2)])).prunable()[0]
    assert (group.makers, len(group.units), group.width) == (("conv0",), 3, 2)


def test_a_flatten_repeats_each_channel_for_its_pixels():
    net = Net()
    graph = net.model([net.gemm(net.op("Flatten", net.conv("x", 3, 4)), 64, 2)])
    found = analyzed(graph)
    np.testing.assert_array_equal(found.axes["flatten1_out"][1], np.repeat(found.axes["conv0_out"][1], 16))


def output_of_the_model(net, a):
    return [a]


def shared_weights(net, a):
    net.whole("shared", 4, 4, 1, 1)
    b = net.op("Conv", a, "shared", kernel_shape=[1, 1])
    return [net.conv(net.op("Conv", b, "shared", kernel_shape=[1, 1]), 4, 2)]


def an_unknown_operator(net, a):
    return [net.conv(net.op("DepthToSpace", a, blocksize=2), 1, 2)]


def softmax_over_channels(net, a):
    return [net.conv(net.op("Softmax", a, axis=1), 4, 2)]


def a_mean_over_channels(net, a):
    return [net.op("ReduceMean", a, axes=[1])]


def added_to_an_input(net, a):
    return [net.conv(net.op("Add", a, "more"), 4, 2)]


def a_computed_reshape(net, a):
    to = net.op("Concat", net.op("Shape", "more", start=0, end=1), net.const("rest", np.array([64])), axis=0)
    return [net.gemm(net.op("Reshape", a, to), 64, 2)]


def a_size_that_is_read(net, a):
    count = net.op("Gather", net.op("Shape", a), net.const("one", np.array(1)))
    return [net.conv(net.op("Mul", a, net.op("Cast", count, to=TensorProto.FLOAT)), 4, 2)]


def every_second_channel(net, a):
    words = [net.const(name, np.array([value])) for name, value in (("s", 0), ("e", 4), ("ax", 1), ("st", 2))]
    return [net.conv(net.op("Slice", a, *words), 2, 2)]


def padded_channels(net, a):
    return [net.conv(net.op("Pad", a, net.const("pads", np.array([0, 1, 0, 0, 0, 1, 0, 0]))), 6, 2)]


def read_in_control_flow(net, a):
    branch = helper.make_graph(
        [helper.make_node("Relu", [a], ["inside"], name="inner")], "then", [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )  # fmt: skip
    condition = net.const("condition", np.array(True))
    return [net.conv(net.op("If", condition, then_branch=branch, else_branch=branch), 4, 2)]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (output_of_the_model, "`conv0_out` is an output of the model"),
        (shared_weights, "weights `shared` are shared with `conv2`"),
        (an_unknown_operator, "`depthtospace1` is a DepthToSpace, of which channels cannot be removed"),
        (softmax_over_channels, "`softmax1` normalizes over them"),
        (a_mean_over_channels, "`reducemean1` reduces over them"),
        (added_to_an_input, "`add1` combines them with values that are no channels"),
        (a_computed_reshape, "the shape of `reshape3` is computed"),
        (a_size_that_is_read, "`shape1` reads how many there are"),
        (every_second_channel, "`slice1` takes them in steps of 2"),
        (padded_channels, "`pad1` pads them"),
        (read_in_control_flow, "`conv0_out` is read inside of control flow"),
    ],
)
def test_what_is_not_understood_stays_with_its_reason(build, reason):
    net = Net(opset=17)
    made = build(net, net.conv("x", 3, 4))
    more = [helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 4, 4, 4])]
    sample = inputs() | {"more": np.zeros((1, 4, 4, 4), np.float32)}
    assert reasons(net.model(made, more=more), sample)["conv0"] == reason


def test_weights_that_are_computed_are_left():
    net = Net()
    a = net.conv("x", 3, 4)
    kernel = net.op("Relu", net.whole("w", 2, 4, 1, 1))
    graph = net.model([net.op("Conv", a, kernel)])
    assert reasons(graph)["conv0"] == "the weights of `conv2` are no constants"


def test_open_sizes_of_batch_and_image_do_not_matter():
    net = Net()
    a = net.op("Relu", net.conv("x", 3, 4, 3))
    graph = net.model([net.conv(a, 4, 2)], x=("N", 3, "H", "W"))
    assert isinstance(graph, onnx_ir.Model)
    assert [group.name for group in analyzed(graph).prunable()] == ["conv0"]
