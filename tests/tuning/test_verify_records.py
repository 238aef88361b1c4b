"""Winners are measured again: what is no faster any more, or wrong, is refused in the same folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from compiled import Net, lowered
from made_records import made

from nncc.cli import cli
from nncc.host import host
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.target import resolve
from nncc.tuning.exchange import save_function
from nncc.tuning.record import Workload
from nncc.tuning.records import Key, RecordSet, add_to_folder, read_folder
from nncc.tuning.tasks import kernel_tasks

TARGET = resolve("native,cores=1")


@pytest.fixture
def folder(tmp_path):
    """A winner that is none: a tile of one row and one vector, said to be twice as fast."""
    net = Net()
    x = net.input(1, 64, 28, 28)
    net.output(net.conv(x, 64, 64, (1, 1)))
    (task, *_) = kernel_tasks(lowered(net, tmp_path / "net"), load_templates())
    choices = Choices({"tile": [1, 1]})
    if [1, 1] not in task.options["tile"]:
        choices = Choices({"tile": task.options["tile"][-1], "unroll": 1})
    with TARGET.tvm_target():
        schedule_kernel(task.function, load_templates(), TARGET.hardware, choices)
    record = made(
        task.hash,
        Key.of(TARGET),
        decisions=choices.taken,
        seconds=(1e-4, 1e-4, 1e-4),
        reference=2e-4,
        machine=host().processor,
        date="2020-01-01T00:00:00Z",
    )
    stored = Workload.of(task.hash, save_function(task.function, sorted(task.constants)))
    add_to_folder(RecordSet([record], [stored]), tmp_path / "team")
    return tmp_path / "team"


def verify(folder):
    words = ["records", "verify", str(folder), "--target", "native", "--threads", "1"]
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_winner_that_is_slower_is_refused_and_one_that_holds_stays(folder):
    from nncc.tuning.measure import Timing
    from nncc.tuning.verify_records import Verdict

    (verdict,) = verify(folder)
    assert verdict["was"] == 0.5
    assert verdict["holds"] == (verdict["ratio"] < 1.0)
    found, _ = read_folder(folder)
    (task,) = found.tasks
    assert (found.best(task, Key.of(TARGET)) is None) == (not verdict["holds"])
    (record,) = [r for r in found if r.accepted]
    assert Verdict(record, 0.9).holds and not Verdict(record, 1.0).holds and Verdict(record, None).holds
    assert not Verdict(record, 0.9, "it is wrong by 1").holds
    assert Timing(1, 1, 1, 1, 1, 1).width == 0


def test_a_winner_whose_numbers_are_wrong_is_refused(folder, monkeypatch):
    from nncc.tuning import lab

    monkeypatch.setattr(lab, "wrong_by", lambda expected, found: "it is wrong by 1" if np.size(found) else "")
    (verdict,) = verify(folder)
    assert (verdict["holds"], verdict["error"]) == (False, "it is wrong by 1")
    result = CliRunner().invoke(cli, ["records", "verify", str(folder), "--threads", "1"])
    assert result.exit_code == 1
    assert f"`{folder}` holds no winners for `" in result.stderr
