"""Plans are refused with a reason, and their cost is what the simulator counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vta_layers import conv, resnet18

from nncc.errors import InternalError, TargetError
from nncc.vta.layer import Layer
from nncc.vta.lower_layer import lower_layer
from nncc.vta.machine import Machine
from nncc.vta.plan import estimate, plans, refusal
from nncc.vta.stream import Plan

NV1, VTA0 = Machine("nv1"), Machine("vta0")
SMALL = Layer("conv2d", (2, 8, 8), (2, 8, 8), (3, 3), (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("layer", "plan", "machine", "reason"),
    [
        (SMALL, Plan((1, 8, 8), 1, "cso"), NV1, "2 tiles of sums are begun at once, and 1 have a place"),
        (conv(64, 64, 56), Plan((4, 56, 56)), NV1, "6728 elements do not fit INP, which has 2048"),
        (conv(512, 512, 7), Plan((32, 1, 7), 8, "osc", (1, 1, 1)), NV1, "2304 elements do not fit WGT, which has 1024"),
        (
            Layer("conv2d", (1, 28, 28), (1, 28, 28), (3, 3), (1, 1), (18, 18, 18, 18), (18, 18)),
            Plan((1, 28, 28)),
            NV1,
            "a tile has 18 rows of padding on one side, and a LOAD at most 15",
        ),
        (
            Layer("conv2d", (1, 2, 2), (1, 4, 4), (1, 1), (1, 1), (1, 1, 1, 1)),
            Plan((1, 1, 4)),
            NV1,
            "a tile sees nothing but padding in its rows",
        ),
        (
            Layer("add", (1, 2, 70000), (1, 2, 70000), residual="first"),
            Plan((1, 1, 64)),
            NV1,
            "rows are 70000 elements apart, and those of a LOAD or STORE at most 65535",
        ),
        (
            Layer("conv2d", (70000, 1, 1), (2, 1, 1)),
            Plan((2, 1, 1)),
            NV1,
            "filters are 70000 elements apart, and those of a LOAD or STORE at most 65535",
        ),
        (SMALL, Plan((1, 0, 8)), NV1, "a tile has 0 rows of 8"),
        (SMALL, Plan((1, 8, 8), 3), NV1, "a tile has 3 inputs of 2"),
        (Layer("add", (2, 2, 2), (2, 2, 2)), Plan((1, 2, 2), 2), NV1, "a tile has 2 inputs of 1"),
        (SMALL, Plan((1, 8, 8), 1, "oss"), NV1, "`oss` is no order of the loops o, s and c"),
        (SMALL, Plan((1, 8, 8), 1, "osc", (2, 0, 2)), NV1, "a memory has 0 tiles"),
        (replace(SMALL, shift=3), Plan((1, 8, 8)), NV1, "this machine knows no shift, which is 3"),
        (replace(SMALL, zero=3), Plan((1, 8, 8)), VTA0, "this machine knows no zero, which is 3"),
        (
            Layer("add", (1, 2, 2), (1, 2, 2), relu=True),
            Plan((1, 2, 2)),
            NV1,
            "this machine knows no relu, which is True",
        ),
        (replace(SMALL, pad_value=-3), Plan((1, 8, 8)), VTA0, "padding is 0 on this machine, not -3"),
        (
            Layer("depthwise", (1, 2, 2), (1, 2, 2)),
            Plan((1, 2, 2)),
            VTA0,
            "this machine has no multiply-accumulate by lanes",
        ),
        (
            Layer("max_pool", (1, 20, 20), (1, 1, 1), (20, 20)),
            Plan((1, 1, 1)),
            Machine("nv1", uop_kib=1),
            "a list of micro-operations does not fit UOP, which has 256",
        ),
    ],
)
def test_a_plan_is_refused_with_a_reason(layer: Layer, plan: Plan, machine: Machine, reason: str) -> None:
    if "1 have" in reason:
        plan = replace(plan, buffers=(2, 2, 1))
    assert refusal(layer, plan, machine) == reason
    with pytest.raises(InternalError) as caught:
        lower_layer(layer, plan, machine)
    assert str(caught.value) == f"accelerator: {plan} does not do for {layer.to_json()}: {reason}"


def test_a_layer_without_a_plan_is_refused() -> None:
    layer = Layer("conv2d", (1, 28, 28), (1, 28, 28), (3, 3), (1, 1), (18, 18, 18, 18), (18, 18))
    with pytest.raises(TargetError) as caught:
        plans(layer, NV1)
    reason = "a tile has 18 rows of padding on one side, and a LOAD at most 15"
    assert str(caught.value) == f"accelerator: no plan for {layer.to_json()}: {reason}"
    wide = Layer("max_pool", (1, 80, 80), (1, 1, 1), (80, 80))
    with pytest.raises(TargetError) as caught:
        plans(wide, NV1)
    assert str(caught.value) == f"accelerator: no plan for {wide.to_json()}: no tile fits its memories"


def test_all_plans_that_are_offered_can_be_lowered_and_the_first_is_among_the_cheapest() -> None:
    for machine in (NV1, VTA0):
        offered = plans(SMALL, machine, 64)
        assert len(offered) == len(set(offered)) == 64
        for plan in offered:
            lower_layer(SMALL, plan, machine)
        costs = [estimate(SMALL, plan, machine) for plan in offered[:16]]
        assert costs[0] < 1.1 * min(costs)


def test_the_matrix_unit_is_the_bound_of_resnet18_by_the_cost() -> None:
    """Each estimate is at most a quarter above the least: iterations of the matrix unit and of the ALU."""
    for node in resnet18():
        layer = node.layer
        vectors = layer.output[0] * layer.output[1] * layer.output[2]
        least = vectors * (layer.input[0] * layer.kernel[0] * layer.kernel[1] + 1 + bool(layer.residual))
        cost = estimate(layer, plans(layer, NV1)[0], NV1)
        assert least < cost < 1.25 * least
