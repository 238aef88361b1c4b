"""Streams of layers give what the layers are, for any plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streams_in_numpy import compute
from vta_layers import arguments, small_layers, small_plans

from nncc.vta.golden import golden
from nncc.vta.lower_layer import lower_layer
from nncc.vta.machine import Machine

MACHINES = {"nv1": Machine("nv1"), "vta0": Machine("vta0"), "nv1 small": Machine("nv1", 8, 4, 16, 8, 8, 8)}


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
