"""The records that come with nncc fit today's templates, and the kernels that models are lowered to today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compiled import Net, lowered

from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.resources import schedules_folder
from nncc.target import resolve
from nncc.toml import tomllib
from nncc.tuning.exchange import load_function, target_of_key
from nncc.tuning.known import known_from
from nncc.tuning.records import read_folder
from nncc.tuning.tasks import kernel_tasks

FOLDERS = sorted(path for path in (schedules_folder() / "records").glob("*") if path.is_dir())
TEMPLATES = load_templates()


def target_folder(name: str) -> Path:
    return schedules_folder() / "records" / name


def about_of(folder: Path) -> dict:
    """How the records of a folder were made. Of each run ``kernels`` is how many of the model's had a record then."""
    return tomllib.loads((folder / "about.toml").read_text(encoding="utf-8"))


def test_some_records_are_shipped():
    assert {"x86-64-v4-vnni", "x86-64-v3"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_folder_says_how_it_was_made(folder: Path):
    about = about_of(folder)
    assert {"doc", "machine", "nncc", "tvm", "llvm", "date", "runs"} <= set(about)
    for run in about["runs"]:
        assert set(run) == {"machine", "model", "threads", "trials", "seconds", "gain", "kernels"}
    records, _ = read_folder(folder)
    assert set(records.by_machine) == {run["machine"] for run in about["runs"]} >= {about["machine"]}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_shipped_record_is_taken_whole_by_its_template(folder: Path):
    records, problems = read_folder(folder)
    assert not problems
    assert len(records) > 20
    for record in records:
        assert record.accepted and not record.error
        assert record.key.target == folder.name
        if record.task.kind != "kernel":
            continue
        function, _ = load_function(records.workloads[record.task.hash])
        target = target_of_key(record.key)
        choices = Choices(record.decisions)
        with target.tvm_target():
            schedule_kernel(function, TEMPLATES, target.hardware, choices)
        assert not choices.refused, f"{record.task.text}: {sorted(choices.refused)}"
        # What a template has been able to decide only since then is decided by default.
        assert {name: choices.taken[name] for name in record.decisions} == record.decisions


def resnet18() -> Net:
    """Its layers with random weights, batch norms folded."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 224, 224), 3, 64, (7, 7), strides=[2, 2], pads=[3, 3, 3, 3]))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for out in (64, 128, 256, 512):
        for stride in (1 if out == 64 else 2, 1):
            y = net.op("Relu", net.conv(x, channels, out, (3, 3), strides=[stride] * 2, pads=[1, 1, 1, 1]))
            y = net.conv(y, out, out, (3, 3), pads=[1, 1, 1, 1])
            if channels != out:
                x = net.conv(x, channels, out, (1, 1), strides=[stride] * 2)
            x, channels = net.op("Relu", net.op("Add", y, x)), out
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.output(net.op("Gemm", x, net.weight(1000, 512), net.weight(1000), transB=1))
    return net


@pytest.mark.parametrize(
    ("name", "run"),
    [
        pytest.param(folder.name, run, id=f"{folder.name} on {run['machine']}")
        for folder in FOLDERS
        for run in about_of(folder)["runs"]
        if run["model"] == "resnet18"
    ],
)
def test_resnet18_finds_the_shipped_records(tmp_path, monkeypatch, name, run):
    """A change of lowering that loses them is to tune again, or to say why not."""
    monkeypatch.setattr("nncc.tuning.known._typical", lambda folder: run["machine"])
    target = resolve(name)
    target = replace(target, hardware=replace(target.hardware, cores=run["threads"]))
    known = known_from([], True, target)
    tasks = kernel_tasks(lowered(resnet18(), tmp_path, name, run["threads"], shipped=True), TEMPLATES)
    found = sum(known(task.hash)[0] is not None for task in tasks)
    assert found >= run["kernels"] > 0, f"of {len(tasks)} kernels {found} have a shipped record"


def test_a_target_by_name_takes_the_records_of_one_processor():
    """Gains on several cannot be compared."""
    folder = target_folder("x86-64-v4-vnni")
    (_, records), *_ = known_from([], True, resolve(folder.name)).sources
    assert set(records.by_machine) == {about_of(folder)["machine"]}
