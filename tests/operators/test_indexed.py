"""Gathers and scatters by random indices, negative ones among them; what is outside is neither read nor written."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net
from random_nets import agrees_on

from nncc.errors import ModelError


def indices(net: Net, random: np.random.Generator, size: int, shape: list[int], unique: bool = False) -> str:
    """Constant indices into an axis; without repetitions along the last axis if `unique`."""
    if unique:
        flat = np.stack([random.permutation(size)[: shape[-1]] for _ in range(int(np.prod(shape[:-1])))])
    else:
        flat = random.integers(0, size, shape)
    found = flat.reshape(shape)
    return net.constant(np.where(random.random(shape) < 0.4, found - size, found), np.int64)


def gather_elements(net: Net, random: np.random.Generator) -> str:
    rank = int(random.integers(1, 4))
    shape, axis = random.integers(2, 5, rank).tolist(), int(random.integers(rank))
    picked = [int(random.integers(1, 6)) if d == axis else int(random.integers(1, n + 1)) for d, n in enumerate(shape)]
    return net.op("GatherElements", net.input(*shape), indices(net, random, shape[axis], picked), axis=axis - rank)


def gather_nd(net: Net, random: np.random.Generator) -> str:
    batch, depth = int(random.integers(0, 3)), int(random.integers(1, 3))
    shape = random.integers(2, 4, batch + depth + int(random.integers(0, 2))).tolist()
    picked = [*shape[:batch], int(random.integers(1, 4)), depth]
    return net.op("GatherND", net.input(*shape), indices(net, random, 2, picked), batch_dims=batch)


def scatter_elements(net: Net, random: np.random.Generator) -> str:
    shape = random.integers(2, 5, 2).tolist()
    reduction = str(random.choice(["none", "add", "mul", "min", "max"]))
    picked = [int(random.integers(1, n + 1)) for n in shape]
    at = indices(net, random, shape[1], picked, unique=reduction == "none")
    return net.op("ScatterElements", net.input(*shape), at, net.input(*picked), axis=-1, reduction=reduction)


def scatter_nd(net: Net, random: np.random.Generator) -> str:
    shape = random.integers(2, 5, 3).tolist()
    depth, reduction = int(random.integers(1, 4)), str(random.choice(["none", "add", "mul", "min", "max"]))
    count = 1 if reduction == "none" else 4
    updates = net.input(count, *shape[depth:])
    return net.op("ScatterND", net.input(*shape), indices(net, random, 2, [count, depth]), updates, reduction=reduction)


@pytest.mark.parametrize("draw", [gather_elements, gather_nd, scatter_elements, scatter_nd])
def test_random_forms(tmp_path, draw):
    agrees_on(draw, 8, 18, tmp_path)


def test_indices_outside_neither_read_nor_write_what_is_not_the_tensors(tmp_path):
    net = Net(opset=18)
    x, far, updates = net.input(4), net.input(3, dtype=np.int64), net.input(3)
    pairs = net.op("Unsqueeze", far, net.ints(1))
    net.output(net.op("GatherElements", x, far), net.op("GatherND", x, pairs))
    net.output(net.op("ScatterElements", x, far, updates), net.op("ScatterND", x, pairs, updates))
    inputs = {
        x: np.arange(4, dtype=np.float32),
        far: np.array([10**12, -(10**12), -1]),
        updates: np.ones(3, np.float32),
    }
    elements, nd, scattered, scattered_nd = compile_net(net, tmp_path).run(inputs).values()
    assert elements.tolist() == nd.tolist() == [3, 0, 3]
    assert scattered.tolist() == scattered_nd.tolist() == [0, 1, 2, 1]


def test_updates_of_one_place_are_taken_in_their_order(tmp_path):
    net = Net(opset=18)
    updates = net.input(4)
    net.output(net.op("ScatterElements", net.input(2), net.ints(1, 0, 1, 0), updates))
    net.output(net.op("ScatterND", net.input(2), net.constant([[1], [0], [1], [0]], np.int64), updates))
    agrees(net, tmp_path)


def test_truth_values_are_not_added(tmp_path):
    net = Net(opset=18)
    x = net.input(4, dtype=np.bool_)
    net.output(net.op("ScatterElements", x, net.ints(1), net.input(1, dtype=np.bool_), reduction="add"))
    with pytest.raises(ModelError) as caught:
        compile_net(net, tmp_path)
    assert str(caught.value) == (
        "the operator `ScatterElements` is used in a form that cannot be compiled: "
        "its reduction `add` of bool is none that can be compiled"
    )


@pytest.mark.parametrize("opset", [11, 24])
def test_greatest_and_smallest_of_every_type(tmp_path, opset):
    net = Net(opset=opset)
    for dtype in (np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8 if opset > 11 else np.int8):
        x = net.input(3, 7, dtype=dtype)
        for options in ({"largest": 0}, {"axis": 0, "sorted": 1}):
            net.output(*net.op("TopK", x, net.ints(2), outputs=2, **options))
    agrees(net, tmp_path)


def test_more_elements_than_there_are_cannot_be_taken(tmp_path):
    net = Net(opset=11)
    values, _ = net.op("TopK", net.input(3), net.ints(3), outputs=2)
    net.output(net.op("Identity", values))
    model = net.model()
    model.graph.initializer[0].raw_data = np.int64(5).tobytes()
    del model.graph.value_info[:]
    with pytest.raises(ModelError) as caught:
        compile_net(model, tmp_path)
    assert str(caught.value) == (
        "the operator `TopK` is used in a form that cannot be compiled: it takes 5 elements of an axis of 3"
    )


def test_sequences_are_reversed_up_to_their_length(tmp_path):
    net = Net(opset=17)
    x, lengths = net.input(5, 3, 2), net.input(3, dtype=np.int64)
    net.output(net.op("ReverseSequence", x, lengths, batch_axis=1, time_axis=0))
    agrees(net, tmp_path, inputs={lengths: np.array([5, 1, 3])})


@pytest.mark.parametrize(("opset", "kind"), [(17, "CumSum"), (26, "CumProd")])
def test_prefixes(tmp_path, opset, kind):
    net = Net(opset=opset)
    x, n = net.input(3, 4, 5), net.input(3, 4, dtype=np.int64)
    expected = []
    apply = np.cumsum if kind == "CumSum" else np.cumprod
    for reverse in (0, 1):
        for exclusive in (0, 1):
            for value, axis in ((x, 1), (n, -1)):
                at = net.constant(axis, np.int64)
                net.output(net.op(kind, value, at, reverse=reverse, exclusive=exclusive))
                expected.append((value, axis, reverse, exclusive))
    compiled = compile_net(net, tmp_path)
    inputs = compiled.sample()
    found = compiled.run(inputs)
    for name, (value, axis, reverse, exclusive) in zip(net.outputs, expected, strict=True):
        a = np.flip(inputs[value], axis) if reverse else inputs[value]
        if exclusive:
            first = np.full_like(np.take(a, [0], axis), 0 if kind == "CumSum" else 1)
            a = np.concatenate([first, np.take(a, range(a.shape[axis] - 1), axis)], axis)
        total = apply(a, axis)
        np.testing.assert_allclose(found[name], np.flip(total, axis) if reverse else total, rtol=1e-5, atol=1e-6)
