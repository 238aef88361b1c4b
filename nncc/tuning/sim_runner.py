"""Candidates on a simulated accelerator: the same cycles each time, as seconds at its clock."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc.errors import RunError, UsageError
from nncc.tuning.runners import CandidateError, Order
from nncc.tuning.warm import WarmWorker
from nncc.worker import work

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["SimRunner"]

_ROUNDS = 3
"""All alike: others compare rounds."""


class SimRunner:
    """Counts the cycles of one library at a time; calls of the host take no time.

    UsageError for a target without an accelerator, ToolError where the simulator cannot be compiled.
    """

    name = "sim"
    stores_times = True
    slots = 1

    def __init__(self, target: Target) -> None:
        from nncc.vta.simulator import build_simulator

        if target.hardware.accelerator is None or not target.hardware.drives_accelerator:
            raise UsageError(f"runner `sim`: target `{target.name}` has no accelerator", "use the runner `local`")
        self._driver = build_simulator(target.hardware.accelerator)
        self._warm = WarmWorker() if sys.platform == "linux" else None

    def measure(self, order: Order) -> np.ndarray:
        """The seconds of each call by the accelerator's clock: float64[3, calls], 0 for those of the host."""
        words = {"task": "cycles", "threads": order.threads, "device": f"{self._driver}:sim:arithmetic=off"}
        found = self._work(order.library, words, order.timeout)
        return np.tile(np.array(found["seconds"], np.float64), (_ROUNDS, 1))

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface; CandidateError too where
        they depend on an order that no token settles."""
        from nncc.runtime.loader import TensorInfo

        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            for number, array in enumerate(inputs):
                np.ascontiguousarray(array).tofile(Path(folder) / f"in{number}")
            words = {"task": "run", "threads": threads, "folder": folder, "device": f"{self._driver}:sim:check=on"}
            found = self._work(library, words, timeout)
            outputs = [TensorInfo("", dtype, tuple(shape), nbytes) for dtype, shape, nbytes in found["outputs"]]
            return [
                np.fromfile(Path(folder) / f"out{number}", tensor.numpy_dtype).reshape(tensor.shape)
                for number, tensor in enumerate(outputs)
            ]

    def processor(self) -> str:
        """One word for all: their times are those of the machine that is simulated, which the key says."""
        return "simulator"

    def close(self) -> None:
        """End the process that simulates."""
        if self._warm:
            self._warm.close()

    def _work(self, library: Path, order: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        if self._warm:
            return self._warm.work(library, order, timeout)
        try:
            return work(library, order, timeout)
        except RunError as error:
            raise CandidateError.of(library, error.message) from error
