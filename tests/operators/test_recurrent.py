"""LSTM, GRU and RNN against ONNX Runtime: every attribute, operand and activation; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import ROUNDING, Net, agrees, compile_net

from nncc.errors import ModelError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}

TOLERANCE = 4 * ROUNDING
"""Seven steps each round; the states stay within 1, where weights are small."""


def layer(
    kind: str,
    *,
    steps: int = 7,
    batch: int = 3,
    inputs: int = 5,
    hidden: int = 6,
    direction: str = "forward",
    weights: str = "constant",
    lengths: bool = False,
    states: bool = True,
    bias: bool = True,
    peepholes: bool = False,
    **attributes: Any,
) -> Net:
    """A net of one recurrent layer with all its outputs."""
    net = Net()
    directions, gates = 1 + (direction == "bidirectional"), GATES[kind] * hidden
    batch_first = attributes.get("layout", 0)

    def known(*shape: int) -> str:
        return net.weight(*shape, scale=0.3) if weights == "constant" else net.input(*shape)

    def by_batch(first: int, *rest: int) -> str:
        return net.input(batch, first, *rest) if batch_first else net.input(first, batch, *rest)

    operands = [by_batch(steps, inputs), known(directions, gates, inputs), known(directions, gates, hidden)]
    operands.append(known(directions, 2 * gates) if bias else "")
    operands.append(net.input(batch, dtype=np.int32, name="lengths") if lengths else "")
    operands += [by_batch(directions, hidden) if states else "" for _ in range(STATES[kind])]
    operands += [known(directions, 3 * hidden)] if peepholes else []
    while not operands[-1]:
        operands.pop()
    outputs = 1 + STATES[kind]
    net.output(
        *net.op(kind, *operands, outputs=outputs, hidden_size=hidden, direction=direction, **attributes)  # type: ignore
    )
    return net


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_sequences_of_other_lengths_stop_where_they_end(kind: str, direction: str, tmp_path: Path) -> None:
    lengths = np.array([7, 1, 3, 0, 6], np.int32)
    net = layer(kind, batch=5, hidden=33, direction=direction, lengths=True)
    agrees(net, tmp_path, inputs={"lengths": lengths}, tolerance=TOLERANCE)


@pytest.mark.parametrize("kind", GATES)
def test_weights_may_be_known_at_run_time_only(kind: str, tmp_path: Path) -> None:
    agrees(layer(kind, weights="given", direction="bidirectional"), tmp_path, tolerance=2e-4)  # weights of size 1


@pytest.mark.parametrize("kind", GATES)
def test_one_sequence_alone_takes_blocks_of_several_vectors(kind: str, tmp_path: Path) -> None:
    agrees(layer(kind, batch=1, hidden=72), tmp_path, tolerance=TOLERANCE)


@pytest.mark.parametrize("kind", GATES)
def test_without_bias_and_states_they_are_zero(kind: str, tmp_path: Path) -> None:
    agrees(layer(kind, bias=False, states=False), tmp_path, tolerance=TOLERANCE)


@pytest.mark.parametrize("kind", GATES)
def test_what_the_activations_are_given_is_clipped(kind: str, tmp_path: Path) -> None:
    agrees(layer(kind, clip=0.3), tmp_path, tolerance=TOLERANCE)


def test_peepholes_and_coupled_gates(tmp_path: Path) -> None:
    agrees(layer("LSTM", peepholes=True, direction="bidirectional"), tmp_path / "p", tolerance=TOLERANCE)
    agrees(layer("LSTM", peepholes=True, input_forget=1, clip=0.2), tmp_path / "f", tolerance=TOLERANCE)


def test_a_gru_may_reset_after_the_product(tmp_path: Path) -> None:
    net = layer("GRU", linear_before_reset=1, direction="bidirectional", lengths=True, clip=0.4)
    agrees(net, tmp_path, inputs={"lengths": np.array([2, 7, 5], np.int32)}, tolerance=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("Affine", {"activation_alpha": 0.6, "activation_beta": 0.3}),
        ("Elu", {"activation_alpha": 0.6}),
        ("HardSigmoid", {}),
        ("LeakyRelu", {"activation_alpha": 0.3}),
        ("Relu", {}),
        ("ScaledTanh", {"activation_alpha": 0.6, "activation_beta": 0.3}),
        ("Sigmoid", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("Tanh", {}),
        ("ThresholdedRelu", {"activation_alpha": 0.2}),
    ],
)
def test_every_activation(name: str, numbers: dict[str, float], tmp_path: Path) -> None:
    given = {key: [value] for key, value in numbers.items()}
    agrees(layer("RNN", activations=[name], **given), tmp_path, tolerance=TOLERANCE)


def test_alpha_goes_to_the_activations_that_take_one(tmp_path: Path) -> None:
    net = layer("LSTM", activations=["HardSigmoid", "Elu", "Tanh"], activation_alpha=[0.3, 0.7], activation_beta=[0.4])
    agrees(net, tmp_path, tolerance=TOLERANCE)


def test_two_threads_take_directions_and_parts_of_the_batch(tmp_path: Path) -> None:
    net = layer("LSTM", batch=9, hidden=64, direction="bidirectional")
    compiled = agrees(net, tmp_path, tolerance=TOLERANCE, threads=2)
    assert any("parallel" in line for line in compiled.kernels.module.script().splitlines())


def test_a_step_that_is_long_enough_spreads_its_units_over_two_threads(tmp_path: Path) -> None:
    compiled = agrees(layer("GRU", batch=1, hidden=416, inputs=3, steps=2), tmp_path, tolerance=TOLERANCE, threads=2)
    parallel = [line for line in compiled.kernels.module.script().splitlines() if "T.parallel" in line]
    assert len(parallel) == 2  # the phases of a step, and the batch is one


@pytest.mark.parametrize("kind", GATES)
def test_batches_that_are_no_whole_tiles_have_smaller_ones_at_their_ends(kind: str, tmp_path: Path) -> None:
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    agrees(layer(kind, batch=29, hidden=40, steps=3, **attributes), tmp_path, tolerance=TOLERANCE)


def test_lengths_beyond_the_sequence_read_nothing_outside(tmp_path: Path) -> None:
    compiled = compile_net(layer("LSTM", direction="reverse", lengths=True), tmp_path)
    inputs = compiled.sample()
    inside = compiled.run(inputs | {"lengths": np.array([7, 0, 7], np.int32)})
    beyond = compiled.run(inputs | {"lengths": np.array([2**31 - 1, -(2**31), 8], np.int32)})
    assert all(np.array_equal(inside[name], beyond[name]) for name in inside)


def refusal(net: Net, folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        compile_net(net, folder)
    return f"{caught.value.message}\nhint: {caught.value.hint}"


def test_an_activation_without_agreed_default_is_refused(tmp_path: Path) -> None:
    assert refusal(layer("RNN", activations=["ThresholdedRelu"]), tmp_path) == (
        "RNN has the activation `thresholdedrelu` without its alpha, for which there is no default that is agreed on\n"
        "hint: export the model again with `activation_alpha` and `activation_beta`"
    )


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    assert refusal(layer("RNN", activations=["Swish"]), tmp_path) == (
        "RNN has the activation `swish`\nhint: ONNX knows affine, elu, hardsigmoid, leakyrelu, relu, scaledtanh, "
        "sigmoid, softplus, softsign, tanh, thresholdedrelu"
    )


def test_a_wrong_number_of_activations_is_refused(tmp_path: Path) -> None:
    assert refusal(layer("LSTM", activations=["Tanh"]), tmp_path) == (
        "LSTM has 1 activations, not 3\nhint: export the model again: it cannot be run"
    )
