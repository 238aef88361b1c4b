"""What a model is worth: a command of the user's, a function, or agreement with the float model on held-out samples.

A metric is a function from the path of an ONNX file to a score, higher is better.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import ModelError, NnccError, ToolError, UsageError
from nncc.quant.session import Session, open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = [
    "AGREEMENTS",
    "Agreement",
    "Command",
    "MaxDrop",
    "Metric",
    "Noise",
    "agreement_of",
    "checked",
    "max_drop",
    "scored",
]

Metric = Callable[[Path], float]

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:nan|inf(?:inity)?|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?![\w])", re.IGNORECASE)


# ---- the user's -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command that prints a model's score: the last number on the last line of its stdout.

    ``{model}`` in its words stands for the model's path; where it does not occur, the path is the last word. No shell
    is involved. Raises ToolError with the command and its stderr where it fails, takes longer than `seconds` or prints
    no finite number.
    """

    text: str
    seconds: float = 3600.0
    """How long it may take."""

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.text)
        except ValueError as error:
            raise UsageError(f"`--metric {self.text}` is no command: {error}", _HINT) from error
        if not words:
            raise UsageError("`--metric` is empty", _HINT)

    def __call__(self, model: Path) -> float:
        words = shlex.split(self.text)
        if any("{model}" in word for word in words):
            words = [word.replace("{model}", str(model)) for word in words]
        else:
            words.append(str(model))
        shown = shlex.join(words)
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"the metric `{shown}` cannot be run: {error.strerror or error}", _HINT) from error
        try:
            streams = process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired as error:
            raise ToolError(
                f"the metric `{shown}` took longer than {self.seconds:g} s", "allow more with `--metric-timeout`"
            ) from error
        finally:
            _end(process)
        out, err = (stream.decode("utf-8", "replace").strip() for stream in streams)
        if process.returncode != 0:
            how = f"status {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
            raise ToolError(
                f"the metric `{shown}` failed with {how}:\n{_tail(err or out)}", "run it by hand to see why"
            )
        last = out.splitlines()[-1] if out else ""
        found = _NUMBER.findall(last)
        if not found:
            said = f"its last line is {last[:200]!r}" if last else "it printed nothing"
            more = f"\n{_tail(err)}" if err else ""
            raise ToolError(f"the metric `{shown}` printed no number: {said}{more}", _HINT)
        return checked(float(found[-1]), f"the metric `{shown}`")


_HINT = "it is a command that takes the path of an ONNX file and prints a number last, higher is better"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, if it still runs, and all that it started."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()


def _tail(text: str) -> str:
    lines = text.splitlines()[-20:] or ["(it said nothing)"]
    return "\n".join(f"  {line[:300]}" for line in lines)


def checked(score: float, what: str) -> float:
    """A score that can be compared with others; ToolError says that `what` gave none."""
    try:
        score = float(score)
    except (TypeError, ValueError) as error:
        raise ToolError(f"{what} gave {score!r}, which is no number", _HINT) from error
    if not math.isfinite(score):
        raise ToolError(f"{what} gave {score}, which nothing can be compared with", _HINT)
    return score


def scored(metric: Metric, model: Path) -> float:
    """The score of a model's file; what a function of the user's raises becomes a ToolError."""
    if isinstance(metric, Command):
        return metric(model)
    name = getattr(metric, "__name__", type(metric).__name__)
    try:
        score = metric(model)
    except NnccError:
        raise
    except Exception as error:
        raise ToolError(f"the metric `{name}` failed: {type(error).__name__}: {error}") from error
    return checked(score, f"the metric `{name}`")


# ---- how much it may lose ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaxDrop:
    """How much lower than the float model's a score may be: `amount`, or with `relative` that part of the score."""

    amount: float
    relative: bool = False

    def floor(self, score: float) -> float:
        """The least score that holds, for a float model of `score`; a rounding of the subtraction is granted."""
        allowed = self.amount * abs(score) if self.relative else self.amount
        return score - allowed - 1e-9 * max(1.0, abs(score))

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


def max_drop(word: str | float) -> MaxDrop:
    """``0.5%``: half a percent of the float model's score; ``0.005``: so much, in the metric's own unit. UsageError for
    what is neither or negative."""
    text = str(word).strip()
    try:
        amount = float(text.removesuffix("%"))
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount) or amount < 0:
        raise UsageError(
            f"`--max-drop {text}` is no drop",
            "`0.5%` is half a percent of the float model's score, `0.005` as much in the metric's own unit",
        )
    return MaxDrop(amount / 100, True) if text.endswith("%") else MaxDrop(amount)


# ---- agreement with the float model -----------------------------------------------------------------------------


def _top1(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """How many rows (along the last axis) have the same largest element, and how many there are."""
    same = expected.argmax(-1) == found.argmax(-1)
    return float(same.sum()), float(same.size)


def _power(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """The signal's power that is not noise, and the signal's power."""
    import numpy as np

    a, b = expected.astype(np.float64), found.astype(np.float64)
    signal, noise = float(np.vdot(a, a)), float(np.vdot(a - b, a - b))
    return signal - noise, signal


AGREEMENTS: Mapping[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]] = {"top1": _top1, "sqnr": _power}
"""Each gives a part and the whole of it for one sample; the score is the sum of parts over the sum of wholes.

``top1``: the share of rows of the first output with the same largest element. ``sqnr``: 1 - 10^(-SQNR/10) over all
float outputs, the share of the signal's power that is not noise: 0.99 is 20 dB, 0.999 is 30 dB.
"""


def agreement_of(graph: onnx_ir.Model) -> str:
    """``top1`` for a classifier, else ``sqnr``.

    A classifier is a model whose first output is made by a Softmax, or has two axes and is made by a Gemm or a MatMul
    with a bias or none; reshapes behind these do not count.
    """
    output = graph.graph.outputs[0]
    node = output.producer()
    while node is not None and node.op_type in _BEHIND_LAYERS:
        made = [each for each in (v.producer() for v in node.inputs if v is not None) if each is not None]
        node = made[0] if made else None
    kind = node.op_type if node is not None else ""
    flat = output.shape is None or len(output.shape) == 2
    return "top1" if kind in ("Softmax", "LogSoftmax") or (kind in ("Gemm", "MatMul") and flat) else "sqnr"


_BEHIND_LAYERS = ("Add", "Cast", "Flatten", "Identity", "Reshape", "Squeeze")


class _Kept:
    """The float model's values of these names on samples, in a temporary folder, which goes with this object."""

    def __init__(self, model: Session, names: Sequence[str], samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        import numpy as np

        self.names = list(names)
        self._samples = samples
        self._folder = tempfile.TemporaryDirectory(prefix="nncc-")
        for at, sample in enumerate(samples):
            np.savez(Path(self._folder.name) / f"{at}.npz", *model.run(sample, self.names))

    def beside(self, model: Session) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """For each sample, each value and another model's of the same name."""
        import numpy as np

        for at, sample in enumerate(self._samples):
            found = model.run(sample, self.names)
            with np.load(Path(self._folder.name) / f"{at}.npz") as kept:
                yield [(kept[f"arr_{i}"], array) for i, array in enumerate(found)]


class Agreement:
    """How far a model agrees with the float model on samples, 1 at most; see `AGREEMENTS`."""

    def __init__(self, kind: str, model: Session, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.kind = kind
        names = model.float_outputs[:1] if kind == "top1" else model.float_outputs
        if not names:
            raise ModelError("the model has no output of floats to compare", "give a metric of your own: `--metric`")
        self._kept = _Kept(model, names, samples)

    def __call__(self, model: Session, kind: str = "") -> float:
        """The score of a model, of another kind if that is given; minus infinity where the model gives NaN."""
        part = whole = 0.0
        for pairs in self._kept.beside(model):
            for expected, found in pairs:
                add = AGREEMENTS[kind or self.kind](expected, found)
                part, whole = part + add[0], whole + add[1]
        score = part / whole if whole else 1.0
        return -math.inf if math.isnan(score) else score


class Noise:
    """The error of a quantized graph's outputs on samples, finer than a score: what layers are ranked by.

    The outputs of a Softmax are left for its logits: probabilities flip where logits are nearly tied, which hides all
    else.
    """

    def __init__(self, graph: onnx_ir.Model, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        from nncc.quant.measure import measured_values

        self._names = measured_values(graph)
        self._kept = _Kept(open_graph(graph, more=self._names), self._names, samples)

    def __call__(self, graph: onnx_ir.Model) -> float:
        """Noise over signal, in power, as its geometric mean over samples: 0.01 is 20 dB; 0 without any error."""
        logs = []
        for pairs in self._kept.beside(open_graph(graph, more=self._names)):
            for expected, found in pairs:
                if expected.dtype.kind == "f":
                    left, signal = _power(expected, found)
                    noise = signal - left
                    logs.append(math.log(max(noise, 1e-30) / max(signal, 1e-30)) if noise >= 0 else math.inf)
        return math.exp(min(300.0, sum(logs) / len(logs))) if logs else 0.0
