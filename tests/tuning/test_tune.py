"""`nncc tune` from end to end: what it finds is kept, used by others, and never lost."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from compiled import Net

import nncc
from nncc.cli import cli
from nncc.config import Config, Tuning
from nncc.errors import OutputError, RunError, UsageError
from nncc.tuning.outcome import Watcher
from nncc.tuning.records import read_folder
from nncc.tuning.tune import tune


def save_net(folder: Path) -> Path:
    """Two convolutions and a matrix product, which are three tasks."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 32, 14, 14, name="x"), 32, 64, (1, 1)))
    x = net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 64, 32, (1, 1))))
    net.output(net.op("MatMul", net.op("Flatten", x), net.weight(32, 40)))
    net.save(folder / "net.onnx")
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model, the folder of its records, and what the command printed."""
    folder = tmp_path_factory.mktemp("tune")
    model = save_net(folder)
    words = ["tune", str(model), "--threads", "1", "--trials", "24", "--records", str(folder / "team"), "--by", "me"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return model, folder / "team", result


def test_trials_are_kept_with_all_that_makes_them_valid(tuned):
    _, team, result = tuned
    records, problems = read_folder(team)
    assert not problems
    kernels = [record for record in records if record.task.kind == "kernel"]
    assert len({record.choice for record in kernels if not record.accepted and not record.error}) >= 20
    for record in kernels:
        assert record.key.threads == 1
        assert (record.by, record.versions.nncc) == ("me", nncc.__version__)
        assert record.machine
        assert record.task.hash in records.workloads
        assert record.error or (record.seconds[1] <= record.seconds[0] <= record.seconds[2] and record.reference > 0)
    assert "24 trials, 0 failed" in result.stdout
    assert f"records in {team}" in result.stdout


def test_a_second_user_gets_the_same_bytes_with_no_trial(tuned, tmp_path):
    model, team, _ = tuned
    first, second = (
        nncc.compile(model, output=tmp_path / user, threads=1, records=[team], verify=False) for user in ("a", "b")
    )
    assert first.library.read_bytes() == second.library.read_bytes()


def test_tuning_again_goes_on_where_it_stopped(tuned):
    model, team, _ = tuned
    told = []

    class Watch(Watcher):
        def state(self, state):
            told.append([contest.trials for contest in state.contests])

    tune(model, Config(threads=1, shipped_records=False), Tuning(into=team, trials=8, graph=False), Watch())
    assert sum(told[0]) >= 20, "what was measured before is known"
    records = [r for r in read_folder(team)[0] if r.task.kind == "kernel" and not r.accepted and not r.error]
    measured = [(r.task.hash, r.choice) for r in records]
    assert len(measured) == len(set(measured)) > 24, "nothing is measured twice"


def test_the_tasks_are_listed_with_their_shares(tuned):
    model, team, _ = tuned
    words = ["tune", str(model), "--threads", "1", "--tasks", "list", "--records", str(team), "--json"]
    result = CliRunner().invoke(cli, words)
    tasks = json.loads(result.stdout)
    assert len(tasks) == 3
    assert 0.3 < sum(task["share"] for task in tasks) <= 1.0
    assert sum(task["trials"] for task in tasks) >= 24
    text = CliRunner().invoke(cli, words[:-1]).stdout
    assert "share" in text and "in kernels without a choice" in text


def test_only_the_tasks_that_are_named_are_tuned(tmp_path):
    model = save_net(tmp_path)
    found = tune(
        model, Config(threads=1), Tuning(into=tmp_path / "r", trials=4, tasks="matmul", graph=False), Watcher()
    )
    assert [contest.task.text.split()[0] for contest in found.state.contests] == ["matmul"]
    with pytest.raises(UsageError) as error:
        tune(model, Config(threads=1), Tuning(into=tmp_path / "r", trials=4, tasks="lstm", graph=False), Watcher())
    assert str(error.value) == "no task of the model has `lstm` in its text or hash"
    assert error.value.hint == "`--tasks list` shows them"


def test_it_ends_where_everything_has_been_tried(tmp_path):
    """A matrix product with one tile: a handful of points, twice over, without a limit of time."""
    net = Net()
    net.output(net.op("MatMul", net.input(1, 8, name="x"), net.weight(8, 16)))
    net.save(tmp_path / "net.onnx")
    for _ in range(2):
        tuning = Tuning(into=tmp_path / "r", trials=10_000)
        found = tune(tmp_path / "net.onnx", Config(threads=1), tuning, Watcher())
        assert found.state.trials < 200
        assert not found.interrupted
    assert found.state.trials == 0, "nothing is left for the second run"


def test_where_no_time_is_left_for_a_search_it_says_so(tmp_path):
    net, said = Net(), []
    net.output(net.op("MatMul", net.input(1, 8, name="x"), net.weight(8, 16)))
    net.save(tmp_path / "net.onnx")

    class Watch(Watcher):
        def warn(self, what):
            said.append(what)

    tuning = Tuning(into=tmp_path / "r", seconds=0.1, graph=False)
    found = tune(tmp_path / "net.onnx", Config(threads=1), tuning, Watch())
    assert found.state.trials == 0
    assert len(said) == 1 and re.fullmatch(
        r"no time for a search: the finals take \d+ s, for a library of the model takes \d+ s to build; give more with "
        r"`--time-budget`",
        said[0],
    )


def test_ctrl_c_keeps_what_was_found_and_says_how_to_go_on(tmp_path):
    model = save_net(tmp_path)

    class Interrupt(Watcher):
        def state(self, state):
            if state.trials:
                raise KeyboardInterrupt

    found = tune(model, Config(threads=1), Tuning(into=tmp_path / "r", trials=64, graph=False), Interrupt())
    assert found.interrupted
    assert found.final is None
    assert len(read_folder(tmp_path / "r")[0]) >= found.state.trials > 0


def test_under_an_emulator_the_flow_runs_and_nothing_is_recorded(tmp_path):
    from nncc.emulation import emulator
    from nncc.errors import NnccError
    from nncc.target import resolve

    try:
        emulator(resolve("arm64"))
    except NnccError as error:
        pytest.skip(str(error))
    model = save_net(tmp_path)
    words = ["tune", str(model), "--target", "arm64", "--runner", "qemu", "--trials", "6", "--no-graph"]
    result = CliRunner().invoke(cli, [*words, "--threads", "1", "--records", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    assert "no records: times under an emulator say nothing" in result.stdout
    assert not (tmp_path / "r").exists()


def start(model: Path, records: Path) -> subprocess.Popen:
    words = ["tune", str(model), "--threads", "1", "--time-budget", "60s", "--no-graph", "--records", str(records)]
    program = f"from nncc.cli import cli; cli({words!r})"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_an_interrupt_from_the_keyboard_ends_it_with_what_it_has(tmp_path):
    model, records = save_net(tmp_path), tmp_path / "r"
    words = ["tune", str(model), "--threads", "1", "--time-budget", "120s", "--no-graph", "--records", str(records)]
    program = f"from nncc.cli import cli; cli({words!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    # The first line is what the kernel is, those that follow are its trials.
    while not any(file.read_bytes().count(b"\n") > 1 for file in records.glob("*.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "interrupted: what was found is kept; run the same command to go on, which tries it in the whole" in text
    assert len(read_folder(records)[0]) > 0


def kills(tmp_path: Path, count: int) -> None:
    """Kill `count` tunings at random moments: what a whole line says stays, and the next one goes on."""
    model, records = save_net(tmp_path), tmp_path / "r"
    moments = random.Random(7)
    kept: set[str] = set()
    for _ in range(count):
        process = start(model, records)
        while not kept and not any(file.stat().st_size for file in records.glob("*.jsonl")) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moments.uniform(0.0, 6.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found, problems = read_folder(records, must_exist=False)
        assert len(problems) <= 1, "at most the line in flight"
        lines = {record.to_line() for record in found}
        assert kept <= lines
        kept = lines
    assert kept


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_killed_at_two_moments_it_loses_nothing(tmp_path):
    kills(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_killed_at_twenty_moments_it_loses_nothing(tmp_path):
    kills(tmp_path, 20)


def test_records_that_cannot_be_written_are_an_error_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    model = save_net(tmp_path)
    with pytest.raises(OutputError):
        tune(model, Config(threads=1), Tuning(into=tmp_path / "file" / "r", trials=1), Watcher())


def test_a_tracker_that_is_not_there_is_one_clear_error(tmp_path):
    model = save_net(tmp_path)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9"):
        tune(
            model, Config(threads=1), Tuning(into=tmp_path / "r", runner="rpc://127.0.0.1:9/rpi4", trials=1), Watcher()
        )


def test_the_words_of_the_command_are_checked(tmp_path):
    model = save_net(tmp_path)
    call = CliRunner().invoke(cli, ["tune", str(model), "--time-budget", "soon"])
    assert call.exit_code == 2
    assert "`--time-budget soon` is no time" in call.stderr
    call = CliRunner().invoke(cli, ["tune", str(model), "--records", "s3://bucket/team"])
    assert call.exit_code == 2
    assert "`--records s3://bucket/team`: the first place is written to, and has to be a folder" in call.stderr
