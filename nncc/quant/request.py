"""What `nncc.quantize`, `nncc.prune` and `nncc.distill` are asked for alike: a model, samples, a file to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.quant.images import Preprocessing
    from nncc.quant.metric import Metric

__all__ = ["Samples", "Start", "Tell", "check_folder", "judge_of", "output_file", "read_model"]

Start = Callable[[str, str], None]
"""Told what begins: a word, and on what."""
Tell = Callable[[int, int, str], None]
"""Told how far it is: done, of how many, what."""
Samples = Sequence[Mapping[str, "np.ndarray"]]
"""Each maps the names of inputs to arrays."""

_MADE_UP = 8
"""Random inputs in place of samples, where these only tell how near two models are."""


def read_model(
    model: Path,
    calibration: str | Path | Samples | None,
    shape: Mapping[str, Sequence[int]] | None,
    images: Preprocessing | None,
    start: Start,
    how_many: str,
) -> tuple[onnx_ir.Model, Samples]:
    """The checked graph, with dimensions as `shape` fixes them, and at least one sample; made-up ones for no
    `calibration`.

    `how_many` says in an error how many would be better. Raises ModelError, DataError or UsageError.
    """
    from nncc.frontend.read_graph import read_graph
    from nncc.frontend.shapes import fix_shapes
    from nncc.quant.samples import input_specs, read_samples

    start("read", str(model))
    graph = read_graph(model)
    if shape:
        fix_shapes(graph, shape)
    samples: Samples
    if calibration is None:
        samples = _made_up(graph)
    elif isinstance(calibration, str | Path):
        start("samples", str(calibration))
        samples = read_samples(calibration, input_specs(graph), images)
    else:
        samples = list(calibration)
    if not samples:
        raise UsageError(
            "there are no calibration samples", f"give at least one; {how_many}, like real inputs, are better"
        )
    return graph, samples


def _made_up(graph: onnx_ir.Model) -> Samples:
    """Random inputs, whose open dimensions have sizes that are guessed."""
    from nncc.frontend.onnx import specs
    from nncc.frontend.samples import fill
    from nncc.frontend.shapes import fix_shapes, open_dimensions

    fixed = graph.clone()
    fix_shapes(fixed, {name: sizes for name, (_, sizes) in open_dimensions(graph, {}).items()})
    return [fill(specs(fixed.graph.inputs, "input"), "random", seed) for seed in range(_MADE_UP)]


def judge_of(metric: str | Callable[[Path], float] | None, seconds: float) -> Metric | str:
    """A function of a file's path, which may run a command for `seconds`; or a kind of agreement, empty by default."""
    from nncc.quant.metric import AGREEMENTS, Command

    return Command(metric, seconds) if isinstance(metric, str) and metric not in AGREEMENTS else metric or ""


def output_file(model: Path, output: str | Path | None, ending: str, itself: str) -> Path:
    """The file to write, by default ``<model>.<ending>.onnx`` beside the model, which an error calls `itself`.

    Raises UsageError or OutputError where it cannot be written there.
    """
    name = f"{model.name.removesuffix('.onnx')}.{ending}.onnx"
    path = model.with_name(name) if output is None else Path(output)
    if path.is_dir():
        raise UsageError(f"`-o {path}` is a folder", f"give a file, for example `{path / name}`")
    if path.exists() and model.exists() and path.samefile(model):
        raise UsageError(f"`-o {path}` is {itself} itself", "choose another file")
    check_folder(path)
    return path


def check_folder(path: Path) -> None:
    """Raise OutputError where there is no folder to write a file into."""
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write `{path}`: there is no folder `{path.parent}`", "make it first")
