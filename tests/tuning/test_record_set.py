"""Sets of tuning records: a union in any order is the same set, with the same best record."""

from __future__ import annotations

import math
import pickle
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import KEY, OTHER, RECORDS, SETS, TASK, failed, made, unhurried

from nncc.tuning.record_files import read_folder
from nncc.tuning.records import RecordSet, Task, Workload
from nncc.tuning.set_operations import diff, prune, query, stats

LATER = "2026-11-26T10:00:00Z"


@unhurried
@given(SETS, SETS, SETS)
def test_merging_is_union(a, b, c):
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a == a | RecordSet()
    assert list(a | b) == list(b | a)
    assert not (a - a)


@unhurried
@given(st.lists(RECORDS, max_size=12), st.randoms())
def test_the_best_does_not_depend_on_the_order(records, chance: random.Random):
    shuffled = chance.sample(records, len(records))
    a, b = RecordSet(records), RecordSet(shuffled[:4]) | RecordSet(shuffled[4:])
    for record in records:
        hash, key = record.task.hash, record.key
        assert a.best(hash, key) == b.best(hash, key)
        assert a.near(hash, key) == b.near(hash, key)
        assert [r.to_line() for r in a.history(hash, key)] == [r.to_line() for r in b.history(hash, key)]
        best = a.best(hash, key)
        assert best is None or (best.accepted and best.key.code == key.code)


def test_the_smallest_ratio_is_the_best():
    slow, fast = made(median=1e-3, reference=1e-3), made(tile=8, median=2e-3, reference=4e-3)
    assert RecordSet([slow, fast]).best(TASK, KEY) == fast


def test_only_accepted_records_of_the_same_code_are_taken():
    tried = made(accepted=False)
    assert RecordSet([tried, made(key=OTHER), failed()]).best(TASK, KEY) is None
    assert RecordSet([made(key=replace(KEY, target="mine"))]).best(TASK, KEY) is not None
    assert RecordSet([made()]).best("ffffffff", KEY) is None


def test_of_equal_ratios_the_newest_is_taken():
    old, new = made(), made(date=LATER)
    assert RecordSet([old, new]).best(TASK, KEY) == new
    assert RecordSet([made(tile=1), made(tile=2)]).best(TASK, KEY) == made(tile=1)


def test_without_a_default_s_time_seconds_decide():
    slow, fast = made(reference=0, date=LATER), made(tile=8, reference=0, median=1e-4)
    assert RecordSet([slow, fast]).best(TASK, KEY) == fast
    assert RecordSet([slow, fast, made(median=1.0)]).best(TASK, KEY) == made(median=1.0)


def test_a_later_failure_revokes_a_choice_until_it_is_accepted_again():
    revoked = RecordSet([made(), made(tile=8, median=2e-3), failed(date=LATER)])
    assert revoked.best(TASK, KEY) == made(tile=8, median=2e-3)
    assert (revoked | RecordSet([made(date="2026-11-27T10:00:00Z")])).best(TASK, KEY).decisions == {"tile": 4}
    assert RecordSet([made(), failed(date="2026-11-24T10:00:00Z")]).best(TASK, KEY) == made()
    assert RecordSet([made(), failed(key=OTHER, date=LATER)]).best(TASK, KEY) == made()
    assert RecordSet([made(), failed(machine="another", date=LATER)]).best(TASK, KEY) == made()


def test_what_is_near_comes_by_likeness():
    foreign = made(key=replace(KEY, mtriple="aarch64-unknown-linux-gnu"))
    threads = made(key=replace(KEY, threads=4))
    narrow = made(key=replace(KEY, vector_bits=128))
    assert RecordSet([made(), narrow, foreign, threads]).near(TASK, KEY) == [threads, narrow, foreign]


def test_a_task_has_the_newest_text():
    old, new = made(), replace(made(date=LATER), task=Task(TASK, "kernel", "conv2d, said better"))
    assert RecordSet([new, old]).tasks[TASK].text == "conv2d, said better"


def test_a_set_goes_to_other_processes():
    known = RecordSet([made(), failed()], [Workload.of(TASK, "{}")])
    assert pickle.loads(pickle.dumps(known)) == known


def test_a_hundred_thousand_lines_load_in_seconds(tmp_path):
    line = made().to_line()
    task = "".join(
        line.replace(TASK, f"{n % 500:016x}").replace('"runs":30', f'"runs":{n}') + "\n" for n in range(10**5)
    )
    (tmp_path / "x.jsonl").write_text(task)
    begin = time.perf_counter()
    records, problems = read_folder(tmp_path)
    assert records.best(f"{7:016x}", KEY) is not None
    assert (len(records), problems) == (10**5, [])
    assert time.perf_counter() - begin < 30  # 5 on a quiet machine; it is quadratic algorithms that would be minutes
    begin = time.perf_counter()
    for n in range(500):
        records.history(f"{n:016x}", KEY)
    assert time.perf_counter() - begin < 0.5


# ---- operations -------------------------------------------------------------------------------------------------


def test_pruning_keeps_the_best_of_each_task_and_key():
    best, second, other = made(median=1e-4), made(tile=8), made(key=OTHER)
    tried, broken = made(tile=1, accepted=False), failed(tile=2)
    known = RecordSet([best, second, other, tried, broken], [Workload.of(TASK, "{}"), Workload.of("ffffffff", "{}")])
    assert prune(known) == RecordSet([best, other], [Workload.of(TASK, "{}")])
    assert set(prune(known, keep=2)) == {best, second, other}
    assert set(prune(known, history=True)) == {best, other, tried, broken}


def test_pruning_and_statistics_keep_processors_apart():
    ours, theirs = made(median=1e-4), made(tile=8, machine="Another", median=5e-4)
    known = RecordSet([ours, theirs, made(tile=2, machine="Another")])
    assert set(prune(known)) == {ours, theirs}
    assert [(gain.machine, gain.tasks, round(gain.speedup, 3)) for gain in stats(known).gains] == [
        ("AMD EPYC 9254", 1, 15),
        ("Another", 1, 3),
    ]
    assert [(row.machine, row.a, row.b) for row in diff(RecordSet([ours]), known)] == [
        ("AMD EPYC 9254", ours, ours),
        ("Another", None, theirs),
    ]


def test_pruning_keeps_what_revokes_an_acceptance():
    old = RecordSet([made()])
    pruned = prune(old | RecordSet([failed(date=LATER)]))
    assert set(pruned) == {failed(date=LATER)}
    assert (pruned | old).best(TASK, KEY) is None


@unhurried
@given(SETS)
def test_pruning_does_not_change_the_best(records):
    pruned = prune(records)
    for record in records:
        assert pruned.best(record.task.hash, record.key) == records.best(record.task.hash, record.key)
    assert prune(pruned) == pruned


def test_the_difference_of_two_sets():
    a = RecordSet([made(median=1e-3), made(key=OTHER)])
    b = RecordSet([made(median=5e-4), failed(hash_="ffffffff")])
    (first, second) = diff(a, b)
    assert (first.key, first.a, first.b) == (OTHER, made(key=OTHER), None)
    assert (second.key, second.a, second.b) == (KEY, made(), made(median=5e-4))


def test_statistics():
    quick, quicker = made(median=1e-3, reference=2e-3), made("ffffffff", median=1e-3, reference=8e-3)
    found = stats(RecordSet([quick, quicker, failed(tile=9), made(tile=7, accepted=False)], [Workload.of(TASK, "{}")]))
    assert (found.tasks, found.records, found.accepted, found.failed, found.workloads) == (2, 4, 2, 1, 1)
    assert found.machines == ("AMD EPYC 9254",)
    assert [(gain.key, gain.tasks) for gain in found.gains] == [(KEY, 2)]
    assert math.isclose(found.gains[0].speedup, 4)
    assert stats(RecordSet()).gains == ()


@pytest.mark.parametrize(
    ("text", "target", "count"),
    [("", "", 2), ("CONV2D", "", 2), ("pool", "", 0), ("0123", "", 2), ("", "x86-64-v3", 1), ("", "x86-64-v3-2t", 1)],
)
def test_queries(text, target, count):
    assert len(query(RecordSet([made(), made(key=OTHER)]), text, target)) == count
