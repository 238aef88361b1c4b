"""A model that is small and still has a convolution, a matrix product, two inputs and an open batch dimension."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny_model(middle: tuple[tuple[str, str], ...] = (), batch: int | str = "N") -> onnx.ModelProto:
    """y = Gemm(Flatten(Relu(Conv(image)))) + offset; `middle` puts operators (name, domain) behind the Relu."""
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.standard_normal((4, 3, 3, 3)), "matrix": rng.standard_normal((4 * 8 * 8, 5))}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
    ]
    last = "b"
    for number, (operator, domain) in enumerate(middle):
        nodes.append(helper.make_node(operator, [last], [f"m{number}"], name=f"odd_{number}", domain=domain))
        last = f"m{number}"
    nodes += [
        helper.make_node("Flatten", [last], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "matrix"], ["g"], name="gemm"),
        helper.make_node("Add", ["g", "offset"], ["y"], name="add"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8]),
            helper.make_tensor_value_info("offset", TensorProto.FLOAT, [5]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    domains = sorted({domain for _, domain in middle if domain})
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 3) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
