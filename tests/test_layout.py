"""Blocked channels: whatever comes between two convolutions, the padded lanes stay out of the results."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from compiled import ROUNDING, Net, agrees
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_schedules import TARGETS

DEEP = 5e-5
"""Up to eight convolutions in a row, each within ROUNDING of what it was given, of which errors partly cancel."""


def per_channel(net: Net, low: float, high: float) -> str:
    return net.constant(np.linspace(low, high, 10).reshape(10, 1, 1), np.float32)


def statistics(net: Net) -> str:
    return net.constant(np.linspace(0.5, 2, 10), np.float32)


# Those that turn the zeros of padded lanes to something else: 0.5, 1, NaN or infinity.
ACTIVATIONS = {
    "Sigmoid": lambda net, x: net.op("Sigmoid", x),
    "HardSigmoid": lambda net, x: net.op("HardSigmoid", x),
    "HardSwish": lambda net, x: net.op("HardSwish", x),
    "Tanh": lambda net, x: net.op("Tanh", x),
    "Elu": lambda net, x: net.op("Elu", x),
    "Selu": lambda net, x: net.op("Selu", x),
    "LeakyRelu": lambda net, x: net.op("LeakyRelu", x, alpha=0.2),
    "PRelu": lambda net, x: net.op("PRelu", x, net.weight(10, 1, 1, scale=0.3)),
    "PRelu of one slope": lambda net, x: net.op("PRelu", x, net.weight(1, scale=0.3)),
    "Clip": lambda net, x: net.op("Clip", x, net.constant(0.25, np.float32), net.constant(0.5, np.float32)),
    "Softplus": lambda net, x: net.op("Softplus", x),
    "Erf": lambda net, x: net.op("Erf", x),
    "Exp": lambda net, x: net.op("Exp", x),
    "Log": lambda net, x: net.op("Log", net.op("Abs", x)),
    "Reciprocal": lambda net, x: net.op("Reciprocal", net.op("Add", net.op("Abs", x), per_channel(net, 0.5, 0.5))),
    "Div by channels": lambda net, x: net.op("Div", x, per_channel(net, 1, 10)),
    "Div by a tensor": lambda net, x: net.op("Div", x, net.op("Exp", x)),
    "Sqrt": lambda net, x: net.op("Sqrt", net.op("Abs", x)),
    "Pow": lambda net, x: net.op("Pow", net.op("Abs", x), net.constant(-0.5, np.float32)),
    "Mul by an image": lambda net, x: net.op("Mul", x, net.input(1, 1, 9, 7)),
    "Mul by a row": lambda net, x: net.op("Mul", x, net.input(7)),
    "Add of channels": lambda net, x: net.op("Add", net.input(1, 10, 1, 1), x),
    "Sub from a batch": lambda net, x: net.op("Sub", net.input(10, 9, 7), x),
    "Max": lambda net, x: net.op("Max", x, net.constant(0.1, np.float32)),
    "Softmax over channels": lambda net, x: net.op("Softmax", x, axis=1),
    "ReduceMax over channels": lambda net, x: net.op("ReduceMax", x, axes=[1]),
    "Mean over channels": lambda net, x: net.op("ReduceMean", x, axes=[1]),
    "BatchNormalization": lambda net, x: net.op("BatchNormalization", x, *(statistics(net) for _ in range(4))),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_padded_lanes_do_not_leak_through_what_follows_a_convolution(tmp_path, target):
    """Ten channels fill no block of 4, 8 or 16; a second convolution would add the padding up."""
    net = Net()
    image = net.input(1, 3, 9, 7)
    for make in ACTIVATIONS.values():
        middle = make(net, net.conv(image, 3, 10, (3, 3), pads=[1, 1, 1, 1]))
        channels = 1 if middle.startswith("Reduce") else 10
        last = net.conv(middle, channels, 17, (1, 1))
        net.output(last, net.op("GlobalAveragePool", last))
    # Log and the power of -1/2 amplify rounding where |x| is small: ten times the tolerance of one operator.
    agrees(net, tmp_path, target, 10 * ROUNDING)


def test_infinities_stay_in_their_places(tmp_path):
    """exp(x) / 0 is infinite in some channels only; where ONNX Runtime has infinities or NaN, so has the library."""
    net = Net()
    x = net.conv(net.input(1, 3, 9, 7), 3, 10, (1, 1))
    net.output(net.op("Div", net.op("Exp", x), net.constant(np.tile([0.0, 1.0], 5).reshape(10, 1, 1), np.float32)))
    net.output(net.op("Sqrt", x), net.op("Log", x))
    agrees(net, tmp_path)


def test_pooling_of_blocked_and_plain_tensors(tmp_path):
    net = Net(opset=19)
    plain = net.input(1, 10, 13, 11)
    blocked = net.conv(plain, 10, 17, (3, 3))
    for x in (plain, blocked):
        for kind in ("MaxPool", "AveragePool"):
            own = [{"count_include_pad": 1}, {"count_include_pad": 0}] if kind == "AveragePool" else [{}]
            for options in own:
                net.output(
                    net.op(kind, x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], **options),
                    net.op(kind, x, kernel_shape=[2, 2], strides=[2, 2], **options),
                    net.op(kind, x, kernel_shape=[3, 2], strides=[1, 2], pads=[0, 1, 2, 0], **options),
                    net.op(kind, x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, **options),
                    net.op(kind, x, kernel_shape=[3, 3], strides=[1, 1], auto_pad="SAME_UPPER", **options),
                )
        net.output(net.op("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2]))
        net.output(net.op("GlobalAveragePool", x), net.op("GlobalMaxPool", x))
        net.output(net.op("ReduceMean", x, net.ints(2, 3), keepdims=0), net.op("ReduceMean", x, net.ints(-1, -2)))
        net.output(net.op("ReduceMean", x, net.ints(1, 2, 3)), net.op("ReduceMean", x, net.ints(2)))
        net.output(net.op("Transpose", x, perm=[0, 2, 3, 1]), net.op("Flatten", x))
        net.output(net.op("Concat", x, net.op("Relu", x), axis=1), net.op("Concat", x, x, axis=2))
        net.output(net.op("Resize", x, "", net.constant([1, 1, 2, 2], np.float32), mode="nearest"))
    agrees(net, tmp_path)


def test_whole_blocks_stay_blocked_through_a_residual_network(tmp_path):
    """One unblocking at the end: between the convolutions nothing is moved."""
    net = Net()
    x = net.conv(net.input(1, 3, 19, 19), 3, 32, (3, 3), strides=[2, 2])
    for _ in range(2):
        y = net.op("Relu", net.conv(x, 32, 32, (3, 3), pads=[1, 1, 1, 1]))
        gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", y), 32, 32, (1, 1)))
        x = net.op("Add", net.op("Mul", y, gate), x)
    x = net.op("Concat", x, net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), axis=1)
    net.output(net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", x)), net.weight(64, 10)))
    compiled = agrees(net, tmp_path, tolerance=DEEP)
    moved = [name for name in compiled.kernels.schedules if "block_channels" in name]
    assert len(moved) <= 1, f"only the image is blocked, nothing is unblocked, but there are {moved}"


@st.composite
def convolutional_nets(draw) -> Net:
    """Convolutions of odd channel counts with residuals, concatenations, pooling, gates and means between them."""
    net = Net(seed=draw(st.integers(0, 99)))
    size = (draw(st.integers(5, 13)), draw(st.integers(5, 13)))
    batch, first = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([1, 3, 8, 10]))
    values = [(net.input(batch, first, *size), first)]
    for _ in range(draw(st.integers(2, 6))):
        x, channels = values[draw(st.integers(max(0, len(values) - 3), len(values) - 1))]
        kind = draw(
            st.sampled_from(["conv", "conv", "conv", "depthwise", "residual", "concat", "pool", "gate", "act", "norm"])
        )
        if kind == "conv":
            out, k = draw(st.sampled_from([1, 3, 8, 10, 16, 17, 24, 33])), draw(st.sampled_from([1, 3, 5]))
            values.append((net.conv(x, channels, out, (k, k), pads=[k // 2] * 4, bias=draw(st.booleans())), out))
        elif kind == "depthwise":
            values.append((net.conv(x, channels, channels, (3, 3), pads=[1] * 4, group=channels), channels))
        elif kind == "residual":
            same = [v for v, c in values if c == channels]
            values.append(
                (net.op(draw(st.sampled_from(["Add", "Mul", "Sub", "Max"])), x, draw(st.sampled_from(same))), channels)
            )
        elif kind == "concat":
            other, more = draw(st.sampled_from(values))
            values.append((net.op("Concat", x, other, axis=1), channels + more))
        elif kind == "pool":
            options = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
            values.append((net.op(draw(st.sampled_from(["MaxPool", "AveragePool"])), x, **options), channels))
        elif kind == "gate":
            mean = net.op("GlobalAveragePool", x)
            values.append((net.op("Mul", x, net.op("Sigmoid", net.conv(mean, channels, channels, (1, 1)))), channels))
        elif kind == "norm":
            mean = net.op("ReduceMean", x, axes=[2, 3])
            values.append((net.op("Sub", x, mean), channels))
        else:
            values.append(
                (
                    net.op(
                        draw(st.sampled_from(["Relu", "Sigmoid", "HardSwish", "Exp", "Neg", "Tanh"])), net.op("Tanh", x)
                    ),
                    channels,
                )
            )
    net.output(*dict.fromkeys([values[-1][0], draw(st.sampled_from(values[1:]))[0]]))
    return net


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(net=convolutional_nets())
def test_random_convolutional_networks(net):
    with tempfile.TemporaryDirectory() as folder:
        agrees(net, Path(folder), tolerance=DEEP)
