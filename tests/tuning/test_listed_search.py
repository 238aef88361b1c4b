"""Kernels for GPUs are searched in the order of what their template predicts, and around what was fast."""

from __future__ import annotations

import pytest
from compiled import Net, lowered

from nncc.kernels.templates import load_templates
from nncc.target import resolve
from nncc.tuning.listed_search import ListedSearch
from nncc.tuning.search import frozen
from nncc.tuning.tasks import kernel_tasks

TEMPLATES = load_templates()
TARGET = resolve("cuda-sm80")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    net = Net()
    net.output(net.op("MatMul", net.input(24, 48), net.weight(48, 40)))
    return kernel_tasks(lowered(net, tmp_path_factory.mktemp("net"), "cuda-sm80"), TEMPLATES)[0]


def search(task, seed=0):
    return ListedSearch(task, TEMPLATES, TARGET, seed)


def test_the_whole_space_is_proposed_each_point_once_and_the_default_never(task):
    found, seen = search(task), []
    default = {name: options[0] for name, options in task.options.items()}
    with TARGET.tvm_target():
        while not found.exhausted:
            proposed = found.propose(16)
            seen += proposed
            found.learn((each, 1e-5) for each in proposed)
    assert len(set(map(frozen, seen))) == len(seen)
    assert frozen(default) not in map(frozen, seen)
    tiles = {tuple(each["tile"]) for each in seen} | {tuple(default["tile"])}
    assert tiles == set(map(tuple, task.options["tile"]))


def test_first_comes_what_is_predicted_to_be_fast(task):
    with TARGET.tvm_target():
        proposed = search(task).propose(3)
    ranks = [task.options["tile"].index(each["tile"]) for each in proposed]
    assert max(ranks) <= 2


def test_neighbours_of_the_best_come_in_turn(task):
    found = search(task)
    with TARGET.tvm_target():
        first = found.propose(8)
        best = max(first, key=lambda each: task.options["tile"].index(each["tile"]))
        found.learn((each, 1e-6 if each is best else 1e-5) for each in first)
        proposed = found.propose(6)
    near = [each for each in proposed if sum(each[name] != best[name] for name in best) == 1]
    assert len(near) >= 3


def test_failures_are_no_neighbours_and_never_come_again(task):
    found = search(task)
    with TARGET.tvm_target():
        first = found.propose(4)
        found.learn((each, float("inf")) for each in first)
        assert not set(map(frozen, first)) & set(map(frozen, found.propose(16)))


def test_the_same_seed_proposes_the_same(task):
    def rounds(seed):
        found = search(task, seed)
        with TARGET.tvm_target():
            for _ in range(2):
                found.learn((each, 1e-6 * sum(each["tile"])) for each in found.propose(6))
            return found.propose(6)

    assert rounds(3) == rounds(3)


def test_answers_of_others_are_fitted(task):
    with TARGET.tvm_target():
        fitted = search(task).fitted({"tile": [1, 2, 3], "parts": 1})
    assert fitted == {"tile": task.options["tile"][0], "parts": 1}
