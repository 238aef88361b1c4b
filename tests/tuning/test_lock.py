"""A lock holds every decision and the machine they were made for: another machine gets the same bytes, or an error."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from compiled import Net
from made_records import made

import nncc
from nncc.errors import OutputError, RecordError, TargetError, UsageError
from nncc.target import resolve
from nncc.tuning import lock as locks
from nncc.tuning.records import Key, RecordSet, add_to_folder
from nncc.tuning.tasks import kernel_tasks


def save_net(folder, channels=64):
    folder.mkdir(parents=True, exist_ok=True)
    net = Net()
    x = net.input(1, 32, 14, 14, name="x")
    net.output(net.op("Relu", net.conv(x, 32, channels, (1, 1))))
    net.save(folder / "net.onnx")
    return folder / "net.onnx"


@pytest.fixture
def model(tmp_path):
    return save_net(tmp_path)


@pytest.fixture
def team(model, tmp_path):
    """A folder with one record: a tile that no default has."""
    from nncc.config import Config
    from nncc.kernels.templates import load_templates
    from nncc.pipeline import plan, run

    job = plan(model, Config(target="x86-64-v3", threads=1, until="lower", verify=False))
    (task,) = kernel_tasks(run(job), load_templates())
    tile = task.options["tile"][3]
    decisions = {"tile": tile}  # all else by default
    times = {"seconds": (1e-4, 1e-4, 1e-4), "reference": 2e-4}
    add_to_folder(RecordSet([made(task.hash, Key.of(job.target), decisions=decisions, **times)]), tmp_path / "team")
    return tmp_path / "team"


def tuned_kernels(artifact):
    return [text for text in artifact.description["schedules"].values() if text.startswith("conv2d")]


def compiled(model, output, **options):
    return nncc.compile(model, "x86-64-v3", output, threads=1, verify=False, **options)


def test_a_lock_gives_the_same_bytes_without_the_records(model, team, tmp_path):
    lock = tmp_path / "net.lock"
    tuned = compiled(model, tmp_path / "a", records=[team], lock=lock)
    plain = compiled(model, tmp_path / "b")
    again = compiled(model, tmp_path / "c", lock=lock)
    assert tuned.library.read_bytes() == again.library.read_bytes() != plain.library.read_bytes()
    (schedule,) = tuned_kernels(tuned)
    assert schedule.endswith(f"(record in {team}, 2.00x)")
    (schedule,) = tuned_kernels(again)
    assert schedule.endswith(f"(lock {lock})")


def test_a_lock_of_native_gives_the_same_bytes_on_a_machine_with_other_cores_and_caches(model, tmp_path, monkeypatch):
    lock = tmp_path / "net.lock"
    first = nncc.compile(model, "native", tmp_path / "a", verify=False, lock=lock)
    here = resolve("native")
    other = replace(here, hardware=replace(here.hardware, cores=64, l2_kib=128), tvm=here.tvm | {"num-cores": 64})
    monkeypatch.setattr(locks, "resolve", lambda text: other)
    second = nncc.compile(model, "native", tmp_path / "b", verify=False, lock=lock)
    assert first.library.read_bytes() == second.library.read_bytes()


def test_a_lock_that_does_not_know_a_kernel_is_an_error(model, tmp_path):
    lock = tmp_path / "net.lock"
    compiled(model, tmp_path / "a", lock=lock)
    other = save_net(tmp_path / "other", channels=48)
    with pytest.raises(RecordError) as error:
        compiled(other, tmp_path / "b", lock=lock)
    assert str(error.value).startswith(
        f"the lock `{lock}` does not fit the model; it has no decisions for\n  1x32x14x14*48x32x1x1"
    )
    assert error.value.hint == "remove the file to write a new one"


def test_a_lock_for_another_target_another_nncc_or_other_threads_is_an_error(model, tmp_path):
    lock = tmp_path / "net.lock"
    compiled(model, tmp_path / "a", lock=lock)
    with pytest.raises(TargetError) as error:
        nncc.compile(model, "arm64", tmp_path / "b", verify=False, lock=lock)
    assert str(error.value) == f"the lock `{lock}` is for the target `x86-64-v3`, not for `arm64`"
    assert error.value.hint == "`--target x86-64-v3`"
    with pytest.raises(UsageError) as error:
        nncc.compile(model, "x86-64-v3", tmp_path / "b", threads=4, verify=False, lock=lock)
    assert str(error.value) == f"the lock `{lock}` is for 1 threads, not for 4"
    text = lock.read_text()
    lock.write_text(text.replace(f'"nncc": "{nncc.__version__}"', '"nncc": "9.9"'))
    with pytest.raises(RecordError) as error:
        compiled(model, tmp_path / "b", lock=lock)
    assert str(error.value) == (
        f"the lock `{lock}` was written by nncc 9.9, this is {nncc.__version__}: other bytes would come of it"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"lock": 1, "nncc": "0", "target": 3, "decisions": []}', "\x00"])
def test_what_is_no_lock_is_an_error(model, tmp_path, text):
    lock = tmp_path / "net.lock"
    lock.write_text(text)
    with pytest.raises(RecordError, match=r"^`.*net\.lock` is no lock of this nncc: ") as error:
        compiled(model, tmp_path / "a", lock=lock)
    assert error.value.hint == "remove the file to write a new one"


def test_a_lock_that_cannot_be_written_is_an_error(model, tmp_path):
    with pytest.raises(OutputError, match=r"^cannot write the lock `.*`: No such file or directory$"):
        compiled(model, tmp_path / "a", lock=tmp_path / "nowhere" / "net.lock")


def test_a_lock_is_text_that_people_can_read(model, tmp_path):
    lock = tmp_path / "net.lock"
    compiled(model, tmp_path / "a", lock=lock)
    found = json.loads(lock.read_text())
    assert found["target"]["name"] == "x86-64-v3"
    assert [each["kind"] for each in found["decisions"]].count("kernel") == 1
    assert all(set(each) == {"task", "kind", "text", "taken"} for each in found["decisions"])


@pytest.mark.parametrize(
    ("hardware", "reason"),
    [
        ({"cores": "many"}, '`cores` is "many"'),
        ({"cores": 0}, "its hardware has no cores or no registers"),
        ({"l2_kib": -1}, "`l2_kib` is -1"),
        ({"warp": 32}, "`warp` is no fact of hardware"),
    ],
)
def test_a_lock_of_hardware_that_cannot_be_is_an_error(model, tmp_path, hardware, reason):
    lock = tmp_path / "net.lock"
    compiled(model, tmp_path / "a", lock=lock)
    found = json.loads(lock.read_text())
    found["target"]["hardware"] |= hardware
    lock.write_text(json.dumps(found))
    with pytest.raises(RecordError) as error:
        compiled(model, tmp_path / "b", lock=lock)
    assert str(error.value) == f"`{lock}` is no lock of this nncc: {reason}"


def test_a_lock_whose_decisions_are_not_the_templates_is_an_error(model, tmp_path):
    lock = tmp_path / "net.lock"
    compiled(model, tmp_path / "a", lock=lock)
    found = json.loads(lock.read_text())
    for each in found["decisions"]:
        each["taken"].pop("tile", None)
    lock.write_text(json.dumps(found))
    with pytest.raises(RecordError, match=r"does not fit the model; it has no decisions for\n  conv2d add relu "):
        compiled(model, tmp_path / "b", lock=lock)
