"""The search proposes what a template can do, nothing twice, and comes to what is fast sooner than chance."""

import random

import pytest
from compiled import Net, lowered

from nncc.kernels.choices import Choices
from nncc.kernels.templates import load_templates
from nncc.target import resolve
from nncc.tuning.search import CostModel, Search, answers_of, frozen
from nncc.tuning.tasks import kernel_tasks

TEMPLATES = load_templates()
TARGET = resolve("x86-64-v3,num-cores=1")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    net = Net()
    x = net.input(1, 64, 28, 28)
    net.output(net.op("Relu", net.conv(x, 64, 64, (1, 1))))
    return kernel_tasks(lowered(net, tmp_path_factory.mktemp("net"), "x86-64-v3"), TEMPLATES)[0]


def search(task, seed=0):
    return Search(task, TEMPLATES, TARGET, CostModel(seed, 1), seed)


def cost(decisions):
    """A made-up time with one best tile and a penalty for another order."""
    columns, vectors = decisions["tile"]
    return (
        1e-3 * (1 + abs(columns - 3) + 2 * abs(vectors - 4)) * (1.5 if decisions["order"] != "weights outside" else 1)
    )


def test_proposals_are_decisions_of_the_template_and_never_come_twice(task):
    found = search(task)
    seen = set()
    with TARGET.tvm_target():
        for _ in range(4):
            proposed = found.propose(8)
            assert len(proposed) == 8
            for decisions in proposed:
                choices = Choices(decisions)
                sch, taken = found.schedule(decisions)
                del choices
                assert taken == decisions
                assert answers_of(sch.trace) == decisions
            keys = set(map(frozen, proposed))
            assert len(keys) == 8 and not keys & seen
            seen |= keys
            found.learn((decisions, cost(decisions)) for decisions in proposed)


def test_the_same_seed_proposes_the_same(task):
    with TARGET.tvm_target():
        proposals = [search(task, seed).propose(8) for seed in (3, 3, 4)]
    assert proposals[0] == proposals[1] != proposals[2]


def test_what_failed_is_learned_and_not_proposed_again(task):
    found = search(task)
    with TARGET.tvm_target():
        first = found.propose(4)
        found.learn((decisions, float("inf")) for decisions in first)
        again = found.propose(8)
    assert not set(map(frozen, first)) & set(map(frozen, again))


def test_earlier_times_are_learned_before_the_search_begins(task):
    found = search(task)
    default = {name: options[0] for name, options in task.options.items()}
    with TARGET.tvm_target():
        found.learn([(default, 1e-3)])
        assert frozen(default) not in set(map(frozen, found.propose(16)))


def test_answers_of_another_kernel_are_taken_as_far_as_they_fit(task):
    with TARGET.tvm_target():
        fitted = search(task).fitted({"tile": [999, 1], "unroll": 2, "strip": 7})
    assert fitted == {name: options[0] for name, options in task.options.items()} | {"unroll": 2}


def test_it_finds_a_better_point_than_chance_does_in_as_many_trials(task):
    found = search(task)
    with TARGET.tvm_target():
        for _ in range(5):
            proposed = found.propose(8)
            found.learn((decisions, cost(decisions)) for decisions in proposed)
        best = min(found.seconds.values())
        rng = random.Random(0)
        chance = []
        for _ in range(20):
            points = []
            for _ in range(40):
                point = {name: rng.choice(options) for name, options in task.options.items()}
                points.append(cost(found.schedule(point)[1]))
            chance.append(min(points))
    assert best <= sorted(chance)[len(chance) // 2]
