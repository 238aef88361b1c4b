"""What there is to know of a model before it is compiled: `nncc check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.check_operators import Use, all_nodes, known_by_name, operator_name, uses_of
from nncc.errors import InternalError, ModelError, NnccError
from nncc.ir import TensorSpec
from nncc.passes.rewriting import is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir

    from nncc.target import Target

__all__ = ["Check", "OpenInput", "Use", "check_model"]


@dataclass(frozen=True)
class OpenInput:
    """An input with dimensions that the model leaves open."""

    name: str
    shape: tuple[int | str, ...]
    """Numbers, and the names of open dimensions, ``?`` where they have none."""
    checked: tuple[int, ...]
    """The sizes that the check goes on with: what was given, else a guess."""


@dataclass(frozen=True)
class Check:
    """All that `nncc check` finds out. Sizes are for the shapes that were `checked`."""

    name: str
    producer: str
    opsets: Mapping[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    open_inputs: tuple[OpenInput, ...]
    file_operators: Mapping[str, int]
    """By operator, how many the file has, functions inlined and subgraphs included."""
    uses: tuple[Use, ...]
    """What the simplified graph has; of a graph that cannot be imported, what its operators are known by."""
    rewrites: Mapping[str, int]
    """By pass of `nncc.passes.SIMPLIFY`: what it did."""
    problems: tuple[NnccError, ...]
    """Of the model as a whole."""
    parameter_bytes: Mapping[str, int]
    """By dtype."""
    activation_bytes: int
    """At most alive at once, before operators are fused."""
    macs: int
    integer_macs: int
    """Of these, products of quantized tensors."""
    seconds: float | None
    """Predicted for one core of the target, products and memory; None where the target's peak is not known."""

    @property
    def compiles(self) -> bool:
        """Whether nothing was found that a compilation would stop at."""
        return not self.problems and not any(use.problem for use in self.uses)


def check_model(
    path: str | Path,
    target: Target,
    shape: Mapping[str, Sequence[int]] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Check:
    """Look at an ONNX file; `shape` as for a compilation, and what it leaves open is guessed.

    Raises ModelError for a file that is no valid model, and for shapes that contradict it.
    """
    from nncc.frontend.onnx import import_onnx
    from nncc.frontend.read_graph import read_graph
    from nncc.frontend.shapes import open_dimensions
    from nncc.frontend.specs import specs
    from nncc.passes.simplify import simplify_reported

    path = Path(path)
    graph = read_graph(path)
    given = {name: tuple(int(size) for size in sizes) for name, sizes in (shape or {}).items()}
    open_inputs = tuple(
        OpenInput(name, words, given.get(name, guess)) for name, (words, guess) in open_dimensions(graph, given).items()
    )
    blank = Check(
        name=path.name.removesuffix(".onnx"),
        producer=" ".join(filter(None, (graph.producer_name, graph.producer_version))),
        opsets=_opsets(graph),
        inputs=(),
        outputs=(),
        open_inputs=open_inputs,
        file_operators=Counter(operator_name(node) for node in all_nodes(graph)),
        uses=(),
        rewrites={},
        problems=(),
        parameter_bytes=_parameter_bytes(graph),
        activation_bytes=0,
        macs=0,
        integer_macs=0,
        seconds=None,
    )
    try:
        model = import_onnx(path, shape=given | {each.name: each.checked for each in open_inputs}, name=blank.name)
        blank = replace(blank, inputs=model.inputs, outputs=model.outputs)
        model, reports = simplify_reported(model)
    except (ModelError, InternalError) as error:
        uses = known_by_name(graph)
        told = any(use.problem for use in uses)  # the error is another word for that
        return replace(blank, uses=uses, problems=() if told else (error,))
    uses, problems = uses_of(model, target, progress)
    float_macs, integer_macs, seconds = _work(model.graph, target)
    return replace(
        blank,
        inputs=specs(model.graph.graph.inputs, "input"),
        uses=uses,
        problems=problems,
        rewrites={name: report.rewrites for name, report in reports.items() if report.rewrites},
        activation_bytes=_activation_bytes(model.graph),
        macs=float_macs + integer_macs,
        integer_macs=integer_macs,
        seconds=seconds,
    )


def _opsets(graph: onnx_ir.Model) -> dict[str, int]:
    """By domain that the graph has operators of, its version; exporters list domains that they do not use."""
    used = {"" if node.domain == "ai.onnx" else node.domain for node in all_nodes(graph)}
    return {domain or "ai.onnx": version for domain, version in graph.opset_imports.items() if domain in used}


def _parameter_bytes(graph: onnx_ir.Model) -> dict[str, int]:
    found: Counter[str] = Counter()
    for value in graph.graph.initializers.values():
        if value.const_value is not None:
            found[value.const_value.dtype.name.lower()] += value.const_value.nbytes
    return dict(found.most_common())


def _work(graph: onnx_ir.Model, target: Target) -> tuple[int, int, float | None]:
    """Multiply-adds in float and on integers, and the predicted seconds of the products and of what is moved."""
    from nncc.layer_time import LayerTimes
    from nncc.passes.products import product_of
    from nncc.text import macs as multiply_adds

    shapes = {
        str(value.name): shape
        for node in graph.graph
        for value in (*node.inputs, *node.outputs)
        if value is not None and (shape := static_shape(value)) is not None
    }
    times = LayerTimes(target.hardware)
    macs, seconds = {False: 0, True: 0}, 0.0
    for node in graph.graph:
        product = product_of(node, shapes)
        if product is None:
            macs[False] += multiply_adds(node)
            continue
        integers = all(is_op(value.producer(), "DequantizeLinear") for value in node.inputs[:2] if value is not None)
        moved = product.inputs + product.outputs + product.depth * prod(product.window) * product.columns
        macs[integers] += product.macs
        seconds += times.seconds(product, (1.0 if integers else 4.0) * moved, integers=integers)
    return macs[False], macs[True], seconds if target.hardware.peak_gflops else None


def _activation_bytes(graph: onnx_ir.Model) -> int:
    """The arena that the graph's own tensors need, in its order, each alive until its last reader."""
    from nncc.codegen.memory import Lifetime, plan

    order = {node: at for at, node in enumerate(graph.graph)}
    lifetimes = []
    for node, at in order.items():
        for value in node.outputs:
            shape = static_shape(value)
            if shape is None or value.dtype is None or is_op(node, "Constant"):
                continue
            last = max((order.get(user, at) for user, _ in value.uses()), default=at)
            last = len(order) if value.is_graph_output() else last
            lifetimes.append(Lifetime(-(-prod(shape) * value.dtype.bitwidth // 8), at, last))
    return plan(lifetimes)[1]
