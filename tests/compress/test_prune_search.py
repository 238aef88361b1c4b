"""Curves, and where a goal is bought."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from compress_models import Net, analyzed

from nncc.compress.channels import channel_groups
from nncc.compress.cost import costs, nbytes, total
from nncc.compress.cut import chosen, cut
from nncc.compress.goals import terms
from nncc.compress.search import Curve, allocate, counts_after, sensitivity
from nncc.layer_time import LayerTimes
from nncc.target import Hardware


@pytest.fixture
def chain():
    net = Net()
    graph = net.model([net.conv(net.conv(net.conv(net.conv("x", 3, 16), 16, 16, 3, group=16), 16, 32), 32, 2)])
    return graph, analyzed(graph)


def test_a_curve_is_linear_between_points_and_never_gets_cheaper():
    curve = Curve(((0.25, 0.1), (0.5, 0.4), (0.75, 0.4)))
    assert [curve.at(part) for part in (0.0, 0.125, 0.25, 0.5)] == pytest.approx([0, 0.05, 0.1, 0.4])
    assert curve.at(0.75) == pytest.approx(0.7), "the slope of 1.2 holds on"
    assert curve.at(0.85) == pytest.approx(0.7 + 2 * 1.2 * 0.1)


def test_what_is_left_is_what_the_cut_graph_has(chain):
    graph, found = chain
    keep = chosen(found.prunable(), {"conv0": 12, "conv2": 24}, np.arange(found.count), found.count)
    small = cut(graph, found, keep)
    after = analyzed(small)
    everything = np.ones(after.count, bool)
    for each in (lambda g, f: tuple(cost.macs for cost in costs(g, f)), nbytes):
        assert total(each(graph, found), keep) == pytest.approx(total(each(small, after), everything))
    assert sum(cost.macs.amount for cost in costs(graph, found)) == 16 * (3 * 16 + 9 * 16 + 16 * 32 + 32 * 2)
    moved = [sum(part.left(keep) for part in cost.moved) for cost in costs(graph, found)]
    assert moved == pytest.approx([sum(part.amount for part in cost.moved) for cost in costs(small, after)])


def test_the_time_of_what_is_left_is_that_of_the_cut_graph(chain):
    """With a count that is no multiple of a vector's lanes, and a depthwise convolution between."""
    graph, found = chain
    keep = chosen(found.prunable(), {"conv0": 10, "conv2": 24}, np.arange(found.count), found.count)
    small = cut(graph, found, keep)
    after = analyzed(small)
    everything = np.ones(after.count, bool)
    times = LayerTimes(Hardware(peak_gflops=10.0, dram_gbps=2.0))
    left = [cost.seconds(keep, times) for cost in costs(graph, found)]
    assert left == pytest.approx([cost.seconds(everything, times) for cost in costs(small, after)])


def test_the_group_that_loses_least_for_what_it_saves_goes_first(chain):
    graph, found = chain
    analysis = channel_groups(graph, found.shapes)
    parts = terms("sparsity", analysis, LayerTimes(Hardware()), "x")
    whole = sum(part(np.ones(found.count, bool)) for part in parts)
    curves = {"conv0": Curve(((0.5, 9.0),)), "conv2": Curve(((0.5, 0.01),))}
    steps = allocate(found, curves, np.arange(found.count), 4, parts, 0.7 * whole)
    assert set(counts_after(steps)) == {"conv2"}
    assert steps[-1].left <= 0.7 * whole < steps[-2].left
    everything = allocate(found, curves, np.arange(found.count), 4, parts)
    assert counts_after(everything) == {"conv0": 4, "conv2": 4}
    assert everything[: len(steps)] == steps


def test_what_saves_nothing_at_first_is_priced_by_what_it_saves_later(chain):
    """As with an index that takes a quarter of what there was: the first step of each group saves nothing."""
    _, found = chain
    groups = found.prunable()
    stored = [lambda keep, units=g.units: min(1.0, float(keep[units].mean()) + 0.25) for g in groups]
    curves = {groups[0].name: Curve(((0.5, 9.0),)), groups[1].name: Curve(((0.5, 0.01),))}
    steps = allocate(found, curves, np.arange(found.count), 4, stored, 1.8)
    assert {step.group for step in steps} == {groups[1].name}
    assert all(before.left > after.left for before, after in pairwise(steps)), "each saves something"


def test_each_group_is_measured_alone_at_three_counts(chain):
    _, found = chain
    asked = []

    def loss(group, keep):
        asked.append((group.name, int(keep[group.units].sum()), int((~keep).sum())))
        return 1.0 - keep.mean()

    curves = sensitivity(found, np.arange(found.count), 8, loss)
    assert asked == [("conv0", 8, 8), ("conv2", 24, 8), ("conv2", 16, 16), ("conv2", 8, 24)]
    assert [part for part, _ in curves["conv2"].points] == [0.25, 0.5, 0.75]
