"""Small models for the tests of distillation, and data for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def saved(path: Path, nodes, inputs, outputs, constants, opset=17) -> Path:
    """A model as a file; inputs and outputs are (name, type, shape)."""
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


def classifier(
    path: Path, *, seed=0, noise=0.0, batch: int | str = "N", softmax=True, names=("image", "scores")
) -> Path:
    """scores = Softmax(Gemm(mean over positions of Relu(Conv(image)))) of 3x6x6 images and 4 classes; with `noise`, the
    weights are those of the same seed and as much noise beside them."""
    rng, other = np.random.default_rng(seed), np.random.default_rng(99)
    constants = {
        "w1": rng.standard_normal((8, 3, 3, 3)) / 3,
        "b1": rng.standard_normal(8) / 3,
        "w2": rng.standard_normal((8, 4)),
        "b2": rng.standard_normal(4) / 3,
    }
    constants = {k: (v + noise * other.standard_normal(v.shape)).astype(np.float32) for k, v in constants.items()}
    image, scores = names
    nodes = [
        helper.make_node("Conv", [image, "w1", "b1"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Reshape", ["c", "flat"], ["d"], name="flat"),
        helper.make_node("Gemm", ["d", "w2", "b2"], ["logits" if softmax else scores], name="last"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], [scores], name="softmax"))
    constants["flat"] = np.array([1 if batch == 1 else 0, 8], np.int64)
    return saved(path, nodes, [(image, FLOAT, [batch, 3, 6, 6])], [(scores, FLOAT, [batch, 4])], constants)


def data(path: Path, count=64, name="image") -> Path:
    """That many inputs of `classifier`."""
    np.savez(path, **{name: np.random.default_rng(7).standard_normal((count, 3, 6, 6)).astype(np.float32)})
    return path


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The initializers of a file."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
