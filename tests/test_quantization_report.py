"""What `nncc compile` says of a quantized model."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from quantized_layers import QuantizedNet

from nncc.cli import cli
from nncc.ir import Fallback, Quantization
from nncc.reports.quantization import quantization_facts, quantization_text

MIXED = Quantization(
    966,
    1000,
    (Fallback("conv2d 1x3x8x8*4x3x1x1", "its input is int16", 1), Fallback("matmul 2x3*3x4", "no", 2)),
)


def test_nothing_is_said_where_nothing_is_quantized() -> None:
    assert quantization_text(None) == ""
    assert quantization_facts(None) is None


def test_all_layers_that_stay_are_named() -> None:
    assert quantization_text(MIXED) == (
        "\nintegers 97 % of the multiply-adds\n"
        "3 quantized layers in float32\n"
        "  conv2d 1x3x8x8*4x3x1x1\n"
        "    its input is int16\n"
        "  2 times matmul 2x3*3x4\n"
        "    no\n"
    )


def test_all_and_none_are_words() -> None:
    """Nearly all is not all."""
    texts = [quantization_text(Quantization(part, 1000)).strip() for part in (0, 1, 999, 1000)]
    shares = ["none", "1 %", "99 %", "all"]
    assert texts == [f"integers {share} of the multiply-adds" for share in shares]


def test_facts_for_json() -> None:
    assert quantization_facts(MIXED) == {
        "integer_macs": 966,
        "macs": 1000,
        "float_layers": [
            {"layer": "conv2d 1x3x8x8*4x3x1x1", "reason": "its input is int16", "count": 1},
            {"layer": "matmul 2x3*3x4", "reason": "no", "count": 2},
        ],
    }


def test_compile_tells(tmp_path: Path) -> None:
    net = QuantizedNet()
    net.output(net.conv(net.grid(net.input(1, 16, 8, 8)), 16, 8, (1, 1)))
    path = str(net.save(tmp_path / "net.onnx"))
    result = CliRunner().invoke(cli, ["compile", path, "--until", "schedule", "--no-verify"])
    assert result.exit_code == 0, result.output
    assert "\nintegers all of the multiply-adds\n" in result.output
