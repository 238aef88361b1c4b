"""Candidates on a simulated accelerator: the same cycles each time, as seconds at its clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nncc.errors import UsageError
from nncc.tuning.in_processes import InProcesses
from nncc.tuning.runners import Order

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["SimRunner"]


class SimRunner(InProcesses):
    """Counts the cycles of one library at a time; calls of the host take no time.

    UsageError for a target without an accelerator, ToolError where the simulator cannot be compiled.
    """

    name = "sim"
    stores_times = True
    exact = True
    slots = 1

    def __init__(self, target: Target) -> None:
        from nncc.vta.simulator import build_simulator

        if target.hardware.accelerator is None or not target.hardware.drives_accelerator:
            raise UsageError(f"runner `sim`: target `{target.name}` has no accelerator", "use the runner `local`")
        self._driver = build_simulator(target.hardware.accelerator)
        super().__init__()

    def measure(self, order: Order) -> np.ndarray:
        """The seconds of each call by the accelerator's clock: float64[1, calls], 0 for those of the host."""
        words = {"task": "cycles", "threads": order.threads, "device": f"{self._driver}:sim:arithmetic=off"}
        found = self.work(order.library, words, order.timeout)
        return np.array([found["seconds"]], np.float64)

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface; CandidateError too where
        they depend on an order that no token settles."""
        words = {"threads": threads, "device": f"{self._driver}:sim:check=on"}
        return self.outputs(library, words, inputs, timeout)

    def processor(self) -> str:
        """One word for all: their times are those of the machine that is simulated, which the key says."""
        return "simulator"
