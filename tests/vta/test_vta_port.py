"""What rows are said to take between DRAM and the chip is what a LOAD of them takes on the simulator."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from vta_programs import program, ran

from nncc.vta.machine import MEMORIES, Machine
from nncc.vta.port import port_of

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
MACHINE = Machine(bus_bytes=16)
ROWS = [(1, 100, 100), (20, 4, 100), (20, 8, 8), (12, 7, 56), (6, 17, 40), (3, 56, 112)]
"""Rows, elements of one, and from one to the next."""


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("rows", "row", "stride"), ROWS)
def test_a_load_takes_its_issue_the_latency_and_its_bursts(memory: str, rows: int, row: int, stride: int) -> None:
    machine = replace(MACHINE, memory=memory)
    load = {"memory": 2, "x_size": row, "y_size": rows, "x_stride": stride, "push_next": 1}
    words = program(machine, ("load", load), ("finish", {"pop_prev": 1}))
    inp = np.zeros((rows * stride + 256, 16), np.int8)
    _, counters = ran(MACHINE, words, options=f"memory={memory}", inp=inp)
    said = float(port_of(machine, "inp").cycles(rows, row * 16, stride > row))
    found = counters["load_busy"] - machine.issue_cycles - MEMORIES[memory].latency
    # Fetching FINISH takes the port for a request; pages of 4096 bytes cut some bursts in two.
    assert said == pytest.approx(found, rel=0.06, abs=4)


def test_a_bus_is_no_wider_than_its_dram_and_its_elements() -> None:
    assert port_of(Machine(memory="ultra96"), "inp").bytes_per_cycle == 8
    assert port_of(Machine(bus_bytes=32, memory="ultra96"), "wgt").bytes_per_cycle == 16
    assert port_of(Machine(bus_bytes=32, memory="ideal"), "inp").bytes_per_cycle == 16
    assert port_of(Machine(bus_bytes=32, memory="ideal"), "out").bytes_per_cycle == 32


def test_rows_of_many_plans_at_once_are_those_of_each() -> None:
    port = port_of(replace(MACHINE, memory="ultra96"), "inp")
    rows, nbytes, apart = np.array([30, 30, 9]), np.array([64, 64, 700]), np.array([True, False, True])
    each = [float(port.cycles(*one)) for one in zip(rows.tolist(), nbytes.tolist(), apart.tolist(), strict=True)]
    assert port.cycles(rows, nbytes, apart).tolist() == each
    assert each[0] > each[1], "short rows take longer than one of the same bytes"
