"""Candidates on this machine: each library in a process of its own, on as many cores as it has threads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nncc.errors import UsageError
from nncc.host import host
from nncc.tuning.in_processes import InProcesses
from nncc.tuning.runners import Order

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["LocalRunner"]


class LocalRunner(InProcesses):
    """Measures one library at a time. UsageError where this machine cannot run `target`."""

    name = "local"
    stores_times = True
    exact = False
    slots = 1

    def __init__(self, target: Target) -> None:
        self._host = host()
        missing = self._host.missing(target)
        if missing is None or missing:
            there = f"is for {target.link.system} on {target.link.machine}"
            if missing:
                there = f"needs {', '.join(missing)}, which this processor lacks"
            raise UsageError(
                f"runner `local`: target `{target.name}` {there}",
                "measure on the device, with rpc://HOST:PORT/KEY; or try the flow without times, with qemu",
            )
        super().__init__()

    def measure(self, order: Order) -> np.ndarray:
        """The seconds of each call in each timed round: float64[rounds, calls]."""
        words = {"task": "rounds", "threads": order.threads, "seed": order.seed, "warmup": order.warmup}
        words |= {"rounds": order.rounds, "seconds": order.seconds}
        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            found = self.work(order.library, words | {"folder": folder}, order.timeout)
            return np.fromfile(Path(folder) / "seconds").reshape(found["shape"])

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface."""
        return self.outputs(library, {"threads": threads}, inputs, timeout)

    def processor(self) -> str:
        """What this machine says it is."""
        return self._host.processor
