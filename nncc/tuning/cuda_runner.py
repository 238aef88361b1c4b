"""Candidates on a GPU of this machine: each library in a process of its own, its calls timed by events of the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import RunError
from nncc.host import Gpu
from nncc.tuning.gpu_probe import check_gpu
from nncc.tuning.local_runner import LocalRunner

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["CudaRunner"]


class CudaRunner(LocalRunner):
    """Measures one library at a time.

    UsageError where this machine is no host for `target`, RunError where no driver finds a GPU, TargetError where that
    is of another compute capability.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        try:
            found = self.work(Path("libcuda.so.1"), {"task": "gpu"}, _SECONDS)
            if "problem" in found:
                raise RunError(
                    f"runner `local`: no GPU for target `{target.name}`: {found['problem']}",
                    "measure on a machine that has one, with `--runner rpc://HOST:PORT/KEY`",
                )
            gpu = Gpu(**found)
            check_gpu("local", gpu, target)
        except BaseException:
            self.close()
            raise
        self._name = gpu.name

    def processor(self) -> str:
        """What the driver calls the GPU."""
        return self._name


_SECONDS = 60.0
"""That the driver may take to start."""
