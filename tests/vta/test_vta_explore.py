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
from nncc.vta.area import Area, Budget, area_of
from nncc.vta.explore import Candidate, candidates_text, explore, pareto
from nncc.vta.machine import Machine


def convolution(folder: Path) -> Path:
    """A quantized 3x3 convolution of 64 channels."""
    net = Net()
    scale, zero = net.constant(0.05, np.float32), net.constant(0, np.int8)
    weights = net.constant(net.random.integers(-127, 128, (64, 64, 3, 3)), np.int8)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.input(1, 64, 12, 12), scale, zero), scale, zero)
    y = net.op("Conv", x, net.op("DequantizeLinear", weights, net.constant(0.001, np.float32), zero), pads=[1, 1, 1, 1])
    net.output(net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero))
    return net.save(folder / "net.onnx")


def candidate(words: str, mm2: float, seconds: float, **more: object) -> Candidate:
    area = Area(mm2, 0.0, 0.0, 0.0)
    return Candidate(words, area, 256, 464, 8, int(seconds * 1e8), seconds, 1, **more)  # type: ignore[arg-type]


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
    cheap, dear, beaten = candidate("a", 1.0, 2e-3), candidate("b", 4.0, 1e-3), candidate("c", 4.0, 3e-3)
    assert pareto([cheap, dear, beaten, candidate("d", 0.1, 0.0, refused="no")]) == {"a", "b"}
    assert pareto([cheap, candidate("e", 1.0, 2e-3)]) == {"a", "e"}


def test_the_table_says_beside_which_memory_and_of_what_the_area_is() -> None:
    refused = candidate("block=12", 0.0, 0.0, refused="it cannot be")
    assert candidates_text([candidate("block=16", 3.5, 2e-3), refused], "pynq") == (
        "   machine   multipliers  KiB  bus   mm²   cycles     time  of the peak\n"
        "*  block=16          256  464    8  3.50  200,000  2.00 ms        0.0 %\n"
        "cycles of one inference, memory pynq; mm² of 40 nm, estimated; * no other is as small and as fast\n"
        "block=12: it cannot be\n"
    )


def test_machines_over_the_budget_are_left_out(tmp_path: Path) -> None:
    own = area_of(Machine()).total
    small, large = explore(
        convolution(tmp_path), "vta", {"block": (16, 32)}, "ideal", budget=Budget(1.0, relative=True)
    )
    assert small.cycles and not small.refused
    assert large.refused == f"{area_of(Machine(block=32)).total:.2f} mm² are more than {own:.2f}" and not large.cycles
    with pytest.raises(UsageError) as caught:
        explore(tmp_path / "net.onnx", "vta", {"block": (16, 32)}, budget=Budget(0.5, relative=False))
    assert caught.value.message == f"no machine fits 0.50 mm²: the smallest of these takes {own:.2f} mm²"
    assert caught.value.hint == "let them be smaller, or the budget larger"


def test_a_target_without_an_accelerator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        explore(tmp_path / "net.onnx", "rpi4", {"block": (16,)})
    assert caught.value.message == "`rpi4` has no accelerator to explore"
    assert caught.value.hint == "`--target vta`, or a TOML file with [accelerator]"


def test_only_an_accelerator_has_a_simulator(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["vta", "simulator", "--target", "rpi4"])
    assert result.exit_code == 2
    assert "error: `rpi4` has no accelerator to simulate\n" in result.stderr
    result = CliRunner().invoke(cli, ["vta", "simulator", "-o", str(tmp_path / "no" / "sim.so")])
    assert result.exit_code != 0
    assert f"error: cannot write `{tmp_path / 'no' / 'sim.so'}`: No such file or directory\n" in result.stderr


def test_the_command_in_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["vta", "explore", str(convolution(tmp_path)), "--bus", "8", "--json"])
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)
    assert found["words"] == "bus_bytes=8" and found["cycles"] > 0 and found["pareto"]
    assert found["area_mm2"] == pytest.approx(sum(found["area"].values())) == pytest.approx(area_of(Machine()).total)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to explore"),
        (["--block", "a"], "`--block a` is no list of numbers"),
        (["--block", "16", "--budget", "small"], "`--budget small` is no area"),
    ],
)
def test_words_that_are_off(words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["vta", "explore", "m.onnx", *words])
    assert result.exit_code == 2
    assert f"error: {message}\n" in result.stderr
