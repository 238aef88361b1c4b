"""simplify(model) = model: the passes of `SIMPLIFY`, in order, again and again until none finds work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import InternalError, ModelError
from nncc.ir import Model

if TYPE_CHECKING:
    import onnx_ir

    from nncc.passes.rewriting import Report

__all__ = ["MOST_ROUNDS", "check_graph", "simplify", "simplify_reported"]

MOST_ROUNDS = 20
"""A bound on rounds over the table; models need three to five."""


def _signature(graph: onnx_ir.Model) -> list[tuple[str | None, str, str]]:
    values = (*graph.graph.inputs, *graph.graph.outputs)
    return [(v.name, str(v.dtype), "x".join(map(str, v.shape)) if v.shape is not None else "?") for v in values]


def _blame(before: list[tuple[str | None, str, str]], after: list[tuple[str | None, str, str]], blame: str) -> None:
    """ModelError where nothing but shapes of outputs are others once more is known; else a pass is at fault."""
    changed = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
    if len(before) == len(after) and all(old[:2] == new[:2] for old, new in changed):
        (name, _, said), (*_, computed) = changed[0]
        raise ModelError(
            f"the model contradicts itself: `{name}` has the shape {said} by one part of it, and {computed} by another",
            "export it again, or ask its author",
        )
    raise InternalError(f"{blame} changed the inputs or outputs of the model", "please report this")


def check_graph(graph: onnx_ir.Model, blame: str) -> None:
    """Raise InternalError that starts with `blame` if onnx's checker rejects the graph. Weights are not looked at."""
    import onnx
    from onnx_ir.passes import PassError
    from onnx_ir.passes.common import CheckerPass

    try:
        CheckerPass()(graph)
    except (PassError, onnx.checker.ValidationError, ValueError) as error:
        text = " ".join(str(error.__cause__ or error).split())[:500]
        raise InternalError(f"{blame} made an invalid graph: {text}", "please report this, with the model") from error


def simplify_reported(model: Model) -> tuple[Model, dict[str, Report]]:
    """The simplified model, and for each pass its rewrites and refusals over all rounds.

    The given model is not changed. Names, order, types and shapes of inputs and outputs stay as they are. The graph
    is checked after each pass that rewrote something; a pass that breaks it is blamed by name (InternalError).
    """
    from nncc.passes import SIMPLIFY
    from nncc.passes.rewriting import Report

    graph = model.graph.clone()
    signature = _signature(graph)
    reports = {pass_.__name__: Report() for pass_ in SIMPLIFY}
    for _ in range(MOST_ROUNDS):
        rewrites = 0
        for pass_ in SIMPLIFY:
            blame = f"simplify: pass `{pass_.__name__}`"
            report = pass_(graph)
            total = reports[pass_.__name__]
            total.rewrites += report.rewrites
            total.refusals = report.refusals
            rewrites += report.rewrites
            if report.rewrites:
                check_graph(graph, blame)
            if _signature(graph) != signature:
                _blame(signature, _signature(graph), blame)
        if not rewrites:
            break
    return Model(graph, model.name, model.inputs, model.outputs), reports


def simplify(model: Model) -> Model:
    """The same function of the same inputs, in fewer operators: exact up to the rounding of folded weights."""
    return simplify_reported(model)[0]
