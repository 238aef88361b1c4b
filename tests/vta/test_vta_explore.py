"""`nncc vta explore`: cycles of a model on machines of other sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from compiled import Net

from nncc.cli import cli
from nncc.errors import UsageError
from nncc.vta.explore import Candidate, candidates_text, explore, pareto


def convolution(folder: Path) -> Path:
    """A quantized 3x3 convolution of 64 channels."""
    net = Net()
    scale, zero = net.constant(0.05, np.float32), net.constant(0, np.int8)
    weights = net.constant(net.random.integers(-127, 128, (64, 64, 3, 3)), np.int8)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.input(1, 64, 12, 12), scale, zero), scale, zero)
    y = net.op("Conv", x, net.op("DequantizeLinear", weights, net.constant(0.001, np.float32), zero), pads=[1, 1, 1, 1])
    net.output(net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero))
    return net.save(folder / "net.onnx")


def candidate(words: str, multipliers: int, seconds: float, **more: object) -> Candidate:
    return Candidate(words, multipliers, 464, 8, int(seconds * 1e8), seconds, 1, **more)  # type: ignore[arg-type]


def test_larger_machines_take_fewer_cycles_and_what_cannot_be_is_said(tmp_path: Path) -> None:
    found = explore(convolution(tmp_path), "vta", {"block": (16, 32, 12)}, memory="ideal")
    small, large, odd = found
    least = 12 * 12 * 9 * 64 * 64
    assert (small.macs, large.macs) == (least, least)
    assert small.cycles > large.cycles > least // 1024
    assert small.use > large.use > 0.5
    assert (small.multipliers, large.multipliers, small.bus_bytes) == (256, 1024, 8)
    assert "block" in odd.refused and not odd.cycles


def test_no_other_is_as_small_and_as_fast() -> None:
    cheap, dear, beaten = candidate("a", 256, 2e-3), candidate("b", 1024, 1e-3), candidate("c", 1024, 3e-3)
    assert pareto([cheap, dear, beaten, candidate("d", 1, 0.0, refused="no")]) == {"a", "b"}


def test_the_table_says_beside_which_memory() -> None:
    refused = candidate("block=12", 0, 0.0, refused="it cannot be")
    assert candidates_text([candidate("block=16", 256, 2e-3), refused], "pynq") == (
        "   machine   multipliers  KiB  bus   cycles     time  of the peak\n"
        "*  block=16          256  464    8  200,000  2.00 ms        0.0 %\n"
        "cycles of one inference, memory pynq; * no other is as small and as fast\n"
        "block=12: it cannot be\n"
    )


def test_a_target_without_an_accelerator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        explore(tmp_path / "net.onnx", "rpi4", {"block": (16,)})
    assert caught.value.message == "`rpi4` has no accelerator to explore"
    assert caught.value.hint == "`--target vta`, or a TOML file with [accelerator]"


def test_the_command_in_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["vta", "explore", str(convolution(tmp_path)), "--bus", "8", "--json"])
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)
    assert found["words"] == "bus_bytes=8" and found["cycles"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "there is nothing to explore"), (["--block", "a"], "`--block a` is no list of numbers")],
)
def test_words_that_are_off(words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["vta", "explore", "m.onnx", *words])
    assert result.exit_code == 2
    assert f"error: {message}\n" in result.stderr
