"""Convolutions of three axes run as those of two, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compiled import ROUNDING, Net, agrees


def net(channels: int, out: int, kernel: tuple[int, int, int], **attributes: Any) -> Net:
    made = Net()
    made.output(made.op("Relu", made.conv(made.input(2, channels, 7, 9, 8), channels, out, kernel, **attributes)))
    return made


@pytest.mark.parametrize(
    "made",
    [
        net(3, 20, (3, 3, 3), pads=[1] * 6),
        net(8, 12, (3, 2, 1), strides=[2, 1, 2], dilations=[2, 1, 1], pads=[2, 0, 1, 1, 1, 0], group=2),
        net(6, 6, (2, 3, 3), pads=[0, 1, 1, 0, 1, 1], group=6),
        net(5, 7, (1, 1, 1)),
    ],
    ids=["padded", "strides-dilations-groups", "depthwise", "point"],
)
def test_every_depth_of_the_window_becomes_channels(made: Net, tmp_path: Path) -> None:
    compiled = agrees(made, tmp_path, tolerance=ROUNDING)
    text = compiled.kernels.module.script()
    assert "conv3d" not in text and "conv2d" in text


def test_a_window_over_most_of_a_long_axis_is_left_alone(tmp_path: Path) -> None:
    made = Net()
    made.output(made.conv(made.input(1, 1, 80, 1, 1), 1, 1, (40, 1, 1)))
    compiled = agrees(made, tmp_path, tolerance=ROUNDING)
    assert "conv3d" in compiled.kernels.module.script()
