"""Sensitivity as pictures."""

from __future__ import annotations

import importlib.util
import re

import pytest

from nncc.errors import OutputError, ToolError, UsageError
from nncc.reports.sensitivity_plot import check_plot, decibels, plot_groups, plot_layers


def groups(count):
    """What `prune_facts` says of so many groups, of which every second was pruned."""
    loss = [10 ** -(at / 10 + 1) for at in range(count)]
    return {
        "groups": [
            {
                "name": f"conv{at}$",
                "loss": {"0.25": each / 4, "0.5": each / 2, "0.75": each},
                "chosen": {"part": 0.4, "loss": each / 3} if at % 2 else None,
            }
            for at, each in enumerate(loss)
        ]
        + [{"name": "fixed", "loss": {}, "chosen": None}]
    }


def comments(svg):
    """The texts of a picture: matplotlib writes each beside the outlines of its letters."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


def test_decibels():
    assert [decibels(loss) for loss in (1.0, 0.01, 0.0)] == [0.0, -20.0, -100.0]


def test_each_group_has_a_panel_with_its_curve(tmp_path):
    pytest.importorskip("matplotlib")
    plot_groups(groups(3), tmp_path / "a.svg")
    texts = comments(tmp_path / "a.svg")
    assert {"conv0$", "conv1$", "conv2$", "removed, %", "error, dB"} <= set(texts)
    assert "Error of the outputs, one group pruned alone; rings: what was chosen" in texts
    assert "fixed" not in texts


def test_of_many_groups_the_worst_twelve_have_panels(tmp_path):
    pytest.importorskip("matplotlib")
    plot_groups(groups(40), tmp_path / "a.svg")
    texts = comments(tmp_path / "a.svg")
    assert [each for each in texts if each.startswith("conv")] == [f"conv{at}$" for at in range(12)]
    assert texts[-1].endswith("rings: what was chosen, the 28 others in grey")


def test_the_bytes_are_the_same_each_time_whatever_people_have_set(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    plot_groups(groups(2), tmp_path / "a.svg")
    plot_layers({"a": 0.1, "b": 0.0}, ["a"], "dB", tmp_path / "c.svg")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5, "svg.fonttype": "none"}):
        plot_groups(groups(2), tmp_path / "b.svg")
        plot_layers({"a": 0.1, "b": 0.0}, ["a"], "dB", tmp_path / "d.svg")
        assert matplotlib.rcParams["font.size"] == 20, "their own settings are as they were"
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.svg").read_bytes() == (tmp_path / "d.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


def test_layers_are_bars_the_worst_first(tmp_path):
    pytest.importorskip("matplotlib")
    plot_layers({f"layer{at}": at / 1000 for at in range(50)}, ["layer49"], "score", tmp_path / "a.svg")
    texts = comments(tmp_path / "a.svg")
    assert [each for each in texts if each.startswith("layer")] == [f"layer{at}" for at in range(49, 9, -1)]
    assert "score that is lost" in texts
    assert "One layer alone in int8; red: stays float; the worst 40 of 50" in texts


def test_a_png_is_one(tmp_path):
    pytest.importorskip("matplotlib")
    plot_groups(groups(1), tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_could_not_be_drawn_is_refused_early(tmp_path, monkeypatch):
    with pytest.raises(UsageError) as usage:
        check_plot(tmp_path / "a.jpg")
    assert (usage.value.message, usage.value.hint) == (
        f"`--plot {tmp_path / 'a.jpg'}` is no kind of picture",
        "name a file `a.svg` or `a.png`",
    )
    with pytest.raises(OutputError) as output:
        check_plot(tmp_path / "no" / "a.svg")
    assert (output.value.message, output.value.hint) == (
        f"cannot write `{tmp_path / 'no' / 'a.svg'}`: there is no folder `{tmp_path / 'no'}`",
        "make it first",
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError) as tool:
        check_plot(tmp_path / "a.svg")
    assert (tool.value.message, tool.value.hint) == (
        "`--plot` draws with matplotlib, which is not installed",
        "`pip install 'nncc[plot]'`",
    )
