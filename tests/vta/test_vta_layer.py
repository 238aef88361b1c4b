"""Layers are the same after they were text, and text that is none is refused; loops give the machine's order."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.errors import InternalError
from nncc.vta.layer import Layer
from nncc.vta.stream import Gemm


def test_a_layer_comes_back():
    layer = Layer("conv2d", (4, 14, 14), (8, 7, 7), (3, 3), (2, 2), (1, 1, 0, 0), zero=-3, relu=True, residual="first")
    assert Layer.from_json(layer.to_json()) == layer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "it has other fields"),
        ('{"kind": "add"}', "it has other fields"),
        (Layer("add", (1, 2, 3), (1, 2, 3)).to_json().replace("[1,2,3]", "[1,2]", 1), "input = [1, 2]"),
        (Layer("add", (1, 2, 3), (1, 2, 3)).to_json().replace('"add"', '"sub"'), "kind = 'sub'"),
        (Layer("add", (1, 2, 3), (1, 2, 3)).to_json().replace("false", "0"), "relu = 0"),
    ],
)
def test_other_text_is_no_layer(text, reason):
    with pytest.raises(InternalError) as caught:
        Layer.from_json(text)
    assert caught.value.message == f"accelerator: `{text}` is no layer: {reason}"


def test_loops_run_micro_operations_innermost():
    loops = Gemm(np.array([[0, 1, 2], [5, 6, 7]]), (2, 2), dst=(100, 10), src=(200, 20), wgt=(1, 0))
    assert loops.indices().tolist() == [
        [0, 1, 2], [5, 6, 7], [10, 21, 2], [15, 26, 7], [100, 201, 3], [105, 206, 8], [110, 221, 3], [115, 226, 8],
    ]  # fmt: skip
