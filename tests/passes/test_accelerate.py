"""Layers of int8 become kernels of an accelerator, which compute what the processor's own would; reasons for others."""

from __future__ import annotations

import numpy as np
import pytest
from accelerated import kernels_of, residuals, same_integers, specialized
from quantized import QuantizedNet, extremes, inputs_of, many_kinds


@pytest.mark.parametrize("make", [residuals, many_kinds, extremes])
def test_layers_by_their_definition_compute_what_the_processor_computes(make, tmp_path):
    same_integers(make("int8"), tmp_path, inputs=inputs_of(make))


def test_activations_without_a_sign_get_one(tmp_path):
    compiled = same_integers(residuals("uint8"), tmp_path)
    assert sum(call.kernel.startswith("vta_") for call in compiled.program.calls) == 12


def test_a_residual_network_is_one_kernel_a_layer(tmp_path):
    network = specialized(residuals(), tmp_path)
    conv, add, pool = "vta_conv2d", "vta_add", "vta_max_pool"
    middle = [conv, pool, *[conv, conv] * 2, conv, conv, "vta_depthwise", add, add]
    assert kernels_of(network)[1:-9] == ["patches", *middle]
    assert network.acceleration.host_layers == ()
    assert network.acceleration.layers == 9


def stays(net: QuantizedNet, folder) -> list[tuple[str, str]]:
    return [(each.text, each.reason) for each in specialized(net, folder).acceleration.host_layers]


def test_products_that_stay_on_the_host_say_why(tmp_path):
    net = QuantizedNet("int8")
    x = net.quantized(net.input(2, 16, 6, 6), 0.05)
    x = net.quantized_conv(x, 16, 16, (1, 1))
    net.output(x)
    image = net.quantized(net.input(1, 32, 6, 6), 0.05)
    net.output(net.quantized_conv(image, 32, 32, (3, 3), group=4))
    values = net.levels(net.random.integers(-127, 128, (16, 32, 1, 1), np.int8), np.full(16, 0.003))
    y = net.op("Conv", image, values)
    net.output(y)
    net.output(net.quantized(y, 0.1))
    assert stays(net, tmp_path) == [
        ("conv2d 2x16x6x6*16x16x1x1", "its batch is 2, the accelerator takes one image"),
        ("conv2d 1x32x6x6*32x8x3x3", "it has 4 groups of channels"),
        ("conv2d 1x32x6x6*16x32x1x1", "its sums are read by several operators"),
    ]


def test_without_requantization_no_product_runs_on_the_accelerator(tmp_path):
    net = residuals()
    reasons = {e.reason for e in specialized(net, tmp_path, "vta0").acceleration.host_layers}
    assert reasons == {"`vta0` rounds halves up, and has one scale for all channels"}


@pytest.mark.parametrize(("channels", "kernel", "patches"), [(3, 7, True), (16, 3, False), (3, 1, False)])
def test_patches_are_laid_out_where_blocks_would_be_mostly_empty(channels, kernel, patches, tmp_path):
    net = QuantizedNet("int8")
    x = net.quantized(net.input(1, channels, 12, 12), 0.05)
    net.output(net.quantized_conv(x, channels, 16, (kernel, kernel)))
    assert ("patches" in kernels_of(specialized(net, tmp_path))) is patches
