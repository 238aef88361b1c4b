"""Networks of combined layers compute what ONNX Runtime computes, in float32 and in int8."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from networks import BLOCKS, HEADS, differences, network, quantized_differences

from nncc.verify import reference


def test_a_seed_is_one_network(tmp_path: Path) -> None:
    assert network(3).model() == network(3).model()
    assert network(3).model() != network(4).model()


def test_every_network_is_valid_and_finite(tmp_path: Path) -> None:
    """Forty seeds have every block and head, judged by their operators."""
    operators: Counter[str] = Counter()
    for seed in range(0, 200, 5):
        path = network(seed).save(tmp_path / "net.onnx")
        model = onnx.load(path)
        onnx.checker.check_model(model)
        operators.update(node.op_type for node in model.graph.node)
        [image] = model.graph.input
        shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
        inputs = {image.name: np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)}
        assert all(np.isfinite(array).all() for array in reference(path, inputs).values())
    telling = (
        "ConvTranspose",
        "DepthToSpace",
        "Erf",
        "GRU",
        "GlobalMaxPool",
        "LSTM",
        "Resize",
        "SpaceToDepth",
        "Split",
    )
    assert [operator for operator in telling if not operators[operator]] == []
    assert len(BLOCKS) > 10 and len(HEADS) == 4


@pytest.mark.parametrize("seed", [12, 1008])
def test_a_network_computes_what_onnx_runtime_does(tmp_path: Path, seed: int) -> None:
    assert differences(network(seed), tmp_path, threads=2) == []


def test_a_network_of_integers_is_near_that_of_onnx_runtime(tmp_path: Path) -> None:
    assert quantized_differences(network(1017), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["native", "x86-64-v3", "int8"])
def test_a_hundred_networks_compute_what_onnx_runtime_does(tmp_path: Path, target: str) -> None:
    wrong = {}
    for seed in range(100, 200):
        folder = tmp_path / str(seed)
        found = (
            quantized_differences(network(seed), folder)
            if target == "int8"
            else differences(network(seed), folder, target)
        )
        if found:
            wrong[seed] = found
    assert wrong == {}
