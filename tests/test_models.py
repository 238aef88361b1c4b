"""The light networks of the onnx wheel: classic architectures, whole, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import compile_net
from onnx import numpy_helper

from nncc.codegen.link import PUBLIC_FUNCTIONS

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
DEFAULT = ("squeezenet", "shufflenet", "inception_v1", "inception_v2", "densenet121", "resnet50")
LARGE = ("bvlc_alexnet", "zfnet512", "vgg19")  # 240 to 570 MB of weights each
TOLERANCE = 2e-5
"""Seeded weights that keep the variance of what they multiply: rounding errors of up to 4e-6 an operator do not grow,
and partly cancel over 20 to 120 layers."""


def with_weights(path: Path) -> onnx.ModelProto:
    """The model, its weights (which the wheel has as ConstantOfShape) drawn at random, the same each time."""
    model = onnx.load(path)
    graph = model.graph
    random = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    users = {name: (node.op_type, place) for node in reversed(graph.node) for place, name in enumerate(node.input)}
    kept, weights = [], []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        user, place = users.get(node.output[0], ("", 0))
        if user == "BatchNormalization":
            low, high = {1: (0.5, 1.0), 2: (-0.1, 0.1), 3: (-0.1, 0.1), 4: (0.5, 1.5)}[place]
            array = random.uniform(low, high, shape)
        elif len(shape) > 1:
            products = int(np.prod(shape[1:])) if user == "Conv" else max(shape)
            array = random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2.0 / products))
        else:
            array = random.normal(0, 0.05, shape)
        weights.append(numpy_helper.from_array(array.astype(np.float32), node.output[0]))
    used = {name for node in kept for name in node.input}
    old = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in shapes]
    for field, new in ((graph.node, kept), (graph.initializer, old + weights), (graph.input, inputs)):
        del field[:]
        field.extend(new)
    if graph.node[-1].op_type == "Softmax":  # of random logits it is nearly one-hot, and would hide every error
        graph.output[0].name = graph.node.pop().input[0]
    model.ir_version = max(model.ir_version, 8)
    return model


@pytest.mark.parametrize("name", [*DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_classic_network_is_computed_as_onnx_runtime_does(tmp_path, name):
    compiled = compile_net(with_weights(LIGHT / f"light_{name}.onnx"), tmp_path)
    (found,) = compiled.comparisons(compiled.sample(), TOLERANCE, threads=2)
    print(name, found)
    assert found.ok, str(found)
    expected = next(iter(compiled.expected(compiled.sample()).values()))
    assert expected.std() > 0, "a constant output would prove nothing"
    code = compiled.library.stat().st_size - compiled.program.weights.nbytes
    assert code <= 2**20, f"the library has {code} bytes besides its weights"
    library = compiled.library.read_bytes()
    assert all(function.encode() in library for function in PUBLIC_FUNCTIONS)
    compiled.library.unlink()  # hundreds of megabytes, of which pytest keeps three runs
    compiled.path.unlink()
