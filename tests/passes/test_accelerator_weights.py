"""Constants of an accelerator, element by element."""

from __future__ import annotations

import numpy as np

from nncc.passes.accelerator_weights import pack_depthwise, pack_parameters, pack_weights


def test_weights_are_blocks_of_outputs_by_inputs():
    kernel = np.arange(18 * 5 * 3 * 2).astype(np.int8).reshape(18, 5, 3, 2)
    packed = pack_weights(kernel, 8)
    assert packed.shape == (3, 1, 3, 2, 8, 8)
    assert packed[2, 0, 1, 1, 1, 4] == kernel[17, 4, 1, 1]
    assert not packed[2, :, :, :, 2:].any()
    assert not packed[..., 5:].any()


def test_depthwise_weights_are_taps_by_lanes():
    kernel = np.arange(10 * 9).astype(np.int8).reshape(10, 1, 3, 3)
    packed = pack_depthwise(kernel, 8)
    assert packed.shape == (2, 2, 8, 8)
    assert packed[1, 1, 0, 1] == kernel[9, 0, 2, 2]
    assert not packed[:, 1, 1:].any()


def test_parameters_are_biases_and_the_bits_of_scales_and_a_sum_has_a_row_of_its_own():
    packed = pack_parameters(np.arange(9), np.arange(9) / np.float32(8), 8, (0.5, 0.25, -3.0))
    assert packed.shape == (3, 16)
    assert packed[1, 0] == 8
    assert packed.view(np.float32)[1, 8] == 1.0
    np.testing.assert_array_equal(packed.view(np.float32)[2, 8:], [0.5, 0.25, -3.0, 0, 0, 0, 0, 0])
