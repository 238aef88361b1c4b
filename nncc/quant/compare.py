"""Layer by layer: how far a quantized model's tensors are from its float model's, or what each layer adds by itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nncc.errors import DataError, ModelError
from nncc.quant.correspond import Pair, correspondence
from nncc.quant.probes import isolated, shown_name, with_outputs
from nncc.quant.session import Session, open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.execute import OpenLibrary

__all__ = ["Comparison", "Difference", "compare_library", "compare_models"]

MOST_BYTES = 256 << 20
"""Of one sample's tensors that are compared at a time, in each model."""


@dataclass(frozen=True)
class Difference:
    """How one tensor differs from the float model's, over all samples."""

    name: str
    op_type: str
    node: str
    sqnr_db: float
    """10 log10(sum x^2 / sum (x - y)^2); infinity where they are equal."""
    cosine: float
    """sum xy / sqrt(sum x^2 sum y^2); 1 where both are zero everywhere, 0 where one is."""
    max_error: float
    """max |x - y|"""
    by: str = "name"
    """How the tensors were paired: name | position."""
    readers_of: tuple[str, ...] = ()
    """Names of the compared tensors that this one is made of."""


@dataclass(frozen=True)
class Comparison:
    """All tensors that could be compared, in the order of the float model; outputs of the model apart."""

    layers: tuple[Difference, ...]
    outputs: tuple[Difference, ...]
    samples: int
    isolated: bool
    alone: int = 0
    """Tensors of the float model that the other has none for."""

    def first_below(self, threshold_db: float) -> Difference | None:
        """The first layer whose SQNR is below the threshold."""
        return next((each for each in self.layers if each.sqnr_db < threshold_db), None)

    def steepest(self) -> tuple[Difference, float] | None:
        """The layer whose SQNR is the furthest below that of what it reads, and the latter; None where none falls."""
        by_name = {each.name: each.sqnr_db for each in self.layers}
        falls = []
        for each in self.layers:
            before = min((by_name[name] for name in each.readers_of if name in by_name), default=math.inf)
            if math.isfinite(before) and before > each.sqnr_db:
                falls.append((before - each.sqnr_db, each, before))
        best = max(falls, key=lambda fall: fall[0], default=None)
        return None if best is None else (best[1], best[2])


@dataclass
class _Sums:
    """What the figures of one tensor are made of."""

    signal: float = 0.0
    other: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    count: int = 0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        import numpy as np

        a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
        difference = a - b
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        self.noise += float(difference @ difference)
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        self.count += 1

    def difference(self, pair: Pair, readers_of: tuple[str, ...] = ()) -> Difference:
        sqnr, cosine = math.inf, 1.0
        if self.noise:
            sqnr = 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf
        if self.signal or self.other:
            scale = math.sqrt(self.signal) * math.sqrt(self.other)
            cosine = max(-1.0, min(1.0, self.product / scale)) if scale else 0.0
        if math.isnan(self.noise):
            sqnr = cosine = math.nan
        return Difference(pair.name, pair.op_type, pair.node, sqnr, cosine, self.largest, pair.by, readers_of)


def compare_models(
    model: onnx_ir.Model,
    other: onnx_ir.Model,
    samples: Sequence[Mapping[str, np.ndarray]],
    *,
    isolate: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Comparison:
    """Run both graphs on the samples by ONNX Runtime, without its optimizations, and compare all paired float tensors.

    Sums run over all samples. With `isolate`, every layer of `other` reads the float model's values, so that a figure
    tells what the layer itself adds: the rounding of its weights and of its output. A few tensors are held at a time
    (`MOST_BYTES`). Raises ModelError where the models have no tensor in common, DataError without samples.
    """
    if not samples:
        raise DataError("there are no samples to compare the models on")
    _check_inputs((str(v.name) for v in model.graph.inputs), (str(v.name) for v in other.graph.inputs))
    pairs: Sequence[Pair] = correspondence(model, other)
    outputs = _output_pairs(model, other)
    if not pairs and not outputs:
        raise ModelError("the models have no tensor in common", "give the float model first, then what was made of it")
    sizes = _sizes(model, samples[0])
    pairs = _settled(model, other, pairs, samples[:1], sizes)
    if isolate:  # only floats can be fed in
        floats = _measured(model, other, pairs, samples[:1], sizes)
        pairs = [pair for pair in pairs if floats[pair.name].count]
    sums = _measured(model, other, pairs, samples, sizes, isolate, progress)
    used = [pair for pair in pairs if sums[pair.name].count]
    readers = _readers_of(model, {pair.name for pair in used})
    layers = tuple(sums[pair.name].difference(pair, readers[pair.name]) for pair in used)
    whole = _compare_outputs(outputs, open_graph(model, optimize=False), open_graph(other, optimize=False), samples)
    count = sum(node.op_type != "Constant" for node in model.graph)
    return Comparison(layers, whole, len(samples), isolate, max(0, count - len(layers)))


def _settled(
    model: onnx_ir.Model,
    other: onnx_ir.Model,
    pairs: Sequence[Pair],
    samples: Sequence[Mapping[str, np.ndarray]],
    sizes: Mapping[str, int],
) -> list[Pair]:
    """Of pairs that claim the same tensor of the other model, the one that agrees best."""
    count = Counter(pair.made for pair in pairs)
    doubtful = [pair for pair in pairs if count[pair.made] > 1]
    sums = _measured(model, other, doubtful, samples, sizes) if doubtful else {}
    best: dict[str, tuple[float, str]] = {}
    for pair in doubtful:
        if sums[pair.name].count:
            found = sums[pair.name].difference(pair).sqnr_db, pair.name
            if pair.made not in best or found[0] > best[pair.made][0]:
                best[pair.made] = found
    return [pair for pair in pairs if pair.made not in best or best[pair.made][1] == pair.name]


def _measured(
    model: onnx_ir.Model,
    other: onnx_ir.Model,
    pairs: Sequence[Pair],
    samples: Sequence[Mapping[str, np.ndarray]],
    sizes: Mapping[str, int],
    isolate: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, _Sums]:
    """Sums for each pair, by name, over all samples; of tensors that are no floats or differ in shape, none."""
    sums = {pair.name: _Sums() for pair in pairs}
    groups = list(_groups(pairs, sizes))
    for at, group in enumerate(groups):
        ours = open_graph(with_outputs(model, [pair.name for pair in group]), optimize=False)
        if isolate:
            graph, fed = isolated(other, pairs, group)
            feeds = open_graph(with_outputs(model, list(fed.values())), optimize=False) if fed else ours
        else:
            graph, fed, feeds = with_outputs(other, [pair.seen for pair in group]), {}, ours
        theirs, names = open_graph(graph, optimize=False), [str(value.name) for value in graph.graph.outputs]
        for number, sample in enumerate(samples):
            progress(at * len(samples) + number, len(groups) * len(samples), f"sample {number}")
            given = dict(sample)
            if fed:
                values = feeds.run(sample, [shown_name(name) for name in fed.values()])
                given |= dict(zip(fed, values, strict=True))
            found = theirs.run(given, names)
            expected = ours.run(sample, [shown_name(pair.name) for pair in group])
            for pair, x, y in zip(group, expected, found, strict=True):
                if x.dtype.kind == "f" and y.dtype.kind == "f" and x.shape == y.shape:
                    sums[pair.name].add(x, y)
    return sums


def compare_library(
    model: onnx_ir.Model, library: OpenLibrary, samples: Sequence[Mapping[str, np.ndarray]]
) -> Comparison:
    """The outputs of a compiled library against those of the float model. Raises DataError, RunError, ModelError."""
    if not samples:
        raise DataError("there are no samples to compare the models on")
    _check_inputs((str(v.name) for v in model.graph.inputs), (spec.name for spec in library.inputs))
    session = open_graph(model, optimize=False)
    ours, theirs = session.outputs, [spec.name for spec in library.outputs]
    pairs = [Pair(a, b, b, "output", a, "name" if a == b else "position") for a, b in _zipped(ours, theirs)]
    return Comparison((), _compare_outputs(pairs, session, library, samples), len(samples), False)


def _check_inputs(ours: Iterable[str], theirs: Iterable[str]) -> None:
    """ModelError where the other model wants an input that samples for the first one do not have."""
    known = list(ours)
    for name in theirs:
        if name not in known:
            listed = ", ".join(f"`{each}`" for each in known) or "none"
            raise ModelError(
                f"the second model has an input `{name}`, which the first has not; it has {listed}",
                "give the float model first, then what was made of it",
            )


def _zipped(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    """Outputs of the same name; all by their order where no name is the same."""
    same = [(name, name) for name in ours if name in theirs]
    if same or len(ours) != len(theirs):
        return same
    return list(zip(ours, theirs, strict=True))


def _output_pairs(model: onnx_ir.Model, other: onnx_ir.Model) -> list[Pair]:
    ours, theirs = ([str(v.name) for v in graph.graph.outputs] for graph in (model, other))
    return [Pair(a, b, b, "output", a, "name" if a == b else "position") for a, b in _zipped(ours, theirs)]


def _compare_outputs(
    pairs: Iterable[Pair], ours: Session, theirs: Any, samples: Iterable[Mapping[str, np.ndarray]]
) -> tuple[Difference, ...]:
    pairs = list(pairs)
    sums = [_Sums() for _ in pairs]
    for sample in samples:
        expected = ours.run(sample, [pair.name for pair in pairs])
        if isinstance(theirs, Session):
            found = theirs.run(sample, [pair.seen for pair in pairs])
        else:
            results = theirs.run(sample)
            found = [results[pair.seen] for pair in pairs]
        for total, x, y in zip(sums, expected, found, strict=True):
            if x.dtype.kind in "fiub" and x.shape == y.shape:
                total.add(x, y)
    return tuple(total.difference(pair) for total, pair in zip(sums, pairs, strict=True) if total.count)


def _sizes(model: onnx_ir.Model, sample: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Bytes of the float model's tensors for one sample, where they follow from its shapes."""
    from nncc.frontend.shapes import fix_shapes
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.rewriting import static_shape

    graph = model.clone()
    fix_shapes(graph, {str(v.name): sample[str(v.name)].shape for v in graph.graph.inputs if str(v.name) in sample})
    infer_shapes(graph)
    values = (v for node in graph.graph for v in node.outputs)
    return {str(v.name): 4 * math.prod(shape) for v in values if (shape := static_shape(v)) is not None}


def _groups(pairs: Sequence[Pair], sizes: Mapping[str, int]) -> Iterable[list[Pair]]:
    """Pairs in order, so many at a time as `MOST_BYTES` hold; a tensor of unknown size counts as an eighth of that."""
    group: list[Pair] = []
    held = 0
    for pair in pairs:
        size = sizes.get(pair.name, MOST_BYTES // 8)
        if group and held + size > MOST_BYTES:
            yield group
            group, held = [], 0
        group.append(pair)
        held += size
    if group:
        yield group


def _readers_of(model: onnx_ir.Model, names: set[str]) -> dict[str, tuple[str, ...]]:
    """For each of the named tensors the nearest named ones that it is made of."""
    nearest: dict[str, tuple[str, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for node in model.graph:
        sources: list[str] = []
        for value in node.inputs:
            if value is not None and value.name:
                sources += [value.name] if value.name in names else nearest.get(value.name, ())
        for value in node.outputs:
            nearest[str(value.name)] = tuple(dict.fromkeys(sources))
            if value.name in names:
                found[str(value.name)] = nearest[str(value.name)]
    return found
