"""Small float models for the tests of quantization, and samples for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def lopsided(path: Path, batch: int | str = "N", excess: float = 3000.0) -> Path:
    """scores = Gemm(Flatten(Relu(second(Relu(first(image)))))), where channel 0 between the two convolutions is
    `excess` times as large as the others, and the second one takes it back: 8 bits hold only channel 0."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((8, 3, 3, 3)) / 5, rng.standard_normal((8, 8, 3, 3)) / 8
    first[0] *= excess
    second[:, 0] /= excess
    weights = {"w1": first, "w2": second, "w3": rng.standard_normal((8 * 8 * 8, 5)) / 20}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        helper.make_node("Flatten", ["d"], ["e"], name="flatten"),
        helper.make_node("Gemm", ["e", "w3"], ["scores"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "lopsided",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def images(path: Path, count: int = 24) -> Path:
    """That many inputs of `lopsided` in an .npz."""
    array = np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)
    np.savez(path, image=array)
    return path
