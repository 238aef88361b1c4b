"""Nodes of domains beside the standard, alone in a model: their inputs, and what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnxruntime


def inputs_of(arrays: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    """By name, `x0`, `x1` and so on; those that are left out are None."""
    return {f"x{at}": array for at, array in enumerate(arrays) if array is not None}


def expected_of(model: onnx.ModelProto, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of ONNX Runtime's own kernel."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs_of(arrays))


def close(found: Iterable[np.ndarray], expected: Iterable[np.ndarray], tolerance: float) -> None:
    """Of the same types and shapes, and no further apart than `tolerance` times the largest element."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
