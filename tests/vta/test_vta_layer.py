"""Layers are the same after they were text, and text that is none is refused; loops give the machine's order."""

from __future__ import annotations

import json
from dataclasses import replace

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


WINDOW = Layer("max_pool", (2, 7, 6), (2, 4, 3), (3, 3), (2, 2), (1, 1, 1, 0))


@pytest.mark.parametrize(
    ("layer", "changes", "reason"),
    [
        (WINDOW, {"input": (2, 0, 6)}, "input = (2, 0, 6) has less than 1"),
        (WINDOW, {"stride": (2, -1)}, "stride = (2, -1) has less than 1"),
        (WINDOW, {"padding": (1, 1, 1, -1)}, "padding = (1, 1, 1, -1) has less than 0"),
        (WINDOW, {"pad_value": -129}, "pad_value = -129 is not between -128 and 127"),
        (WINDOW, {"output": (2, 5, 3)}, "its windows see 11 rows, and with its padding it has 9"),
        (WINDOW, {"dilation": (1, 2)}, "its windows see 9 columns, and with its padding it has 7"),
        (WINDOW, {"output": (3, 4, 3)}, "it keeps to its channels, and has others behind it"),
        (WINDOW, {"zero": 3}, "a max_pool knows no zero, which is 3"),
        (WINDOW, {"relu": True}, "a max_pool knows no relu, which is True"),
        (WINDOW, {"kind": "depthwise", "shift": 2}, "a depthwise knows no shift, which is 2"),
        (WINDOW, {"kind": "conv2d", "shift": 32}, "shift = 32 is not between 0 and 31"),
        (Layer("add", (1, 2, 3), (1, 2, 3)), {"stride": (2, 2)}, "an add knows no stride, which is (2, 2)"),
        (Layer("add", (1, 2, 3), (1, 2, 3)), {"output": (1, 2, 2)}, "the sum of two tensors has their size"),
    ],
)
def test_a_layer_that_contradicts_itself_is_none(layer, changes, reason):
    text = json.dumps(json.loads(layer.to_json()) | changes, separators=(",", ":"))
    for make in (lambda: replace(layer, **changes), lambda: Layer.from_json(text)):
        with pytest.raises(InternalError) as caught:
            make()
        assert caught.value.message == f"accelerator: {text} is no layer: {reason}"


def test_loops_run_micro_operations_innermost():
    loops = Gemm(np.array([[0, 1, 2], [5, 6, 7]]), (2, 2), dst=(100, 10), src=(200, 20), wgt=(1, 0))
    assert loops.indices().tolist() == [
        [0, 1, 2], [5, 6, 7], [10, 21, 2], [15, 26, 7], [100, 201, 3], [105, 206, 8], [110, 221, 3], [115, 226, 8],
    ]  # fmt: skip
