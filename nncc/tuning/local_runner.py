"""Candidates on this machine: each library in a process of its own, on as many cores as it has threads."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc.errors import RunError, UsageError
from nncc.host import host
from nncc.tuning.runners import CandidateError, Order
from nncc.tuning.warm import WarmWorker
from nncc.worker import work

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["LocalRunner"]


class LocalRunner:
    """Measures one library at a time. UsageError where this machine cannot run `target`."""

    name = "local"
    stores_times = True
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
        self._warm = WarmWorker() if sys.platform == "linux" else None

    def measure(self, order: Order) -> np.ndarray:
        """The seconds of each call in each timed round: float64[rounds, calls]."""
        words = {"task": "rounds", "threads": order.threads, "seed": order.seed, "warmup": order.warmup}
        words |= {"rounds": order.rounds, "seconds": order.seconds}
        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            found = self._work(order.library, words | {"folder": folder}, order.timeout)
            return np.fromfile(Path(folder) / "seconds").reshape(found["shape"])

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface."""
        from nncc.runtime.loader import TensorInfo

        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            for number, array in enumerate(inputs):
                np.ascontiguousarray(array).tofile(Path(folder) / f"in{number}")
            found = self._work(library, {"task": "run", "threads": threads, "folder": folder}, timeout)
            outputs = [TensorInfo("", dtype, tuple(shape), nbytes) for dtype, shape, nbytes in found["outputs"]]
            return [
                np.fromfile(Path(folder) / f"out{number}", tensor.numpy_dtype).reshape(tensor.shape)
                for number, tensor in enumerate(outputs)
            ]

    def processor(self) -> str:
        """What this machine says it is."""
        return self._host.processor

    def close(self) -> None:
        """End the process that measures."""
        if self._warm:
            self._warm.close()

    def _work(self, library: Path, order: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        if self._warm:
            return self._warm.work(library, order, timeout)
        try:
            return work(library, order, timeout)
        except RunError as error:
            raise CandidateError.of(library, error.message) from error
