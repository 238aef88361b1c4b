"""Einsum, Det, DFT, STFT and MelWeightMatrix: sums over axes."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net
from random_nets import agrees_on

from nncc.errors import ModelError

LABELS = "abcdeAB"


def equation(net: Net, random: np.random.Generator) -> str:
    """An Einsum with repeated axes, an ellipsis, or a result that is left out, each now and then."""
    sizes = {label: int(random.integers(1, 5)) for label in LABELS}
    dotted = [int(n) for n in random.integers(1, 4, 2)] if random.random() < 0.3 else []
    terms, operands, seen = [], [], ""
    for _ in range(int(random.choice([1, 2, 2, 3]))):
        term = "".join(random.choice(list(LABELS), int(random.integers(1, 4)), replace=random.random() < 0.25))
        shape, seen = [sizes[label] for label in term], seen + term
        if dotted:
            under = [n if random.random() < 0.7 else 1 for n in dotted[int(random.integers(3)) :]]
            at = int(random.integers(len(term) + 1))
            shape, term = [*shape[:at], *under, *shape[at:]], f"{term[:at]}...{term[at:]}"
        terms.append(term)
        operands.append(net.input(*shape))
    text = ",".join(terms)
    if random.random() < 0.8:
        kept = [label for label in random.permutation(sorted(set(seen))) if random.random() < 0.6]
        text += f" -> {'...' if dotted else ''}{''.join(kept)}"
    return net.op("Einsum", *operands, equation=text)


def determinant(net: Net, random: np.random.Generator) -> str:
    n = int(random.integers(1, 6))
    return net.op("Det", net.input(*random.integers(1, 3, int(random.integers(3))).tolist(), n, n))


def test_random_equations(tmp_path):
    agrees_on(equation, 20, 17, tmp_path)


def test_random_determinants(tmp_path):
    agrees_on(determinant, 5, 17, tmp_path)


def test_a_matrix_that_has_no_inverse_has_the_determinant_zero(tmp_path):
    net = Net(opset=17)
    x = net.input(2, 3, 3)
    net.output(net.op("Det", x))
    singular = np.array([[[0, 0, 0], [1, 2, 3], [4, 5, 6]], [[0, 1, 0], [1, 0, 0], [0, 0, 2]]], np.float32)
    assert compile_net(net, tmp_path).run({x: singular})[net.outputs[0]].tolist() == [0, -2]


# Lengths of one product, of splits, a prime one, and one of them within a split.
@pytest.mark.parametrize("length", [1, 7, 128, 240, 257, 514])
def test_transforms_of_every_kind(tmp_path, length):
    net, forms = Net(opset=20), []
    for parts in (1, 2):
        for inverse, onesided in ((0, 0), (1, 0), (0, 1), (1, 1)):
            if (onesided and parts == 2 and not inverse) or (onesided and inverse and (parts == 1 or length == 1)):
                continue
            x = net.input(2, length // 2 + 1 if inverse and onesided else length, 3, parts)
            given = net.constant(length, np.int64), net.constant(1, np.int64)
            net.output(net.op("DFT", x, *given, inverse=inverse, onesided=onesided))
            forms.append((x, inverse, onesided))
    compiled = compile_net(net, tmp_path)
    inputs = compiled.sample()
    found = compiled.run(inputs)
    for name, (x, inverse, onesided) in zip(net.outputs, forms, strict=True):
        numbers = inputs[x].astype(np.float64) @ np.array([1, 1j][: inputs[x].shape[-1]])
        if inverse and onesided:
            expected = np.fft.irfft(numbers, length, axis=1)[..., None]
        else:
            made = (np.fft.ifft if inverse else np.fft.fft)(numbers, length, axis=1)
            made = made[:, : length // 2 + 1] if onesided else made
            expected = np.stack([made.real, made.imag], -1)
        # A sum of n terms in float32 is off by about sqrt(n) eps of the root of their mean square, and n <= 514.
        error = np.abs(found[name] - expected).max() / np.sqrt(np.mean(expected**2))
        assert found[name].shape == expected.shape and error < 2e-5, (name, error)


def test_a_transform_cuts_and_fills_its_axis(tmp_path):
    for opset, axis in ((17, {"axis": 1}), (20, {})):
        net = Net(opset=opset)
        x = net.input(1, 6, 2)
        for length in (4, 9):
            given = [net.constant(length, np.int64)] + ([net.constant(-2, np.int64)] if opset == 20 else [])
            net.output(net.op("DFT", x, *given, **axis))
        compiled = compile_net(net, tmp_path / str(opset))
        inputs = compiled.sample()
        for name, length in zip(net.outputs, (4, 9), strict=True):
            expected = np.fft.fft(inputs[x] @ np.array([1, 1j]), length, axis=1)
            found = compiled.run(inputs)[name] @ np.array([1, 1j])
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_frames_of_a_signal(tmp_path):
    net = Net(opset=17)
    signal = net.input(2, 50, 1)
    step, length = net.constant(7, np.int64), net.constant(16, np.int64)
    window = net.constant(np.hanning(16), np.float32)
    net.output(net.op("STFT", signal, step, window, length), net.op("STFT", signal, step, window, onesided=0))
    net.output(net.op("STFT", signal, step, "", length))
    agrees(net, tmp_path)


def test_mel_filters(tmp_path):
    net = Net(opset=17)
    numbers = (net.constant(8, np.int64), net.constant(64, np.int64), net.constant(8192, np.int64))
    filters = net.op("MelWeightMatrix", *numbers, net.constant(0, np.float32), net.constant(4096, np.float32))
    net.output(net.op("MatMul", net.input(2, 33), filters))
    agrees(net, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ij,jk", "its equation `ij,jk` is for 2 operands, not 1"),
        ("ijk->i", "`ijk` in its equation `ijk->i` does not fit an operand of 2 axes"),
        ("ij->ii", "the result of its equation `ij->ii` has an axis twice, or one that no operand has"),
    ],
)
def test_equations_that_do_not_fit(text, message):
    from nncc.operators.einsum import parse

    with pytest.raises(ModelError) as caught:
        parse(text, [2])
    assert str(caught.value) == message
