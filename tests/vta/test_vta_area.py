"""How large a machine is: what its parts add up to, and how it grows."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from nncc.errors import UsageError
from nncc.vta.area import Budget, area_of, budget_of
from nncc.vta.machine import Machine

STANDARD = Machine()


def test_a_machine_is_its_parts() -> None:
    area = area_of(STANDARD)
    assert area.total == pytest.approx(sum(astuple(area)))
    # 496 KiB with OUT, at 0.6 um2 a bit; 256 multipliers of a sixteenth of one of 32 bits, adders, registers.
    assert area.scratchpads == pytest.approx(496 * 8192 * 0.6e-6)
    assert area.products == pytest.approx(256 * (6350 / 16 + 0.75 * 278 + 16 * 5.98) * 1e-6)


def test_each_size_makes_its_own_part_larger() -> None:
    plain, wide = area_of(STANDARD), area_of(Machine(block=32))
    assert (wide.products, wide.lanes) == pytest.approx((4 * plain.products, 2 * plain.lanes))
    assert area_of(Machine(bus_bytes=16)).ports > plain.ports
    assert area_of(Machine(wgt_kib=128)).scratchpads == pytest.approx(plain.scratchpads * (496 - 128) / 496)


def test_requantization_in_floats_is_paid_for() -> None:
    stock = area_of(Machine("vta0"))
    assert stock.products == area_of(STANDARD).products
    assert stock.lanes < area_of(STANDARD).lanes / 4


@pytest.mark.parametrize(
    ("text", "budget"),
    [("3.5", Budget(3.5, False)), ("12mm2", Budget(12.0, False)), ("1.5x", Budget(1.5, True))],
)
def test_a_budget_is_an_area_or_a_multiple(text: str, budget: Budget) -> None:
    assert budget_of(text) == budget
    assert budget.mm2(STANDARD) == (1.5 * area_of(STANDARD).total if budget.relative else budget.number)


@pytest.mark.parametrize("text", ["", "0", "0.0x", "-1", "3 mm", "1e9", "x", "nan"])
def test_other_words_are_no_budget(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        budget_of(text)
    assert caught.value.message == f"`--budget {text}` is no area"
    assert caught.value.hint == "mm² of 40 nm silicon, as `3.5`, or times the target's own machine, as `1.5x`"
