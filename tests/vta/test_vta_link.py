"""Linked programs give what their layers give one after the other, in whatever order the tokens allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vta_layers import Node, Placed, arguments, conv, on, placed, resnet18, small_layers, small_plans

from nncc.errors import InternalError, RunError, ToolError
from nncc.vta.golden import golden
from nncc.vta.layer import Layer
from nncc.vta.link import Linked, Located, link
from nncc.vta.lower_layer import lower_layer
from nncc.vta.machine import Machine
from nncc.vta.simulator import build_simulator, open_simulator
from nncc.vta.stream import Plan

MACHINES = {
    "nv1": Machine("nv1"),
    "vta0": Machine("vta0"),
    "nv1 small": Machine("nv1", 8, 4, 16, 8, 1, 1),
}


@pytest.fixture(scope="module")
def simulated() -> None:
    for machine in MACHINES.values():
        try:
            build_simulator(machine)
        except ToolError as error:
            pytest.skip(error.message)


class Case:
    """A network with its arguments, and what each of its values is."""

    def __init__(self, nodes: Sequence[Node], machine: Machine, plans: list[Plan] | None = None) -> None:
        self.nodes, self.machine = nodes, machine
        self.placed: Placed = placed(list(nodes), machine, plans)
        self.linked: Linked = link(self.placed.streams, machine, self.placed.constants)
        self.constants = np.zeros(self.placed.constants + self.linked.uops.nbytes, np.uint8)
        self.constants[self.placed.constants :] = self.linked.uops.view(np.uint8)
        self.values: dict[str, np.ndarray] = {}
        self.inputs: dict[str, np.ndarray] = {}
        for index, (node, located) in enumerate(zip(nodes, self.placed.streams, strict=True)):
            given_ = arguments(node.layer, machine, index)
            given_[0] = self.value(node.data, given_[0])
            if node.other:
                given_[-1] = self.value(node.other, given_[-1])
            constant = given_[1 : len(given_) - bool(node.other)]
            for array, address in zip(constant, located.addresses[1:], strict=False):
                content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                self.constants[address : address + content.size] = content
            self.values[node.result] = golden(node.layer, given_, machine)

    def value(self, name: str, outside: np.ndarray) -> np.ndarray:
        if name not in self.values:
            self.values[name] = self.inputs[name] = outside
        return self.values[name]

    def run(self, options: str, instructions: np.ndarray | None = None) -> np.ndarray:
        """The last value, on a simulator with these options."""
        with open_simulator(self.machine, options) as device:
            constants, arena = device.put(self.constants), device.alloc(self.placed.arena)
            for name, array in self.inputs.items():
                at = self.placed.values[name]
                arena.data[at : at + array.size] = array.reshape(-1).view(np.uint8)
            program = device.put(self.linked.instructions if instructions is None else instructions)
            bases = {
                kind.id: (constants if kind.base == "constants" else arena).address
                for kind in self.machine.description.memories
            }
            device.run(program, bases)
            self.counters = device.counters()
            result = self.values[self.nodes[-1].result]
            at = self.placed.values[self.nodes[-1].result]
            return arena.data[at : at + result.size].view(np.int8).reshape(result.shape).copy()

    def tokens(self) -> list[int]:
        """Of each instruction, the bits that wait for tokens and give some."""
        return [int(word) >> 3 & 15 for word in self.linked.instructions[:, 0]]

    def without(self, index: int, bit: int) -> np.ndarray:
        """The instructions, with one of these bits taken from one of them."""
        broken = self.linked.instructions.copy()
        broken[index, 0] ^= np.uint64(1 << bit + 3)
        return broken

    def agrees(self, options: str) -> None:
        np.testing.assert_array_equal(self.run(options), self.values[self.nodes[-1].result])


@st.composite
def networks(draw: st.DrawFn, machine: Machine) -> tuple[list[Node], list[Plan]]:
    """A few layers, each of the last one's result; sums of what came before."""
    nodes: list[Node] = []
    plans = []
    shapes = {}
    for index in range(draw(st.integers(1, 4))):
        layer = draw(small_layers(machine, nodes[-1].layer.output if nodes else None))
        data = nodes[-1].result if nodes else "x"
        shapes[data] = layer.input
        other = None
        if layer.residual or layer.kind == "add":
            fitting = [name for name, shape in shapes.items() if shape == layer.output]
            other = draw(st.sampled_from([*fitting, f"other{index}"]))
            shapes[other] = layer.output
        nodes.append(Node(layer, data, other, f"y{index}"))
        plans.append(draw(small_plans(layer, machine)))
    return nodes, plans


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_program_gives_its_layers_in_any_order(name: str, data: st.DataObject) -> None:
    machine = MACHINES[name]
    nodes, plans = data.draw(networks(machine))
    case = Case(nodes, machine, plans)
    case.agrees("")
    case.agrees("check=on")
    for seed in data.draw(st.lists(st.integers(1, 999_999), min_size=3, max_size=3)):
        case.agrees(f"seed={seed}")
    tokens = [(index, bit) for index, bits in enumerate(case.tokens()) for bit in range(4) if bits >> bit & 1]
    for index, bit in data.draw(st.lists(st.sampled_from(tokens), max_size=3)):
        with pytest.raises(RunError):
            case.run("check=on", case.without(index, bit))


@pytest.mark.usefixtures("simulated")
def test_every_token_is_needed() -> None:
    """Without one, the program does not end, or it is left to chance what it gives."""
    machine = MACHINES["nv1"]
    nodes = [
        Node(conv(32, 32, 7), "x", None, "a"),
        Node(conv(32, 32, 7, residual="first"), "a", "x", "b"),
        Node(Layer("max_pool", (2, 7, 7), (2, 4, 4), (3, 3), (2, 2), (1, 1, 1, 1), pad_value=-128), "b", None, "c"),
    ]
    plans = [Plan((1, 3, 7), 1, "osc"), Plan((1, 3, 7), 1, "soc"), Plan((1, 3, 4))]
    case = Case(nodes, machine, plans)
    case.agrees("check=on")
    pops = pushes = 0
    for index, bits in enumerate(case.tokens()):
        for bit in range(4):
            if bits >> bit & 1:
                with pytest.raises(RunError):
                    case.run("check=on", case.without(index, bit))
                pops, pushes = pops + (bit < 2), pushes + (bit >= 2)
    assert pops == pushes > 40


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize(
    ("name", "memory", "most"), [("nv1", "pynq", 6_825_000), ("vta0", "ideal", 7_350_000)], ids=["nv1", "vta0"]
)
def test_resnet18_keeps_the_matrix_unit_busy(name: str, memory: str, most: int) -> None:
    """Its blocks have 6,623,232 iterations of the matrix unit; besides, each vector passes through the ALU."""
    machine = replace(MACHINES[name], memory=memory)
    network = placed(on(machine, resnet18()), machine)
    linked = link(network.streams, machine, network.constants)
    with open_simulator(machine, f"memory={memory},arithmetic=off") as device:
        constants = np.concatenate([np.zeros(network.constants, np.uint8), linked.uops.view(np.uint8)])
        bases = {"constants": device.put(constants).address, "arena": device.alloc(network.arena).address}
        kinds = machine.description.memories
        device.run(device.put(linked.instructions), {kind.id: bases[kind.base] for kind in kinds})
        counters = device.counters()
    own = 6_623_232 + (47_040 if name == "vta0" else 0)  # residuals by the identity
    resets = 105_056 if name == "vta0" else 0
    assert counters["gemm_iterations"] == own + resets
    assert counters["cycles"] < most
    ends = [end for _, end in linked.layers]
    assert ends == sorted(ends) and ends[-1] == len(linked.instructions) - 1


def test_addresses_must_fit_what_they_are_counted_in() -> None:
    machine, layer = MACHINES["nv1"], conv(16, 16, 4)
    stream = lower_layer(layer, None, machine)
    with pytest.raises(InternalError) as caught:
        link([Located(stream, (0, 128, 0, 1024))], machine, 4096)
    expected = f"accelerator: argument 1 of {layer.to_json()} lies at 128, not at a multiple of 256"
    assert str(caught.value) == expected
    with pytest.raises(InternalError) as caught:
        link([Located(stream, (0, 256))], machine, 4096)
    assert str(caught.value) == f"accelerator: 2 addresses for 4 arguments of {layer.to_json()}"
