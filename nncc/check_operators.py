"""Which operators of a model can be compiled, before it is compiled.

Each different use of an operator is imported and lowered by itself, by the code that compiles it: what fails there
would fail in the compilation, and all that fails is found, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.errors import InternalError, ModelError, NnccError
from nncc.ir import Model
from nncc.passes.part import part
from nncc.passes.rewriting import is_op, label

if TYPE_CHECKING:
    import onnx_ir

    from nncc.target import Target

__all__ = ["Use", "all_nodes", "known_by_name", "operator_name", "uses_of"]


@dataclass(frozen=True)
class Use:
    """Uses of an operator that compile alike, or fail alike."""

    operator: str
    """``Conv``, or ``com.microsoft Gelu``."""
    count: int
    nodes: tuple[str, ...]
    """Names of the first ones."""
    problem: str = ""
    """Why it cannot be compiled; empty where it can."""
    hint: str = ""


def known_by_name(graph: onnx_ir.Model) -> tuple[Use, ...]:
    """Of a graph that could not be prepared: the operators by what is known of their names."""
    from nncc.frontend.foreign import DEFINITIONS
    from nncc.frontend.relax_import import known_operators
    from nncc.passes.integer_matmuls import INTEGER_MATMULS
    from nncc.passes.qoperators import QOPERATORS

    known = known_operators()
    for domain, operator in (*QOPERATORS, *INTEGER_MATMULS, *((d, op) for d, ops in DEFINITIONS.items() for op in ops)):
        known.setdefault(domain, set()).add(operator)
    found: dict[str, list[onnx_ir.Node]] = {}
    for node in all_nodes(graph):
        found.setdefault(operator_name(node), []).append(node)
    return tuple(
        Use(operator, len(nodes), tuple(map(label, nodes[:3])), *_unknown(nodes[0], known))
        for operator, nodes in sorted(found.items())
    )


def _unknown(node: onnx_ir.Node, known: Mapping[str, set[str]]) -> tuple[str, str]:
    """The problem of an operator that nothing is known of, and what to do; empty for others."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type in known.get(domain, ()):
        return "", ""
    return "nncc does not know this operator", "cut the model before it, or export it with other operators"


def uses_of(
    model: Model, target: Target, progress: Callable[[int, int, str], None]
) -> tuple[tuple[Use, ...], tuple[NnccError, ...]]:
    """The nodes of the simplified graph, those alike together, and what is wrong with the model as a whole."""
    groups: dict[object, list[onnx_ir.Node]] = {}
    for node in model.graph.graph:
        groups.setdefault(_signature(node), []).append(node)
    merged: dict[tuple[str, str, str], list[onnx_ir.Node]] = {}
    for number, nodes in enumerate(groups.values()):
        progress(number, len(groups), operator_name(nodes[0]))
        problem, hint = _problem(nodes[0], model, target)
        merged.setdefault((operator_name(nodes[0]), problem, hint), []).extend(nodes)
    uses = tuple(
        Use(operator, len(nodes), tuple(map(label, nodes[:3])), problem, hint)
        for (operator, problem, hint), nodes in sorted(merged.items())
    )
    if any(use.problem for use in uses):
        return uses, ()
    try:
        _lowered(model, target)
    except (ModelError, InternalError) as error:
        return uses, (error,)
    return uses, ()


def _signature(node: onnx_ir.Node) -> object:
    """What nodes that compile alike have in common: the operator, its attributes, and the types of its operands."""

    def operand(value: onnx_ir.Value | None) -> object:
        if value is None:
            return None
        shape = None if value.shape is None else tuple(map(str, value.shape))
        small = value.const_value if value.const_value is not None and value.const_value.size <= 64 else None
        contents = small.numpy().tobytes() if small is not None else value.const_value is not None
        return str(value.dtype), shape, contents

    attributes = tuple(sorted((name, str(attribute)) for name, attribute in node.attributes.items()))
    sides = tuple(map(operand, node.inputs)), tuple(map(operand, node.outputs))
    return node.domain, node.op_type, attributes, sides


def _problem(node: onnx_ir.Node, model: Model, target: Target) -> tuple[str, str]:
    """Why a node by itself cannot be compiled, and what to do; empty where it can, or has to be seen with others."""
    from nncc.frontend.relax_import import known_operators

    problem, hint = _unknown(node, known_operators())
    alone = None if problem else part(model, [node])
    if alone is None:
        return problem, hint
    try:
        _lowered(alone, target)
    except (ModelError, InternalError) as error:
        return error.message, error.hint or ""
    return "", ""


def _lowered(model: Model, target: Target) -> None:
    """Import and lower a model, and the bodies of its control flow, without its target's passes, which leave alone what
    they do not know, but for those without which nothing can be lowered."""
    from nncc.codegen.lower import lower
    from nncc.frontend.relax_import import import_relax
    from nncc.ir import Network
    from nncc.kernels.templates import load_templates
    from nncc.passes.context import Context
    from nncc.passes.outline import outline, refuse_regions
    from nncc.passes.own_recurrent import own_recurrent

    outlined, regions = outline(model)
    refuse_regions(model, regions, target)
    for region in regions.values():
        for body in region.bodies:
            _lowered(body, target)
    module = import_relax(outlined, regions)
    if any(is_op(node, "LSTM", "GRU", "RNN") for node in outlined.graph.graph):
        module = own_recurrent(module, Context(model.name, target, load_templates()))
    lower(Network(module, model.name, target, model.inputs, model.outputs))


def operator_name(node: onnx_ir.Node) -> str:
    """``Conv``, or ``com.microsoft Gelu``."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain} {node.op_type}"


def all_nodes(graph: onnx_ir.Model) -> list[onnx_ir.Node]:
    """Those of subgraphs too."""
    import onnx_ir

    return list(onnx_ir.traversal.RecursiveGraphIterator(graph.graph))
