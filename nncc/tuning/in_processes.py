"""Libraries that are run on this machine, each order in a process of its own: what such runners have in common."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.tuning.runners import CandidateError
from nncc.tuning.warm import WarmWorker
from nncc.worker import work

__all__ = ["InProcesses"]


class InProcesses:
    """Gives orders of ``nncc.worker`` to processes, which are forked from a warm one where the system can."""

    def __init__(self) -> None:
        self._warm = WarmWorker() if sys.platform == "linux" else None

    def work(self, library: Path, order: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to an order. CandidateError where the library fails."""
        if self._warm:
            return self._warm.work(library, order, timeout)
        try:
            return work(library, order, timeout)
        except RunError as error:
            raise CandidateError.of(library, error.message) from error

    def outputs(
        self, library: Path, words: Mapping[str, Any], inputs: Sequence[np.ndarray], timeout: float
    ) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface; `words` say how."""
        from nncc.runtime.loader import TensorInfo

        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            for number, array in enumerate(inputs):
                np.ascontiguousarray(array).tofile(Path(folder) / f"in{number}")
            found = self.work(library, {"task": "run", "folder": folder, **words}, timeout)
            outputs = [TensorInfo("", dtype, tuple(shape), nbytes) for dtype, shape, nbytes in found["outputs"]]
            return [
                np.fromfile(Path(folder) / f"out{number}", tensor.numpy_dtype).reshape(tensor.shape)
                for number, tensor in enumerate(outputs)
            ]

    def close(self) -> None:
        """End the warm process."""
        if self._warm:
            self._warm.close()
