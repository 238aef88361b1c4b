"""`nncc quantize` on one screen: a float file and samples become a QDQ file, within the accuracy that was asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import OutputError
from nncc.quant.calibrate import Statistics, collect
from nncc.quant.metric import Agreement, MaxDrop, Metric, Noise, agreement_of, scored
from nncc.quant.operators import PRODUCTS
from nncc.quant.quantize import Layer, layers, prepare, quantize
from nncc.quant.recipe import Recipe
from nncc.quant.samples import hold_out
from nncc.quant.search import Judge, best_observer, rank, search, with_floats
from nncc.quant.session import open_graph
from nncc.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.quant.request import Start, Tell
    from nncc.target import Hardware

__all__ = ["Gate", "Material", "Outcome", "closed_loop", "gather", "save_graph"]

_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Gate:
    """What the quantized model has to be worth."""

    metric: Metric | str = ""
    """A function of a file's path, or a kind of `AGREEMENTS`; by default the kind that fits the model."""
    max_drop: MaxDrop | None = None
    """Layers stay float until the score holds; None: it is only measured."""
    by_metric: bool = False
    """Whether layers are ranked by the metric, rather than by the error of the outputs."""
    most: int = 30
    """How often the metric may be asked while layers are chosen."""
    ranked: bool = False
    """Whether layers are ranked even where none has to stay float."""


@dataclass(frozen=True)
class Material:
    """What all recipes for a model are judged on."""

    graph: onnx_ir.Model
    """As it was read."""
    prepared: onnx_ir.Model
    statistics: Statistics
    held_out: Sequence[Mapping[str, np.ndarray]]
    layers: tuple[Layer, ...]
    agreement: Agreement
    noise: Noise


@dataclass(frozen=True)
class Outcome:
    """A quantized graph, and how it came about."""

    graph: onnx_ir.Model
    recipe: Recipe
    layers: tuple[Layer, ...]
    reasons: Mapping[str, str]
    """By product that does not compute on integers, why."""
    agreement: Mapping[str, float]
    """With the float model on the held-out samples, by kind; see `AGREEMENTS`."""
    kind: str
    """The kind that fits the model."""
    calibrated: int
    held_out: int
    scores: tuple[float, float] | None = None
    """Of the float and of the quantized model, by the metric that was given."""
    floor: float | None = None
    """What the score had to be at least."""
    evaluations: int = 0
    lost: Mapping[str, float] = field(default_factory=dict)
    """By product, what it loses by itself, where the layers were ranked."""


def gather(
    graph: onnx_ir.Model,
    samples: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
    kind: str = "",
    start: Start = lambda name, what: None,
) -> Material:
    """Prepare the graph, keep samples back by the recipe's seed, observe the others. Raises ModelError, RunError."""
    start("prepare", "")
    prepared = prepare(graph)
    seen, held = hold_out(samples, recipe.seed)
    start("calibrate", f"{len(seen)} samples")
    statistics = collect(prepared, seen, recipe)
    agreement = Agreement(kind or agreement_of(graph), open_graph(graph), held)
    noise = Noise(prepared, held)
    return Material(graph, prepared, statistics, held, layers(prepared, samples[0]), agreement, noise)


def closed_loop(
    material: Material,
    recipe: Recipe,
    gate: Gate,
    hardware: Hardware | None,
    *,
    float_file: Path | None = None,
    choose_observer: bool = False,
    start: Start = lambda name, what: None,
    tell: Tell = lambda done, total, what: None,
) -> Outcome:
    """Quantize by the recipe; with `gate.max_drop`, leave the layers float that cost the most accuracy for the time
    they save, until the score holds.

    `choose_observer` first takes the observer with the least error of the outputs. A metric that is a function or a
    command needs `float_file`, and `gate.max_drop` needs `hardware`. Raises ToolError for a metric that fails,
    ModelError where nothing can be quantized or the score cannot hold.
    """
    agreement = material.agreement

    def score(graph: onnx_ir.Model) -> float:
        if isinstance(gate.metric, str):
            return agreement(open_graph(graph))
        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            path = Path(folder) / "candidate.onnx"
            save_graph(graph, path)
            return scored(gate.metric, path)

    if choose_observer:
        start("observers", "which serves best")
        recipe = best_observer(
            material.prepared, material.statistics, recipe, lambda graph: -agreement(open_graph(graph), "sqnr"), tell
        )
    whole = 1.0
    if not isinstance(gate.metric, str) and float_file is not None:
        start("metric", "of the float model")
        whole = scored(gate.metric, float_file)
    reasons = dict.fromkeys(recipe.float_nodes, "the recipe says so")
    floor = gate.max_drop.floor(whole) if gate.max_drop is not None else None
    lost: dict[str, float] = {}
    evaluations = 0
    reached: float | None = None

    def ranked() -> dict[str, float]:
        start("rank", "the layers, one by one")
        loss = (lambda graph: max(0.0, whole - score(graph))) if gate.by_metric else material.noise
        return rank(material.prepared, material.statistics, recipe, material.layers, loss, tell)

    if floor is not None and hardware is not None:
        start("metric", "of the quantized model")
        judge = Judge(material.prepared, material.statistics, score, floor, gate.most, tell)
        reached = judge.score(recipe, ())
        if reached < floor:
            lost = ranked()
            start("search", "which layers stay float")
            found = search(recipe, material.layers, lost, hardware, judge)
            recipe, reached = with_floats(recipe, found.floats), found.score
            reasons |= {name: loss_text(lost[name], gate.by_metric) for name in found.floats}
        evaluations = len(judge.scores)
    if gate.ranked and not lost:
        lost = ranked()
    start("quantize", "")
    graph = quantize(material.prepared, material.statistics, recipe)
    session = open_graph(graph)
    kinds = {kind: agreement(session, kind) for kind in dict.fromkeys((agreement.kind, "sqnr"))}
    if not isinstance(gate.metric, str) and reached is None:
        start("metric", "of the quantized model")
        reached, evaluations = score(graph), 1
    return Outcome(
        graph=graph,
        recipe=recipe,
        layers=material.layers,
        reasons=reasons | _without_form(material),
        agreement=kinds,
        kind=agreement.kind,
        calibrated=len(material.statistics.samples),
        held_out=len(material.held_out),
        scores=None if isinstance(gate.metric, str) or reached is None else (whole, reached),
        floor=floor,
        evaluations=evaluations,
        lost=lost,
    )


def loss_text(lost: float, by_metric: bool) -> str:
    """What a layer loses by itself, for people."""
    from math import log10

    if by_metric:
        return f"by itself it costs {lost:.4g} of the score"
    return f"by itself it leaves {-10 * log10(lost):.1f} dB" if lost > 0 else "by itself it costs nothing"


def _without_form(material: Material) -> dict[str, str]:
    """Products that cannot compute on integers, and why."""
    known = {layer.name for layer in material.layers}
    found = {}
    for node in material.prepared.graph.all_nodes():
        if str(node.name) not in known and node.op_type in PRODUCTS:
            found[str(node.name)] = "its weights are not constant float32"
        elif node.op_type in _RECURRENT:
            found[str(node.name)] = f"{node.op_type} has no integer form"
    return found


def save_graph(graph: onnx_ir.Model, path: Path) -> None:
    """Write an ONNX file, all or nothing but where weights of 2 GiB go to a file beside it. Raises OutputError."""
    import onnx_ir

    weights = sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value is not None)
    hint = "choose another place with `-o`"
    if weights <= 2**31 - 2**26:
        proto = onnx_ir.to_proto(graph)
        write_whole(path, lambda file: file.write_bytes(proto.SerializeToString(deterministic=True)), hint=hint)
        return
    try:
        onnx_ir.save(graph, path, external_data=f"{path.name}.data")
    except OSError as error:
        raise OutputError(f"cannot write `{path}`: {error.strerror or error}", hint) from error
