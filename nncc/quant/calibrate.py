"""Statistics of activations: the float model is run over calibration samples, twice, and nothing of a run is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.errors import ModelError, NnccError, RunError, did_you_mean
from nncc.passes.rewriting import constant
from nncc.quant.execution import run
from nncc.quant.observers import BINS, Observation
from nncc.quant.operators import data_inputs, is_float, is_product
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

    Activations that are not finite, like scores behind a mask, have none. The samples are what equalization, bias
    correction and reconstruction, and the measuring of `"auto"`, run again.
    """

    observations: Mapping[str, Observation]
    samples: Sequence[Mapping[str, np.ndarray]]

    def cover(self, node: onnx_ir.Node) -> bool:
        """Whether all activations that a candidate reads and makes were observed: without, it cannot be int8."""
        return all(str(value.name) in self.observations for value in _activations(node))


def collect(graph: onnx_ir.Model, samples: Iterable[Mapping[str, np.ndarray]], recipe: Recipe) -> Statistics:
    """Observe every activation of the prepared `graph` that any recipe may quantize.

    Each sample has an array for every input of the graph; open dimensions may differ between samples. An iterator is
    put into a tuple; a sequence that loads its items when asked keeps memory small, it is read twice. The statistics
    serve all observers and precisions of recipes alike. Raises RunError for samples that do not fit or hold values that
    are not finite, or if a product that is to be int8 reads or makes such values; ModelError if constants have some.
    """
    kept = samples if isinstance(samples, Sequence) else tuple(samples)
    if not len(kept):
        raise RunError("there are no calibration samples", "give at least one; a hundred, like real inputs, are better")
    check_samples(graph, kept)
    around = candidates(graph)
    names = list(dict.fromkeys(str(value.name) for node in around for value in _activations(node)))
    products = [node for node in around if is_product(node) and recipe.precision_of(str(node.name)) == "int8"]
    limits, infinite = _limits(graph, names, kept, products)
    names = [name for name in names if name not in infinite]
    return Statistics(_histograms(graph, names, kept, limits), kept)


def _activations(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """The activations around a candidate, each where it was before it was moved."""
    origins = [source(value) for value in (*data_inputs(node), *node.outputs)]
    return [origin for origin in origins if is_float(origin) and constant(origin) is None]


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


def _limits(
    graph: onnx_ir.Model, names: list[str], samples: Sequence, products: Sequence[onnx_ir.Node]
) -> tuple[dict[str, tuple[float, float, float, float]], set[str]]:
    """By activation its extremes and their moving averages; and those not finite, which no product may touch."""
    import numpy as np

    limits: dict[str, tuple[float, float, float, float]] = {}
    infinite: set[str] = set()
    for number, arrays in enumerate(run(graph, names, samples)):
        for name, array in zip(names, arrays, strict=True):
            if not array.size or name in infinite:
                continue
            low, high = float(array.min()), float(array.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                for product in products:
                    if name in (value.name for value in _activations(product)):
                        raise _not_finite(number, name, product)
                infinite.add(name)
                continue
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
    return limits, infinite


def _not_finite(number: int, name: str, product: onnx_ir.Node) -> NnccError:
    """Why `product` cannot be int8: `name`, which it reads or makes, is not finite for a sample."""
    import numpy as np

    what = f"calibration sample {number} gives `{name}` values that are not finite"
    nodes = [product]
    for node in nodes:  # grows: all that come before the product, the nearest first
        for value in (value for value in node.inputs if value is not None):
            array, producer = constant(value), value.producer()
            if array is not None and array.dtype.kind == "f" and (wrong := int((~np.isfinite(array)).sum())):
                where = f"`{value.name}`, a constant of `{node.name}`"
                return ModelError(
                    f"{what}: {where}, has NaN or infinity in {wrong} of {array.size} elements",
                    f"export the model again, or leave the node `{product.name}` float",
                )
            if producer is not None and producer not in nodes:
                nodes.append(producer)
    return RunError(what, f"leave that sample out, or the node `{product.name}` float")


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
