"""Winograd convolutions against a direct one in float64, and when they are chosen."""

import numpy as np
import pytest

from nncc.codegen.flatten import in_panels
from nncc.compat import IRModule, te, topi, tvm
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.target import resolve

TEMPLATES = load_templates()
WINOGRAD = TEMPLATES["winograd"]


def direct(x, kernel, bias, padding, stride=1):
    """The convolution and its ReLU in float64."""
    top, left, bottom, right = padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.maximum(np.einsum("nchwij,ocij->nohw", windows, kernel.astype(np.float64)) + bias[:, None, None], 0)


def blocked(x, lanes):
    """Channels in blocks of `lanes`; zeros fill the last one."""
    n, c, h, w = x.shape
    x = np.pad(x, ((0, 0), (0, -c % lanes), (0, 0), (0, 0)))
    c = x.shape[1]
    return np.ascontiguousarray(x.reshape(n, c // lanes, lanes, h, w).transpose(0, 1, 3, 4, 2))


def winograd(x, kernel, bias, padding, tile, strip, target, stride=1):
    """What the template computes, scheduled for `target`, bias and ReLU fused behind it."""
    lanes = max(4, target.hardware.vector_bits // 32)
    batch, channels, height, width = x.shape
    out_channels = len(kernel)
    size = (height + padding[0] + padding[2] - 3) // stride + 1, (width + padding[1] + padding[3] - 3) // stride + 1
    blocks = -(-channels // lanes), -(-out_channels // lanes)
    weight = WINOGRAD.module.pack(kernel, lanes, lanes, tile, stride)
    inputs = [blocked(x, lanes), weight, blocked(bias.reshape(1, -1, 1, 1), lanes)]
    data, u, b = (te.placeholder(a.shape, name=name) for a, name in zip(inputs, "xub", strict=True))
    product = WINOGRAD.compute(data, u, padding=padding, tile=tile, strip=strip, stride=stride)
    y = topi.nn.relu(topi.add(product, b))
    function, origin = schedule_kernel(te.create_prim_func([data, u, b, y]), TEMPLATES, target.hardware)
    strips = batch * -(-size[0] // tile[0]) // strip
    strided = ", stride 2" if stride == 2 else ""
    assert origin.startswith(f"winograd F({tile[0]}x{tile[1]},3x3{strided}) tile ")
    assert (f" in {strips} strips" in origin) == (strips > 1)
    assert origin.endswith(f", error {WINOGRAD.module.ERROR[tile]:.0e}")
    inputs[1] = in_panels(weight, tuple(int(d) for d in function.params[1].shape))
    module = tvm.compile(IRModule({"main": function}), target.tvm_target())
    out = tvm.runtime.tensor(np.zeros((batch, blocks[1], *size, lanes), np.float32))
    module["main"](*map(tvm.runtime.tensor, inputs), out)
    return out.numpy().transpose(0, 1, 4, 2, 3).reshape(batch, -1, *size)[:, :out_channels]


@pytest.mark.parametrize(
    ("stride", "tile"), [(s, tile) for s, tiles in WINOGRAD.module.TILES.items() for tile in tiles]
)
@pytest.mark.parametrize(
    ("shape", "out_channels", "padding"),
    [
        ((1, 16, 8, 8), 16, (1, 1, 1, 1)),
        ((1, 24, 7, 13), 40, (1, 1, 1, 1)),
        ((2, 16, 14, 9), 32, (0, 0, 0, 0)),
        ((1, 32, 5, 6), 16, (2, 0, 1, 2)),
        ((1, 16, 3, 3), 16, (0, 0, 0, 0)),
        ((1, 16, 12, 17), 16, (0, 0, 1, 1)),
    ],
)
def test_it_agrees_with_a_direct_convolution(shape, out_channels, padding, tile, stride):
    down = -(-((shape[2] + padding[0] + padding[2] - 3) // stride + 1) // tile[0])
    generator = np.random.default_rng(1)
    x = generator.standard_normal(shape).astype(np.float32)
    kernel = (generator.standard_normal((out_channels, shape[1], 3, 3)) / np.sqrt(9 * shape[1])).astype(np.float32)
    bias = generator.standard_normal(out_channels).astype(np.float32)
    expected = direct(x, kernel, bias, padding, stride)
    for strip in (rows for rows in range(1, down + 1) if down % rows == 0):
        found = winograd(x, kernel, bias, padding, tile, strip, resolve("native"), stride)
        assert np.abs(found - expected).max() <= WINOGRAD.module.ERROR[tile] * np.abs(expected).max(), strip


def test_it_is_chosen_where_it_pays():
    hardware = resolve("x86-64-v3").hardware
    choose = WINOGRAD.module.choose
    assert choose((64, 64, 3, 3), (1, 1), (1, 1), 1, 56, 56, 8, hardware)[0].tile == (4, 4)
    assert choose((256, 256, 3, 3), (2, 2), (1, 1), 1, 14, 14, 8, hardware)[0].tile == (2, 2)
    for shape, strides, dilation, size, reason in (
        ((64, 64, 1, 1), (1, 1), (1, 1), 56, "the window is 1x1, Winograd's 3x3"),
        ((64, 64, 3, 3), (3, 3), (1, 1), 56, "Winograd needs stride 1 or 2 and dilation 1"),
        ((64, 64, 3, 3), (1, 2), (1, 1), 56, "Winograd needs stride 1 or 2 and dilation 1"),
        ((64, 64, 3, 3), (1, 1), (2, 2), 56, "Winograd needs stride 1 or 2 and dilation 1"),
        ((8, 3, 3, 3), (1, 1), (1, 1), 56, "too few channels for the transforms to pay"),
    ):
        assert choose(shape, strides, dilation, 1, size, size, 8, hardware) == (None, reason)
    plan, reason = choose((512, 512, 3, 3), (1, 1), (1, 1), 1, 2, 2, 8, hardware)
    assert plan is None
    assert reason.endswith("of a direct convolution's time")


def test_strips_keep_a_large_image_in_the_second_level_cache():
    hardware = resolve("x86-64-v4,num-cores=1").hardware
    plan = WINOGRAD.module.plan((4, 4), 4, 4, (1, 112, 112), 16, hardware)
    transformed = 36 * (4 + 4) * plan.strip * 28 * 16 * 4
    assert transformed <= hardware.l2_kib * 1024
    assert plan.strip < 28
    small = WINOGRAD.module.plan((4, 4), 4, 4, (1, 16, 16), 16, hardware)
    assert small.strip == 4, "one strip: there is nothing to keep out"


def test_every_core_has_a_strip_or_all_share_one():
    hardware = resolve("x86-64-v4,num-cores=8").hardware
    plan = WINOGRAD.module.plan((4, 4), 4, 4, (1, 56, 56), 16, hardware)
    strips = 14 // plan.strip
    assert strips == 1 or strips % 8 in (0, 6, 7)
