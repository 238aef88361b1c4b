"""Where float32 is predicted to win, and where integers are."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantized_layers import QuantizedNet

from nncc.config import Config
from nncc.ir import Quantization
from nncc.pipeline import plan, run


def quantization(folder: Path, target: str, channels: int, size: int, kernel: int, group: int = 1) -> Quantization:
    """Of one convolution from `channels` to as many, of a square image of some `size`."""
    net = QuantizedNet()
    x = net.grid(net.input(1, channels, size, size))
    net.output(net.grid(net.conv(x, channels, channels, (kernel, kernel), pads=[kernel // 2] * 4, group=group)))
    net.save(folder / "net.onnx")
    config = Config(target=target, threads=1, until="specialize", verify=False)
    found = run(plan(folder / "net.onnx", config)).quantization
    assert found is not None
    return found


@pytest.mark.parametrize("target", ["x86-64-v4-vnni", "x86-64-v3-vnni", "x86-64-v3", "rpi5", "rpi4"])
@pytest.mark.parametrize(("channels", "size", "kernel", "group"), [(64, 28, 1, 1), (48, 28, 3, 48)])
def test_integers_win(tmp_path: Path, target: str, channels: int, size: int, kernel: int, group: int) -> None:
    """What mobile networks are made of."""
    found = quantization(tmp_path, target, channels, size, kernel, group)
    assert found.integer_macs == found.macs, found.float_layers


def test_winograd_wins_where_integers_are_but_twice_as_fast(tmp_path: Path) -> None:
    """A Cortex-A72 has no products of words; both predictions are in the reason."""
    (layer,) = quantization(tmp_path, "rpi4", 128, 28, 3).float_layers
    assert layer.text == "conv2d 1x128x28x28*128x128x3x3"
    words = layer.reason.split()
    assert words[0] == "predicted"
    assert words[2:8] == ["million", "vector", "operations", "on", "integers,", words[7]]
    assert words[8:] == ["in", "float32", "by", "Winograd's", "convolution"]
    assert float(words[1]) > 1.05 * float(words[7])


def test_small_groups_waste_words(tmp_path: Path) -> None:
    """Blocks of 16 channels, of which each output reads two."""
    found = quantization(tmp_path, "x86-64-v3", 64, 28, 3, group=32)
    assert found.integer_macs == 0 and len(found.float_layers) == 1


def test_processors_without_products_of_words_stay_in_float32(tmp_path: Path) -> None:
    found = quantization(tmp_path, "riscv64", 64, 28, 1)
    assert found.integer_macs == 0 and len(found.float_layers) == 1
