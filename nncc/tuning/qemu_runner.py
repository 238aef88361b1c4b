"""Candidates of another machine under its emulator: to try the flow of tuning, without times that say anything."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nncc.emulation import build_runner, emulate, emulator
from nncc.errors import RunError, UsageError
from nncc.tuning.runners import CandidateError, Order

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["QemuRunner"]

MOST_ROUNDS = 3
"""Timed rounds: more would only take longer."""


class QemuRunner:
    """Runs libraries by the generic runner under the target's emulator.

    UsageError for a target of this very machine; TargetError and ToolError as `nncc.emulation`.
    """

    stores_times = False
    exact = False
    slots = 1

    def __init__(self, target: Target) -> None:
        self._target = target
        self._emulator = tuple(emulator(target))
        if not self._emulator:
            raise UsageError(f"runner `qemu`: target `{target.name}` is this very machine", "use the runner `local`")
        self.name = Path(self._emulator[0]).name
        build_runner(target)

    def measure(self, order: Order) -> np.ndarray:
        """float64[rounds, calls] of the emulator's mean times, the same in each of at most three rounds."""
        rounds = min(order.rounds, MOST_ROUNDS)
        words = ["--threads", str(order.threads), "--seed", str(order.seed), "--warmup", str(order.warmup)]
        words += ["--repeat", "1", "--profile", "--json"]
        calls = json.loads(self._emulate(order.library, words, order.timeout))["calls"]
        return np.tile([max(call["mean_us"], 1e-3) * 1e-6 for call in calls], (rounds, 1))

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface."""
        from nncc.runtime.loader import TensorInfo

        end = time.monotonic() + timeout
        about = json.loads(self._emulate(library, ["--describe"], timeout))
        words = ["--threads", str(threads), "--warmup", "0", "--repeat", "1", "--json"]
        with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
            for number, (array, tensor) in enumerate(zip(inputs, about["inputs"], strict=True)):
                np.ascontiguousarray(array).tofile(Path(scratch) / f"in{number}")
                words += ["--input", f"{tensor['name']}={scratch}/in{number}"]
            for number, tensor in enumerate(about["outputs"]):
                words += ["--output", f"{tensor['name']}={scratch}/out{number}"]
            self._emulate(library, words, max(0.1, end - time.monotonic()))
            outputs = [TensorInfo(t["name"], t["dtype"], tuple(t["shape"]), t["nbytes"]) for t in about["outputs"]]
            return [
                np.fromfile(Path(scratch) / f"out{number}", tensor.numpy_dtype).reshape(tensor.shape)
                for number, tensor in enumerate(outputs)
            ]

    def processor(self) -> str:
        """Empty: an emulator is no processor."""
        return ""

    def close(self) -> None:
        """Nothing is left running."""

    def _emulate(self, library: Path, words: Sequence[str], timeout: float) -> str:
        try:
            return emulate(library, self._target, self._emulator, words, timeout)
        except RunError as error:
            raise CandidateError.of(library, error.message) from error
