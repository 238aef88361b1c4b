"""Streams of layers give what the layers are, for any plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streams_in_numpy import compute
from vta_layers import arguments, small_layers, small_plans

from nncc.vta.golden import golden
from nncc.vta.layer import Layer
from nncc.vta.link import Located, link
from nncc.vta.lower_layer import lower_layer
from nncc.vta.machine import Machine
from nncc.vta.plan import plans
from nncc.vta.stream import Plan

MACHINES = {"nv1": Machine("nv1"), "vta0": Machine("vta0"), "nv1 small": Machine("nv1", 8, 4, 16, 8, 1, 1)}


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_stream_gives_its_layer_element_by_element(name: str, data: st.DataObject) -> None:
    machine = MACHINES[name]
    layer = data.draw(small_layers(machine))
    plan = data.draw(small_plans(layer, machine))
    given_ = arguments(layer, machine, 0)
    expected = golden(layer, given_, machine)
    result = compute(lower_layer(layer, plan, machine), given_, machine)
    np.testing.assert_array_equal(result.view(np.int8).reshape(expected.shape), expected)


@pytest.mark.parametrize(
    "layer",
    [
        Layer("conv2d", (3, 1, 5), (21, 1, 5), residual="first", zero=3),
        Layer("depthwise", (21, 4, 5), (21, 4, 5), (3, 3), (1, 1), (1, 1, 1, 1), relu=True),
    ],
    ids=["conv2d", "depthwise"],
)
def test_parameters_of_more_blocks_than_par_holds_come_with_their_tiles(layer: Layer) -> None:
    machine = MACHINES["nv1 small"]
    assert machine.depth("par") == 16
    given_ = arguments(layer, machine, 0)
    expected = golden(layer, given_, machine)
    for plan in plans(layer, machine)[::5]:
        result = compute(lower_layer(layer, plan, machine), given_, machine)
        np.testing.assert_array_equal(result.view(np.int8).reshape(expected.shape), expected)


@pytest.mark.parametrize(
    ("layer", "plan"),
    [
        (Layer("max_pool", (1, 1, 70000), (1, 1, 70000), (1, 3), (1, 1), (0, 1, 0, 1)), Plan((1, 1, 600))),
        (Layer("add", (2, 257, 256), (2, 257, 256), residual="first"), Plan((2, 1, 256))),
    ],
    ids=["rows", "planes"],
)
def test_what_is_far_apart_in_dram_is_found(layer: Layer, plan: Plan) -> None:
    machine = MACHINES["nv1"]
    given_ = arguments(layer, machine, 0)
    expected = golden(layer, given_, machine)
    result = compute(lower_layer(layer, plan, machine), given_, machine)
    np.testing.assert_array_equal(result.view(np.int8).reshape(expected.shape), expected)


def test_one_filter_at_a_time_may_be_longer_than_any_distance() -> None:
    layer, machine = Layer("conv2d", (70000, 1, 1), (2, 1, 1)), MACHINES["nv1"]
    stream = lower_layer(layer, Plan((1, 1, 1), 500, "ocs", (1, 1, 1)), machine)
    assert len(link([Located(stream, (0, 0, 1 << 27, 1 << 21))], machine, 0).instructions) > 140
