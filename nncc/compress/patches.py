"""What a product sees of its input: a row of numbers for each position of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import attribute, is_op, operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["patches"]


def patches(node: onnx_ir.Node, x: np.ndarray) -> np.ndarray:
    """[positions, inputs] of a Conv with one group, a Gemm or a MatMul; [channels, positions, window] of a depthwise
    Conv. A Conv has explicit pads. Positions are in the order of the output with its channels last.
    """
    import numpy as np

    if not is_op(node, "Conv"):
        return x.reshape(-1, x.shape[-1])
    kernel = operand(node, 1).shape
    assert kernel is not None
    window = [size for size in kernel[2:] if isinstance(size, int)]
    rank = len(window)
    pads = attribute(node, "pads") if attribute(node, "auto_pad", "NOTSET") == "NOTSET" else None
    pads = pads or [0] * 2 * rank
    strides = attribute(node, "strides") or [1] * rank
    dilations = attribute(node, "dilations") or [1] * rank
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, stride) for stride in strides]
    picks = [slice(None, None, dilation) for dilation in dilations]
    taken = slice(None), slice(None), *steps, *picks
    views = views[taken]  # [batch, channels, *positions, *window]
    places = list(range(2, 2 + rank))
    inner = list(range(2 + rank, 2 + 2 * rank))
    if int(attribute(node, "group", 1)) > 1:
        return views.transpose(1, 0, *places, *inner).reshape(x.shape[1], -1, int(np.prod(window)))
    return views.transpose(0, *places, 1, *inner).reshape(-1, x.shape[1] * int(np.prod(window)))
