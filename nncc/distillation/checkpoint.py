"""Training that was interrupted goes on: all of its state in one file, written whole after each evaluation."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nncc.distillation.settings import Settings
from nncc.errors import DataError, UsageError
from nncc.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nncc.distillation.batches import Feeds

__all__ = ["State", "fingerprint", "load", "save"]

_HASHED = 64
"""Samples that a checkpoint is bound to, beside their number."""
_FREE = {"time_budget", "patience", "threads"}
"""Settings that may differ when training goes on."""


@dataclass(frozen=True)
class State:
    """Where training is after an evaluation."""

    epochs: int
    """That are done."""
    steps: int
    seconds: float
    """Spent on training, interruptions aside."""
    numbers: list[Tensor]
    """The weights, in the network's order."""
    average: list[Tensor]
    """Of the weights over the last steps."""
    optimizer: dict[str, Any]
    best: list[Tensor]
    best_loss: float
    first_loss: float
    """On the held-out samples, before training."""
    stale: int
    """Evaluations since the best one."""


def fingerprint(student: bytes, teacher: bytes, samples: Sequence[Feeds], settings: Settings) -> str:
    """What must be the same for training to go on: models, samples (their number, and 64 of them at most), and settings
    that decide the course."""
    fixed = {name: value for name, value in asdict(settings).items() if name not in _FREE}
    models = [hashlib.sha256(model).hexdigest() for model in (student, teacher)]
    data = hashlib.sha256()
    for at in range(0, len(samples), -(-len(samples) // _HASHED)):
        for name, array in sorted(samples[at].items()):
            data.update(f"{name} {array.dtype} {array.shape}".encode())
            data.update(array.tobytes())
    told = models, len(samples), data.hexdigest(), sorted(fixed.items())
    return hashlib.sha256(repr(told).encode()).hexdigest()


def save(path: Path, state: State, mark: str) -> None:
    """Write the state, with the `fingerprint` that belongs to it. Raises OutputError."""
    facts = {name: getattr(state, name) for name in _KINDS}
    made = io.BytesIO()  # torch has no OSError of its own for a file that cannot be written
    torch.save({"nncc.distill": 1, "mark": mark, **facts}, made)
    write_whole(path, lambda file: file.write_bytes(made.getbuffer()), "the checkpoint ")


def load(path: Path, mark: str) -> State:
    """The state in a file; only tensors and numbers are read, never code.

    Raises DataError where it is none, UsageError where it belongs to another training.
    """
    try:
        with warnings.catch_warnings():  # of what a damaged file seems to be
            warnings.simplefilter("ignore")
            facts = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"the checkpoint `{path}` cannot be read: {error.strerror or error}", _HINT) from error
    except _DAMAGED as error:
        raise DataError(f"`{path}` is no checkpoint of `nncc distill`", _HINT) from error
    kinds = {"mark": str, **_KINDS}
    if (
        not isinstance(facts, dict)
        or facts.get("nncc.distill") != 1
        or not all(isinstance(facts.get(name), kind) for name, kind in kinds.items())
    ):
        raise DataError(f"`{path}` is no checkpoint of `nncc distill`", _HINT)
    if facts["mark"] != mark:
        raise UsageError(
            f"the checkpoint `{path}` is of another training: student, teacher, data or settings differ", _HINT
        )
    return State(**{name: facts[name] for name in _KINDS})


_KINDS = {
    "epochs": int, "steps": int, "seconds": float, "numbers": list, "average": list, "optimizer": dict, "best": list,
    "best_loss": float, "first_loss": float, "stale": int,
}  # fmt: skip
"""The fields of a `State`."""
_DAMAGED = (
    pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What torch raises on files that are none of its own, or damaged."""
_HINT = "without `--resume` training starts from the beginning, and the checkpoint is replaced"
