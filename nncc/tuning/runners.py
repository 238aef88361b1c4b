"""How the candidates of tuning are run and timed: on this machine, on boards through TVM's RPC, under an emulator.

A candidate library is an ordinary nncc library whose calls are many candidate kernels, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nncc.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from nncc.target import Target

__all__ = ["RUNNERS", "CandidateError", "Order", "Runner", "open_runner"]


class CandidateError(RunError):
    """This library crashed, hung or failed. It is its own fault: tuning goes on with the next one."""

    @classmethod
    def of(cls, library: Path, words: str) -> CandidateError:
        """`words` about `library`, which they then name."""
        return cls(words if str(library) in words else f"{library}: {words}")


@dataclass(frozen=True)
class Order:
    """A library to measure, and how."""

    library: Path
    threads: int
    seed: int = 0
    """Of the inputs, which are made where it runs: float32 standard normal, all else zeros."""
    warmup: int = 1
    """Untimed rounds. A round is one call of each candidate."""
    rounds: int = 20
    """Timed rounds, at most."""
    seconds: float = 2.0
    """No round is begun after so much time, but for the first three."""
    timeout: float = 30.0
    """What takes longer than this, loading included, hangs: it is killed."""


class Runner(Protocol):
    """Where candidates run.

    Its methods may be called from several threads. They raise CandidateError where the library is to blame, and any
    other error where the device is, which ends the tuning.
    """

    @property
    def name(self) -> str:
        """As ``open_runner`` was given it."""

    @property
    def stores_times(self) -> bool:
        """False where times say nothing about the target, and must never be recorded."""

    @property
    def slots(self) -> int:
        """Devices that measure at once."""

    def measure(self, order: Order) -> np.ndarray:
        """The seconds of each call in each timed round: float64[rounds, calls]."""

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface."""

    def processor(self) -> str:
        """What the device says it is; empty where it does not tell."""

    def close(self) -> None:
        """End what was started; twice is once."""


def open_runner(text: str, target: Target) -> Runner:
    """The runner that `text` names: ``local``, ``sim``, ``qemu`` or ``rpc://HOST:PORT/KEY``.

    Raises UsageError where there is no such runner or it does not fit `target`; TargetError and ToolError where the
    emulator is missing; RunError where no device can be reached.
    """
    kind, separator, _ = text.partition("://")
    if kind not in RUNNERS or bool(separator) != (kind == "rpc"):
        hint = did_you_mean(text, ("local", "sim", "qemu")) if not separator and text != "rpc" else ""
        raise UsageError(f"there is no runner `{text}`", hint or "known: local, sim, qemu, rpc://HOST:PORT/KEY")
    return RUNNERS[kind](text, target)


def _local(text: str, target: Target) -> Runner:
    if target.hardware.drives_accelerator:  # of which this machine has a simulated one
        return _sim(text, target)
    if target.hardware.multiprocessors:
        from nncc.tuning.cuda_runner import CudaRunner

        return CudaRunner(target)
    from nncc.tuning.local_runner import LocalRunner

    return LocalRunner(target)


def _sim(text: str, target: Target) -> Runner:
    from nncc.tuning.sim_runner import SimRunner

    return SimRunner(target)


def _qemu(text: str, target: Target) -> Runner:
    from nncc.tuning.qemu_runner import QemuRunner

    return QemuRunner(target)


def _rpc(text: str, target: Target) -> Runner:
    from nncc.tuning.rpc_runner import RpcRunner

    return RpcRunner(text, target)


RUNNERS: dict[str, Callable[[str, Target], Runner]] = {
    "local": _local,
    "qemu": _qemu,
    "rpc": _rpc,
    "sim": _sim,
}
"""Each by the first word of its name."""
