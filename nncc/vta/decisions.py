"""The decisions of a layer, as the templates of an accelerator ask for them and note them at its block."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nncc.compat import structural_walk, tvm
from nncc.errors import InternalError, TargetError
from nncc.target import Hardware
from nncc.vta.definition import LAYER
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.plan import plans
from nncc.vta.stream import Plan

__all__ = ["decide", "layer_of", "plan_of", "read_plan", "refusal"]

_PLAN = "nncc.plan"
"""The annotation of an anchor with the plan of its layer, as `_text` writes it."""
_TRIED = 64
"""Of the plans, the best by their predicted cost, so many are worth a try."""
_FORM = re.compile(r"(\d+)x(\d+)x(\d+) by (\d+) (\w+) (\d+)/(\d+)/(\d+)")


def decide(sch: Any, block: Any, hardware: Hardware, choose: Callable[[str, Any], Any]) -> tuple[list[Any], str]:
    """Ask for the plan of an anchor's layer, the one that is predicted to be best first, and note it there.

    No loop changes: the blocks define the layer, for whoever wants to compute it otherwise. All of them are placed,
    unless the host is to run them.
    """
    machine = hardware.accelerator
    if machine is None:
        raise InternalError("a layer for an accelerator is scheduled for a target that has none")
    if hardware.golden:
        return [], "by its definition"
    layer = Layer.from_json(str(sch.get(block).annotations[LAYER]))
    plan = choose("plan", [_text(plan) for plan in plans(layer, machine, _TRIED)])
    sch.annotate(block, _PLAN, plan)
    return sch.get_child_blocks(sch.get_sblock("root")), plan


def refusal(layer: Layer, machine: Machine) -> str:
    """Why no stream of instructions can be made for a layer; empty where there is one."""
    try:
        plans(layer, machine, _TRIED)
    except TargetError as error:
        return error.message.split(": ", 2)[-1]
    return ""


def layer_of(function: Any) -> Layer | None:
    """The layer that a TIR function defines; None where it is a kernel of the host."""
    text = _annotation(function, LAYER)
    return Layer.from_json(text) if text else None


def plan_of(function: Any) -> Plan:
    """The plan that was chosen for a TIR function that defines a layer. Raises InternalError where there is none."""
    return read_plan(_annotation(function, _PLAN))


def read_plan(text: str) -> Plan:
    """The plan that a decision is. Raises InternalError where the text is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise InternalError(
            f"a layer for an accelerator has no plan: `{text}`" if text else "a layer for an accelerator has no plan"
        )
    *tile, reduction, order, inp, wgt, acc = found.groups()
    height, width, depth = map(int, tile)
    return Plan((height, width, depth), int(reduction), order, (int(inp), int(wgt), int(acc)))


def _text(plan: Plan) -> str:
    """``4x14x14 by 2 osc 2/2/1``: the tile of the output, blocks of the input, the loops from outside, the buffers."""
    return f"{'x'.join(map(str, plan.tile))} by {plan.reduction} {plan.order} {'/'.join(map(str, plan.buffers))}"


def _annotation(function: Any, key: str) -> str:
    found: list[str] = []

    def visit(block: Any) -> None:
        if key in block.annotations:
            found.append(str(block.annotations[key]))

    structural_walk(function.body, [(tvm.s_tir.SBlock, visit)])
    return found[0] if found else ""
