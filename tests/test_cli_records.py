"""`nncc records`: what it prints, as text and as JSON, and what it says of damage and of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_records import KEY, OTHER, TEXT, failed, made

from nncc.cli import cli
from nncc.tuning.records import RecordSet, add_to_folder, read_folder

A = RecordSet([made(), made(tile=8, median=5e-4), failed(tile=9), made(key=OTHER), made("ffffffff", accepted=False)])
B = RecordSet([made(tile=16, median=4e-4), made(key=OTHER)])


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_to_folder(A, "a")
    add_to_folder(B, "b")

    def call(*words, status=0):
        result = CliRunner().invoke(cli, ["records", *words])
        assert result.exit_code == status, result.stdout + result.stderr
        return result

    return call


def test_stats(call):
    assert call("stats", "a", "b").stdout == (
        "tasks      2\n"
        "records    6\n"
        "accepted   4\n"
        "failed     1\n"
        "workloads  0\n"
        "\n"
        "target     threads   vector  measured on    tasks  faster\n"
        "x86-64-v3        2  256 bit  AMD EPYC 9254      1  1.50 x\n"
        "x86-64-v4        2  512 bit  AMD EPYC 9254      1  3.75 x\n"
        "\n"
        "faster: geometric mean of the tasks' best, over the default loops\n"
    )
    facts = json.loads(call("stats", "a", "--json").stdout)
    assert (facts["records"], round(facts["keys"][1]["speedup"], 9)) == (5, 3)


def test_query(call):
    text = call("query", "a", "--task", "0123", "--target", KEY.target).stdout
    assert text == (
        f"01234567  x86-64-v4-2t  {TEXT}\n"
        "   500 us  3.00 x  accepted  2026-11-25  tile=8\n"
        "  1.00 ms  1.50 x  accepted  2026-11-25  tile=4\n"
        "                   failed    2026-11-25  it computes something else\n"
        "\n"
        "3 records\n"
    )
    facts = json.loads(call("query", "a", "--best", "--json").stdout)
    assert [(each["key"]["target"], each["decisions"]) for each in facts] == [
        ("x86-64-v3", {"tile": 4}),
        ("x86-64-v4", {"tile": 8}),
    ]
    assert call("query", "a", "--target", "rpi4").stdout == "0 records\n"


def test_diff(call):
    assert call("diff", "a", "b").stdout == (
        "task      target        measured on         A       B  better  what\n"
        "01234567  x86-64-v4-2t  AMD EPYC 9254  3.00 x  3.75 x  B       "
        "conv2d 1x4x56x56x16, 4x4x1x1x16x16 -> 1x4x5...\n"
        "\n"
        "A is better for 0, B for 1, both are equal for 1\n"
    )
    facts = json.loads(call("diff", "a", "b", "--json").stdout)
    assert [round(each["ratio_b"], 3) for each in facts] == [0.667, 0.267]


def test_merge(call):
    assert call("merge", "a", "b", "-o", "c").stdout == "6 records added to c\n"
    assert read_folder("c") == (A | B, [])
    assert json.loads(call("merge", "a", "-o", "c", "--json").stdout) == {"added": 0, "folder": "c"}


def test_prune(call):
    assert call("prune", "a").stdout == "3 records dropped, 2 kept in a\n"
    assert set(read_folder("a")[0]) == {made(tile=8, median=5e-4), made(key=OTHER)}
    assert json.loads(call("prune", "b", "--keep", "2", "--json").stdout) == {"before": 2, "after": 2, "folder": "b"}


def test_push_and_pull(call):
    assert call("push", "a", "team").stdout == "5 records added to team\n"
    assert call("push", "b", "team").stdout == "1 record added to team\n"
    facts = json.loads(call("push", "b", "team", "--json").stdout)
    assert facts == {"added": 0, "files": [], "url": "team"}
    assert call("pull", "team", "mine").stdout == "6 records added to mine\n"
    assert read_folder("mine") == (A | B, [])


def test_damaged_lines_are_warnings(call):
    Path("a", "x.jsonl").write_text("noise\n" * 12)
    result = call("stats", "a")
    assert result.stdout.startswith("tasks      2\nrecords    5\n")
    lines = [f"warning: a/x.jsonl:{line}: it is not JSON\n" for line in range(1, 11)]
    assert result.stderr == "".join(lines) + "warning: 2 more lines cannot be read\n"
    Path("a", "x.jsonl").write_text("noise\n" * 11)
    assert call("merge", "a", "-o", "c").stderr.endswith("warning: 1 more line cannot be read\n")


def test_what_comes_from_others_does_not_reach_the_terminal_as_it_is(call):
    add_to_folder(RecordSet([made(tile="\x1b[2J"), made(machine="\x1b[2J")]), "evil")
    for command in ("query", "stats"):
        assert "\x1b" not in call(command, "evil").stdout


def test_a_folder_that_is_missing(call):
    assert call("prune", "none", status=1).stderr == (
        "error: there is no folder `none` of tuning records\n\nhint: give the folder that `nncc tune` wrote\n"
    )


def test_an_unknown_command(call):
    assert call("stat", "a", status=2).stderr == (
        "error: nncc records has no command `stat`\n\nhint: did you mean `nncc records stats`?\n"
    )


def test_without_words_help_is_an_error(call):
    result = call(status=2)
    assert result.stdout == ""
    assert result.stderr == call("--help").stdout
    assert "...\n" not in result.stderr.partition("Commands:")[2]
