"""Constants as an accelerator reads them, in elements of its memories."""

from __future__ import annotations

import numpy as np

from nncc.ir import align

__all__ = ["matrix_blocks", "pack_depthwise", "pack_parameters", "pack_weights", "patch_matrix"]


def pack_weights(kernel: np.ndarray, block: int) -> np.ndarray:
    """int8[O, I, KH, KW] -> int8[O/b, I/b, KH, KW, b (out), b (in)], channels that fill the last blocks zero."""
    outputs, inputs, height, width = kernel.shape
    full = np.zeros((align(outputs, block), align(inputs, block), height, width), np.int8)
    full[:outputs, :inputs] = kernel
    split = full.reshape(full.shape[0] // block, block, full.shape[1] // block, block, height, width)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 1, 3))


def pack_depthwise(kernel: np.ndarray, block: int) -> np.ndarray:
    """int8[C, 1, KH, KW] -> int8[C/b, KH*KW/b, b (taps), b (lanes)], row by row; what fills the last ones is zero."""
    channels, _, height, width = kernel.shape
    taps = height * width
    full = np.zeros((align(channels, block), align(taps, block)), np.int8)
    full[:channels, :taps] = kernel.reshape(channels, taps)
    split = full.reshape(full.shape[0] // block, block, full.shape[1] // block, block)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1))


def pack_parameters(
    bias: np.ndarray, scale: np.ndarray, block: int, more: tuple[float, float, float] | None = None
) -> np.ndarray:
    """int32[O/b (+ 1), 2 b]: the biases of a block of channels, then the bits of its scales, float32; what fills the
    last block is zero. `more` are the ratios of two summands and what is added to them: the scales of one row more."""
    blocks = -(-len(bias) // block)
    rows = np.zeros((blocks + (more is not None), 2, block), np.int32)
    rows[:blocks, 0] = _filled(bias.astype(np.int32), blocks, block)
    rows[:blocks, 1] = _filled(scale.astype(np.float32), blocks, block).view(np.int32)
    if more is not None:
        rows[blocks, 1, :3] = np.array(more, np.float32).view(np.int32)
    return rows.reshape(-1, 2 * block)


def _filled(values: np.ndarray, blocks: int, block: int) -> np.ndarray:
    full = np.zeros(blocks * block, values.dtype)
    full[: len(values)] = values
    return full.reshape(blocks, block)


def patch_matrix(kernel: np.ndarray) -> np.ndarray:
    """int8[O, I, KH, KW] -> int8[O, I KH KW, 1, 1]: the weights of a convolution of patches."""
    return kernel.reshape(len(kernel), -1, 1, 1)


def matrix_blocks(matrix: np.ndarray) -> np.ndarray:
    """int8[K, N] -> int8[N, K, 1, 1]: the weights of a convolution of one pixel a row."""
    return np.ascontiguousarray(matrix.T)[:, :, None, None]
