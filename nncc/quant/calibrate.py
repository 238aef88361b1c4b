"""Statistics of activations: the float model is run over calibration samples, twice, and nothing of a run is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.errors import RunError, did_you_mean
from nncc.passes.rewriting import constant
from nncc.quant.execution import run
from nncc.quant.observers import BINS, Observation
from nncc.quant.operators import data_inputs, is_float
from nncc.quant.plan import candidates, source

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.quant.recipe import Recipe

__all__ = ["Statistics", "check_samples", "collect"]

AVERAGING = 0.1
"""Weight of a new sample in the moving average of extremes; the first sample is where it starts."""


@dataclass(frozen=True)
class Statistics:
    """What calibration saw of a prepared graph: for each activation an Observation, and the samples themselves.

    The samples are what equalization, bias correction and reconstruction, and the measuring of `"auto"`, run again.
    """

    observations: Mapping[str, Observation]
    samples: Sequence[Mapping[str, np.ndarray]]


def collect(graph: onnx_ir.Model, samples: Iterable[Mapping[str, np.ndarray]], recipe: Recipe) -> Statistics:
    """Observe every activation of the prepared `graph` that any recipe may quantize.

    Each sample has an array for every input of the graph; open dimensions may differ between samples. An iterator is
    put into a tuple; a sequence that loads its items when asked keeps memory small, it is read twice. The statistics
    serve all observers and precisions of recipes alike. Raises RunError for samples that do not fit or hold values that
    are not finite, or if the model makes such values of them.
    """
    kept = samples if isinstance(samples, Sequence) else tuple(samples)
    if not len(kept):
        raise RunError("there are no calibration samples", "give at least one; a hundred, like real inputs, are better")
    check_samples(graph, kept)
    names = _observed(graph)
    limits = _limits(graph, names, kept)
    return Statistics(_histograms(graph, names, kept, limits), kept)


def _observed(graph: onnx_ir.Model) -> list[str]:
    """The activations around candidates, each where it was before it was moved."""
    found: dict[str, None] = {}
    for node in candidates(graph):
        for value in (*data_inputs(node), *node.outputs):
            origin = source(value)
            if is_float(origin) and constant(origin) is None:
                found[str(origin.name)] = None
    return list(found)


def check_samples(graph: onnx_ir.Model, samples: Sequence[Mapping[str, np.ndarray]], what: str = "calibration") -> None:
    """Raise RunError for samples that do not fit the graph's inputs or hold values that are not finite."""
    for number, sample in enumerate(samples):
        _check(graph, f"{what} sample {number}", sample)


def _check(graph: onnx_ir.Model, what: str, sample: Mapping[str, np.ndarray]) -> None:
    import numpy as np

    names = [str(value.name) for value in graph.graph.inputs]
    for name in sample:
        if name not in names:
            hint = did_you_mean(name, names) or f"the model has {', '.join(f'`{n}`' for n in names)}"
            raise RunError(f"{what} has an array for `{name}`, which is no input of the model", hint)
    for value in graph.graph.inputs:
        if value.name not in sample:
            raise RunError(f"{what} has no array for input `{value.name}`", "give one array for each input")
        array = sample[str(value.name)]
        wanted = value.dtype.numpy() if value.dtype is not None else array.dtype
        shape = tuple(value.shape) if value.shape is not None else array.shape
        fits = len(shape) == array.ndim and all(
            not isinstance(size, int) or size == found for size, found in zip(shape, array.shape, strict=False)
        )
        if array.dtype != wanted or not fits:
            expected = "x".join(str(size) if isinstance(size, int) else str(size.value or "?") for size in shape)
            raise RunError(
                f"{what} has {array.dtype.name}[{'x'.join(map(str, array.shape))}] for input `{value.name}`, which is "
                f"{wanted.name}[{expected}]",
                "convert the array, or add the dimension of the batch",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RunError(f"{what} has values for input `{value.name}` that are not finite", "leave that sample out")


def _limits(graph: onnx_ir.Model, names: list[str], samples: Sequence) -> dict[str, tuple[float, float, float, float]]:
    import numpy as np

    limits: dict[str, tuple[float, float, float, float]] = {}
    for number, arrays in enumerate(run(graph, names, samples)):
        for name, array in zip(names, arrays, strict=True):
            if not array.size:
                continue
            low, high = float(array.min()), float(array.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise RunError(
                    f"calibration sample {number} gives `{name}` values that are not finite",
                    "leave that sample out, or the nodes around it float",
                )
            if name not in limits:
                limits[name] = (low, high, low, high)
                continue
            old = limits[name]
            limits[name] = (
                min(old[0], low),
                max(old[1], high),
                old[2] + AVERAGING * (low - old[2]),
                old[3] + AVERAGING * (high - old[3]),
            )
    return limits


def _histograms(
    graph: onnx_ir.Model, names: list[str], samples: Sequence, limits: Mapping[str, tuple[float, float, float, float]]
) -> dict[str, Observation]:
    import numpy as np

    counts = {name: np.zeros(BINS, np.int64) for name in names}
    zeros = dict.fromkeys(names, 0)
    for arrays in run(graph, names, samples):
        for name, array in zip(names, arrays, strict=True):
            if not array.size:
                continue
            low, high = min(limits[name][0], 0.0), max(limits[name][1], 0.0)
            flat = array.reshape(-1)
            flat = flat[flat != 0]
            zeros[name] += array.size - flat.size
            if flat.size and high > low:
                with np.errstate(over="ignore"):
                    places = (flat - np.float32(low)) * np.float32(BINS / (high - low))
                counts[name] += np.bincount(np.clip(places, 0, BINS - 1).astype(np.int32), minlength=BINS)
    found = {}
    for name in names:
        low, high, average_low, average_high = limits.get(name, (0.0, 0.0, 0.0, 0.0))
        found[name] = Observation(min(low, 0.0), max(high, 0.0), average_low, average_high, counts[name], zeros[name])
    return found
