"""From a layer and a plan to its operations."""

from __future__ import annotations

from math import ceil, prod

from nncc.errors import InternalError
from nncc.vta.channelwise import add, depthwise, max_pool
from nncc.vta.conv2d import conv2d
from nncc.vta.footprint import plan_footprint
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.plan import plans, refusal
from nncc.vta.stream import Plan, Stream

__all__ = ["LOWER", "argument_bytes", "lower_layer"]

LOWER = {"conv2d": conv2d, "depthwise": depthwise, "max_pool": max_pool, "add": add}
"""What makes the operations of each kind of layer: of the layer, a plan and a machine."""


def lower_layer(layer: Layer, plan: Plan | None, machine: Machine) -> Stream:
    """The stream of a layer by a plan, or by the best one.

    Raises InternalError if the machine cannot compute it so, TargetError if it cannot at all.
    """
    if plan is None:
        plan = plans(layer, machine)[0]
    elif reason := refusal(layer, plan, machine):
        raise InternalError(f"accelerator: {plan} does not do for {layer.to_json()}: {reason}")
    operations = tuple(LOWER[layer.kind](layer, plan, machine))
    used = {name: count for name, count in plan_footprint(layer, plan, machine).scratchpads.items() if count}
    return Stream(layer, operations, argument_bytes(layer, machine), used)


def argument_bytes(layer: Layer, machine: Machine) -> tuple[int, ...]:
    """The sizes of a layer's arguments, in the order of `Layer`.

    Without requantization in the machine, params are biases, int32 [blocks, block], an add has none, and the weights
    of a convolution with a residual have the identity as one more element at their end.
    """
    own, block = machine.has("requantize"), machine.block
    data, result = prod(layer.input) * block, prod(layer.output) * block
    taps, blocks = prod(layer.kernel), layer.output[0]
    weights, params = [], []
    if layer.kind == "conv2d":
        weights = [(blocks * layer.input[0] * taps + (bool(layer.residual) and not own)) * block * block]
    elif layer.kind == "depthwise":
        weights = [blocks * ceil(taps / block) * block * block]
    if weights:
        params = [(blocks + bool(layer.residual)) * 8 * block if own else blocks * 4 * block]
    elif layer.kind == "add" and own:
        params = [8 * block]
    other = [result] if layer.residual or layer.kind == "add" else []
    return (data, *weights, *params, *other, result)
