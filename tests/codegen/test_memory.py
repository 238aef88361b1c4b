"""The arena: buffers alive together never overlap, and no plan of TVM's is smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Net
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.codegen.flatten import _allocated, walk_of
from nncc.codegen.memory import Lifetime, plan
from nncc.codegen.place import pending_calls, place
from nncc.config import Config
from nncc.ir import Lowered, align
from nncc.pipeline import plan as job_of
from nncc.pipeline import run

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def lower_bound(buffers: list[Lifetime]) -> int:
    """The most bytes alive during one call: no plan needs less."""
    calls = range(max((b.last for b in buffers), default=-1) + 1)
    return max((sum(align(b.nbytes) for b in buffers if b.first <= c <= b.last) for c in calls), default=0)


@st.composite
def lifetimes(draw) -> list[Lifetime]:
    size = st.one_of(st.integers(0, 5), st.sampled_from([63, 64, 65, 4096]), st.integers(1, 100_000))
    spans = st.tuples(size, st.integers(0, 20), st.integers(0, 20))
    return [Lifetime(n, min(a, b), max(a, b)) for n, a, b in draw(st.lists(spans, max_size=24))]


@given(lifetimes())
def test_buffers_alive_together_do_not_overlap(buffers):
    offsets, arena = plan(buffers)
    assert len(offsets) == len(buffers)
    for i, (a, at) in enumerate(zip(buffers, offsets, strict=True)):
        assert at % 64 == 0 and at >= 0 and at + a.nbytes <= arena
        for b, other in zip(buffers[:i], offsets[:i], strict=True):
            apart = at + a.nbytes <= other or other + b.nbytes <= at
            assert apart or not a.overlaps(b) or 0 in (a.nbytes, b.nbytes)


@given(lifetimes())
def test_the_arena_is_between_the_bound_and_no_sharing_at_all(buffers):
    arena = plan(buffers)[1]
    assert lower_bound(buffers) <= arena <= sum(align(b.nbytes) for b in buffers)


@given(lifetimes())
@settings(max_examples=30)
def test_equal_buffers_give_equal_plans(buffers):
    assert plan(buffers) == plan(list(buffers))


@given(st.lists(st.integers(6_250, 100_000), min_size=1, max_size=30))
def test_a_chain_needs_no_more_than_its_two_largest_neighbours(sizes):
    """Each buffer is written by one call and read by the next: two places, used in turn, hold a chain of like sizes."""
    buffers = [Lifetime(n, i, i + 1) for i, n in enumerate(sizes)]
    evens, odds = (max((align(n) for n in sizes[start::2]), default=0) for start in (0, 1))
    assert plan(buffers)[1] <= evens + odds


def test_nothing_needs_nothing():
    assert plan([]) == ([], 0) and lower_bound([]) == 0


def cell_network(path: Path) -> Path:
    """Residuals, concatenations and branches of unlike sizes, as in detectors."""
    net = Net()
    x, channels = net.conv(net.input(1, 3, 64, 48), 3, 16, (3, 3), strides=[2, 2], pads=[1] * 4), 16
    kept = []
    for out in (24, 40, 72):
        y = net.op("Relu", net.conv(x, channels, out, (3, 3), strides=[2, 2], pads=[1] * 4))
        z = net.op("Sigmoid", net.conv(y, out, out, (1, 1)))
        y = net.op("Add", y, net.conv(net.op("Mul", y, z), out, out, (3, 3), pads=[1] * 4))
        x, channels = net.op("Concat", y, net.op("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4), axis=1), 2 * out
        kept.append((x, channels))
    x, channels = kept.pop()
    while kept:
        other, more = kept.pop()
        x = net.op("Resize", x, "", net.constant([1, 1, 2, 2], np.float32), mode="nearest")
        x, channels = net.op("Concat", x, other, axis=1), channels + more
        x = net.conv(x, channels, 32, (1, 1))
        channels = 32
        net.output(x)
    return net.save(path)


def without_workspaces(path: Path) -> tuple[int, int]:
    """Bytes of our arena and of all storages of TVM's StaticPlanBlockMemory, for the same calls."""
    from nncc.compat import relax, tvm

    kernels = run(job_of(path, Config(target="x86-64-v3", until="lower", verify=False)))
    module = _allocated(kernels)
    with tvm.transform.PassContext(opt_level=3):
        planned = relax.transform.StaticPlanBlockMemory()(module)
    theirs = sum(
        int(binding.value.args[0].values[0])
        for block in planned["main"].body.blocks
        for binding in block.bindings
        if getattr(getattr(binding.value, "op", None), "name", "") == "relax.memory.alloc_storage"
    )
    walk = walk_of(kernels, 1)
    none = {call.kernel: 0 for call in pending_calls(walk.steps)}
    lowered = Lowered(module, none, none)
    return place(kernels, walk.memory, walk.steps, walk.results, lowered).arena_bytes, theirs


@pytest.mark.parametrize("name", ["cells", "light_squeezenet", "light_shufflenet", "light_inception_v1"])
def test_no_worse_than_static_plan_block_memory(tmp_path, name):
    path = cell_network(tmp_path / "cells.onnx") if name == "cells" else LIGHT / f"{name}.onnx"
    ours, theirs = without_workspaces(path)
    assert 0 < ours <= theirs
