"""Records hold where they were measured: another processor's are a hint to tune, never a hit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_records import KEY, OTHER, TASK, made

from nncc.host import host
from nncc.ir import Decision
from nncc.reports.decisions import decisions_text
from nncc.target import resolve
from nncc.tuning.known import known_from
from nncc.tuning.records import Key, RecordSet, add_to_folder

NATIVE = resolve("native")


@pytest.fixture
def folder(tmp_path):
    def write(*records):
        add_to_folder(RecordSet(records), tmp_path / "team")
        return str(tmp_path / "team")

    return write


def test_for_this_machine_only_its_own_processor_counts(folder):
    ours = made(key=Key.of(NATIVE), machine=host().processor)
    place = folder(ours, made(key=Key.of(NATIVE), tile=9, median=1e-9, machine="another"))
    assert known_from([place], False, NATIVE)(TASK)[0] == ours.decisions


def test_another_processor_s_record_is_no_hit_and_is_told(folder):
    place = folder(made(key=Key.of(NATIVE), machine="another"))
    known = known_from([place], False, NATIVE)
    assert known(TASK) == (None, "default")
    assert known.elsewhere([TASK]) == {TASK: f"another, {Key.of(NATIVE).file_name}"}
    text = decisions_text([Decision(TASK, "kernel", "conv2d", {"tile": 1}, "default")], known.elsewhere([TASK]), True)
    name = Key.of(NATIVE).file_name
    assert text.splitlines()[-1] == (
        f"warning: 1 kernel without a record for this processor, but with one of `another, {name}`, "
        "which was not used; `nncc tune` starts from it"
    )


def test_for_a_target_that_has_a_name_every_machine_of_it_counts(folder):
    target = replace(resolve("x86-64-v4"), name="x86-64-v4")
    place = folder(made(key=Key.of(target), machine="some processor"))
    decisions, source = known_from([place], False, target)(TASK)
    assert decisions == made().decisions
    assert source.startswith(f"record in {place}, ")


def test_the_first_place_that_knows_a_task_is_asked(tmp_path):
    target = resolve("x86-64-v4")
    for name, tile in (("a", 3), ("b", 4)):
        add_to_folder(RecordSet([made(key=Key.of(target), tile=tile)]), tmp_path / name)
    places = [str(tmp_path / name) for name in "ba"]
    assert known_from(places, False, target)(TASK)[0] == {"tile": 4}


def test_other_threads_and_other_code_are_other_records(folder):
    assert known_from([folder(made(key=KEY), made(key=OTHER))], False, resolve("arm64"))(TASK)[0] is None
