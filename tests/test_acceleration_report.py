"""What the report says of an accelerator."""

from __future__ import annotations

from nncc.ir import Acceleration, Fallback
from nncc.reports.acceleration import acceleration_facts, acceleration_text


def test_layers_on_the_host_are_listed_with_their_reasons():
    found = Acceleration(
        3, 900, 100, (Fallback("conv2d 1x3*3x3", "its batch is 2", 2), Fallback("matmul 2*2", "no", 1))
    )
    assert acceleration_text(found) == (
        "\naccelerator 3 layers, 90 % of the multiply-adds on integers\n"
        "3 layers of integers on the host\n"
        "  2 times conv2d 1x3*3x3\n    its batch is 2\n"
        "  matmul 2*2\n    no\n"
    )
    assert acceleration_facts(found) == {
        "layers": 3,
        "macs": 900,
        "host_macs": 100,
        "host_layers": [
            {"layer": "conv2d 1x3*3x3", "reason": "its batch is 2", "count": 2},
            {"layer": "matmul 2*2", "reason": "no", "count": 1},
        ],
    }


def test_nothing_is_said_without_an_accelerator_and_something_where_it_has_nothing_to_do():
    assert acceleration_text(None) == ""
    assert acceleration_facts(None) is None
    assert (
        acceleration_text(Acceleration(0, 0, 0))
        == "\naccelerator  nothing: no convolution or matrix product is on integers\n"
    )
