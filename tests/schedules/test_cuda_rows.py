"""Softmax, layer normalization and attention for GPUs agree with ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import ROUNDING, Net
from emulated import Emulated, emulate, needs_compiler

pytestmark = needs_compiler

ROWS: dict[str, tuple[int, ...]] = {
    "one element": (5, 1),
    "fewer than a warp": (3, 7),
    "no vectors": (2, 3, 197),
    "whole vectors": (10, 384),
    "a class each": (1, 1000),
    "a long row": (2, 5000),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net, names = Net(), {}
    for case, shape in ROWS.items():
        names[f"softmax of {case}"] = net.op("Softmax", net.input(*shape), axis=-1)
        scale, bias = net.weight(shape[-1], scale=1.0), net.weight(shape[-1])
        names[f"normalization of {case}"] = net.op("LayerNormalization", net.input(*shape), scale, bias, axis=-1)
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize("case", [f"{kind} of {case}" for kind in ("softmax", "normalization") for case in ROWS])
def test_rows_for_a_gpu_agree(case: str, rows: tuple[dict[str, str], Emulated]) -> None:
    names, emulated = rows
    assert emulated.error(names[case]) <= ROUNDING


def test_a_row_with_an_infinite_element_is_no_nan_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Masks are -inf: a softmax must give 0 there."""
    net = Net()
    x = net.input(2, 9, name="x")
    net.output(net.op("Softmax", x, axis=-1))
    values = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    values[:, 3:] = -np.inf
    assert emulate(net, tmp_path_factory.mktemp("masked"), x=values).error(net.outputs[0]) <= ROUNDING


ATTENTION: dict[str, tuple[tuple[int, ...], int, int, bool]] = {
    "a short sequence": ((1, 2, 5, 8), 5, 8, False),
    "a sequence of 57": ((1, 3, 57, 64), 57, 64, False),
    "a mask": ((2, 2, 33, 32), 33, 32, True),
    "other keys than queries, odd widths": ((1, 2, 7, 6), 70, 10, False),
    "more keys than scores fit": ((1, 1, 3, 8), 1600, 8, True),
}


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net, names = Net(), {}
    for case, (shape, length, width, masked) in ATTENTION.items():
        *batch, _, depth = shape
        q, k, v = net.input(*shape), net.input(*batch, length, depth), net.input(*batch, length, width)
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = net.op("Mul", scores, net.constant(depth**-0.5, np.float32))
        if masked:
            scores = net.op("Add", scores, net.input(batch[0], 1, 1, length))
        names[case] = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("attention"))


@pytest.mark.parametrize("case", ATTENTION)
def test_attention_for_a_gpu_agrees(case: str, attention: tuple[dict[str, str], Emulated]) -> None:
    names, emulated = attention
    assert emulated.error(names[case]) <= ROUNDING


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_attention_writes_its_result_with_the_queries_first_where_that_is_read(precision, tmp_path) -> None:
    """And a product reads it: no kernel only moves it."""
    net = Net()
    q, k, v = (net.input(1, 3, 21, 16) for _ in range(3))
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    rows = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    net.output(net.op("MatMul", net.op("Reshape", rows, net.ints(1, 21, 48)), net.weight(48, 24)))
    emulated = emulate(net, tmp_path, precision=precision)
    words = [emulated.program.schedules[call.kernel].split()[0] for call in emulated.program.calls if call.kernel]
    assert words == ["cuda_attention", "cuda_matmul" if precision == "float32" else "cuda_unit_matmul"]
    assert emulated.error(net.outputs[0]) <= (ROUNDING if precision == "float32" else 2e-3)


def test_scores_are_not_in_memory(attention: tuple[dict[str, str], Emulated]) -> None:
    _, emulated = attention
    assert len(emulated.program.calls) == len(ATTENTION)
    schedules = [emulated.kernels.schedules[call.kernel] for call in emulated.program.calls]
    assert all(schedule.startswith("cuda_attention") for schedule in schedules)


def test_all_keys_at_once_where_their_scores_fit(attention: tuple[dict[str, str], Emulated]) -> None:
    _, emulated = attention
    words = sorted(emulated.program.schedules.values())
    assert sum("scores whole" in word for word in words) == len(ATTENTION) - 1
    assert sum("32 keys a step" in word for word in words) == 1
