"""In place of a GPU, where there is none and nothing is tuned: the least times of kernels by the target's facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nncc.tuning.runners import CandidateError, Order

__all__ = ["EstimatedRunner"]


class EstimatedRunner:
    """Runs nothing, and tells what the description beside a library for a GPU says of its kernels."""

    name = "estimated"
    stores_times = False
    slots = 1

    def measure(self, order: Order) -> np.ndarray:
        """The least seconds of each call: float64[1, calls], 0 for copies."""
        facts = json.loads(order.library.with_suffix(".json").read_text())
        kernels = facts["device"]["kernels"]
        least = [1e-6 * kernels[call]["least_us"] if call in kernels else 0.0 for call in facts["calls"]]
        return np.array([least])

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """CandidateError: there is nothing that could run it."""
        raise CandidateError.of(library, "there is no GPU here")

    def processor(self) -> str:
        """Empty: it is none."""
        return ""

    def close(self) -> None:
        """Nothing is left running."""
