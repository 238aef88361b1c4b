"""ONNX's conformance cases end as `expectations.txt` says: none is worse, and what is better is reported."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
from conformance_cases import cases, chunks, sample
from conformance_runs import Verdict, expectations, run_cases

from nncc.emulation import emulator
from nncc.errors import NnccError
from nncc.target import resolve

CHUNKS = 10
"""Tests that all cases but the large models are shared among."""
BY_DEFAULT = 5
"""Of these, what runs by default; the others are `slow`. A case is in one with every tenth case behind it."""
SAMPLE = 8
"""Of the node cases of each operator, every eighth is run for Arm too: 338."""
_SMALL = ("node", "simple", "pytorch-converted", "pytorch-operator")
_LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def _judge(found: Sequence[Verdict]) -> None:
    expected = expectations()
    worse, better = [], []
    for each in found:
        was = expected.get(each.name, Verdict(each.name, "passed")).verdict
        if each.verdict not in ("passed", was):
            worse.append(f"{each.name}: {each.verdict}, was {was}: {each.text}")
        elif each.verdict != was:
            better.append(each.name)
    if better:
        warnings.warn(f"better than expected: {', '.join(better)}; conformance_table.py --write notes it", stacklevel=2)
    assert not worse, "\n".join(worse)


def test_the_sample_for_arm_has_every_operator():
    names = sample(SAMPLE)
    assert len(names) >= 200
    assert {cases()[name].operator for name in names} == {c.operator for c in cases().values() if c.kind == "node"}


def test_expectations_name_cases_that_exist_and_give_reasons():
    for name, expected in expectations().items():
        assert name in cases()
        assert expected.verdict in ("refused", "wrong", "failed", "crash", "hang")
        assert expected.text


@pytest.mark.parametrize(
    "part", [part if part < BY_DEFAULT else pytest.param(part, marks=pytest.mark.slow) for part in range(CHUNKS)]
)
def test_cases_end_as_expected(part):
    _judge(list(run_cases(chunks(CHUNKS, _SMALL)[part])))


@pytest.mark.slow
@pytest.mark.parametrize("name", _LIGHT)
def test_models_with_weights_of_one_value_end_as_expected(name):
    _judge(list(run_cases([f"test_{name}"])))


@pytest.mark.slow
@pytest.mark.arm64
@pytest.mark.parametrize("part", range(6))
def test_a_sample_ends_for_arm64_as_it_does_here(part):
    try:
        emulator(resolve("arm64"))
    except NnccError as error:
        pytest.skip(str(error))
    names = sample(SAMPLE)
    _judge(list(run_cases(names[part::6], "arm64")))
