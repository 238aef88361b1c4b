"""Goals as words."""

from __future__ import annotations

import pytest

from nncc.compress.goals import Goal, goal_of, latency, size, sparsity, terms
from nncc.compress.groups import Dependencies
from nncc.compress.parts import Analysis
from nncc.errors import TargetError, UsageError
from nncc.layer_time import LayerTimes
from nncc.target import Hardware


def test_words_are_amounts():
    assert (sparsity("50%"), sparsity("0.4"), sparsity(0.25)) == (0.5, 0.4, 0.25)
    assert (size("2MB"), size("1.5 KiB"), size(700)) == (2e6, 1536, 700)
    assert (latency("8ms"), latency("120us"), latency(0.5)) == (8e-3, pytest.approx(120e-6), 0.5)
    assert goal_of("50%", None, None, None) == Goal("sparsity", 0.5)
    assert goal_of(None, None, None, "1%") is None


def error(call, *given):
    with pytest.raises(UsageError) as caught:
        call(*given)
    return caught.value.message, caught.value.hint


def test_errors_have_their_whole_text():
    assert error(sparsity, "120%") == (
        "`--sparsity 120%` is no part of the model",
        "`50%` removes half of the multiplications; so does `0.5`",
    )
    assert error(size, "2 apples") == (
        "`--size 2 apples` is no size",
        "for example `2MB`, `800KiB` or bytes, `1500000`",
    )
    assert error(latency, "8") == ("`--latency 8` is no time", "for example `8ms`, `0.5s` or `120us`")
    assert error(goal_of, "50%", None, "8ms", None) == (
        "`--sparsity` and `--latency` are two goals",
        "give one of them",
    )
    assert error(goal_of, None, None, None, None) == (
        "nothing says how much to prune",
        "`--sparsity 50%`, `--size 2MB` or `--latency 8ms`; or `--max-drop 1%` for as much as that allows",
    )


def test_a_time_needs_a_target_that_knows_its_peak():
    with pytest.raises(TargetError) as caught:
        terms("latency", Analysis(Dependencies((), (), {}, 0, {}), (), (), ()), LayerTimes(Hardware()), "board")
    assert (caught.value.message, caught.value.hint) == (
        "target `board` does not say what its processor can do, so no time can be predicted",
        "say it: `--target board,peak_gflops=50,dram_gbps=10`; `nncc bench --profile` measures both",
    )
