"""Attention over sequences of open length, in batches of open size: one kernel, as where both are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled import ROUNDING, Net

import nncc

HEADS, DEPTH = 3, 32


@pytest.fixture(scope="module")
def attention(tmp_path_factory) -> tuple[nncc.ir.Artifact, Path]:
    """softmax(q k / 5 + mask) v, of batches of 1 to 4 and 2 to 200 tokens."""
    net = Net()
    q, v = (net.input("N", HEADS, "S", DEPTH, name=name) for name in "qv")
    k, mask = net.input("N", HEADS, DEPTH, "S", name="k"), net.input("N", 1, 1, "S", name="mask")
    scores = net.op("Add", net.op("Mul", net.op("MatMul", q, k), net.constant(np.float32(0.2))), mask)
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), v))
    folder = tmp_path_factory.mktemp("attention")
    onnx.save(net.model(), folder / "attention.onnx")
    ranges = {"N": (1, 4), "S": (2, 200)}
    made = nncc.compile(folder / "attention.onnx", output=folder / "out", range=ranges, threads=2, verify=False)
    return made, folder / "attention.onnx"


def inputs_of(batch: int, tokens: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch * 1000 + tokens)
    shapes = {"q": (tokens, DEPTH), "v": (tokens, DEPTH), "k": (DEPTH, tokens)}
    found = {name: random.standard_normal((batch, HEADS, *shape), np.float32) for name, shape in shapes.items()}
    left_out = random.random((batch, 1, 1, tokens)) < 0.3
    return found | {"mask": np.where(left_out, np.float32(-1e9), np.float32(0))}


def test_every_corner_and_what_no_tile_divides_is_right(attention):
    """It rounds as attention of known length does."""
    made, model = attention
    session = onnxruntime.InferenceSession(str(model))
    with nncc.load(made.library, threads=2) as module:
        assert [(dim.name, dim.low, dim.high) for dim in module.dims] == [("N", 1, 4), ("S", 2, 200)]
        for batch in (1, 3, 4):
            for tokens in (2, 3, 11, 12, 13, 16, 31, 32, 33, 128, 199, 200):
                inputs = inputs_of(batch, tokens)
                (found,), (expected,) = module.run(inputs).values(), session.run(None, inputs)
                assert found.shape == expected.shape
                assert abs(found - expected).max() < ROUNDING * abs(expected).max(), (batch, tokens)


def test_scores_are_never_in_memory_whole(attention):
    made, _ = attention
    assert [way for way in made.description["schedules"].values() if way.startswith("attention tile")]
    scores = 4 * HEADS * 200 * 200 * 4
    assert made.description["arena_bytes"] < scores
