"""A line of tuning records: what goes in comes out, and what comes from anyone is looked at first."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import KEY, KEYS, RECORDS, TASK, WORKLOADS, failed, made, unhurried

from nncc.target import Target, resolve
from nncc.tuning.records import Key, Record, Workload, from_line, now


@unhurried
@given(RECORDS)
def test_a_record_is_its_line(record):
    line = record.to_line()
    assert "\n" not in line
    assert Record.from_line(line) == record
    assert Record.from_line(line).to_line() == line
    assert from_line(line.encode() + b"\r\n") == record


@unhurried
@given(WORKLOADS)
def test_a_workload_is_its_line(workload):
    assert from_line(workload.to_line()) == workload


def test_the_line_is_canonical():
    assert made().to_line() == (
        '{"accepted":true,"by":"","date":"2026-11-25T10:00:00Z","decisions":{"tile":4},"error":"","key":{"kind":"llvm",'
        '"mattr":["-prefer-256-bit"],"mcpu":"x86-64-v4","mtriple":"x86_64-unknown-linux-gnu","target":"x86-64-v4",'
        '"threads":2,"vector_bits":512},"machine":"AMD EPYC 9254","nncc":1,"reference":0.0015,"runs":30,'
        '"seconds":[0.001,0.0009000000000000001,0.0011],"task":{"hash":"0123456789abcdef","kind":"kernel","text":'
        '"conv2d 1x4x56x56x16, 4x4x1x1x16x16 -> 1x4x56x56x16 +relu"},"trace":"","versions":{"llvm":"19.1.0",'
        '"nncc":"0.2","tvm":"0.27.0"}}'
    )


def test_the_ratio_is_over_the_default():
    assert made(median=1e-3, reference=2e-3).ratio == 0.5
    assert made(reference=0).ratio == float("inf")
    assert failed().ratio == float("inf")


def test_the_key_of_a_target():
    assert Key.of(resolve("rpi4")) == Key("rpi4", "llvm", "aarch64-unknown-linux-gnu", "cortex-a72", (), 4, 128)
    two = Key.of(resolve("rpi4,num-cores=2"))
    assert (two.target, two.threads, two.file_name) == ("rpi4", 2, "rpi4-2t")
    assert Key.of(resolve("x86-64-v4-vnni")).mattr == ("+avx512vnni", "+fast-dpwssd", "-prefer-256-bit")
    assert Key.of(Target("x", "", {"kind": "llvm", "mattr": "+b,+a"})).mattr == ("+a", "+b")


def test_the_target_s_name_is_no_part_of_the_code():
    assert made(key=KEY).key.code == Key("other", *KEY.code).code
    assert Key("a", "llvm", "t", "c", ("-b", "+a"), 1, 64) == Key("a", "llvm", "t", "c", ("+a", "-b"), 1, 64)


@unhurried
@given(KEYS)
def test_a_file_name_stays_in_its_folder(key):
    assert "/" not in key.file_name and not key.file_name.startswith(".")


def test_decisions_are_what_json_says():
    assert made(tile=(4, 1)).decisions == {"tile": [4, 1]}
    assert made(tile=(4, 1)) == made(tile=[4, 1]) != made(tile=[4, True])


def test_texts_for_people_are_one_printable_line():
    record = failed(error="TVMError:\n  \x1b[31mCheck failed\x1b[0m")
    assert record.error == "TVMError:   ?[31mCheck failed?[0m"
    assert len(failed(error="x" * 100_000).error) == 4000


def test_now_is_a_date():
    assert made(date=now()).date.endswith("Z")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": {"hash": "xyz", "kind": "kernel", "text": ""}}, "task.hash is not 8 to 64 hexadecimal digits"),
        ({"task": {"hash": TASK, "kind": "x", "text": ""}}, "task.kind is none of kernel, algorithm, layout"),
        ({"task": {"hash": TASK, "kind": "kernel"}}, "it has no `text`"),
        ({"task": [1]}, "a value is of the wrong kind"),
        ({"seconds": [1.0]}, "seconds is not median, low, high"),
        ({"seconds": [1.0, 2.0, 3.0]}, "seconds is not median, low, high"),
        ({"seconds": [0.0, 0.0, 0.0]}, "seconds is not a time"),
        ({"seconds": [-1.0, 1.0, 1.0]}, "seconds is not a time"),
        ({"seconds": [True, True, True]}, "seconds is not a time"),
        ({"seconds": "123"}, "seconds and key.mattr are not lists"),
        ({"seconds": []}, "neither seconds nor error"),
        ({"error": "bad"}, "seconds and an error exclude each other"),
        ({"error": "bad", "seconds": []}, "accepted in spite of its error"),
        ({"accepted": 1}, "accepted is not a truth value"),
        ({"reference": "1"}, "reference is not a time"),
        ({"runs": -1}, "runs is not a whole number from 0 to 1099511627776"),
        ({"runs": True}, "runs is not a whole number from 0 to 1099511627776"),
        ({"date": "2026-11-25"}, "date is not like 2026-11-25T18:14:47Z"),
        ({"date": "2026-13-25T00:00:00Z"}, "month must be in 1..12"),
        ({"decisions": [1]}, "decisions is not an object"),
        ({"trace": None}, "trace is not text"),
        ({"machine": 1}, "machine is not text"),
        ({"versions": {"nncc": "a\nb", "tvm": "", "llvm": ""}}, "versions.nncc is not a word"),
        ({"nncc": "1"}, "its format is not a number from 1"),
        ({"nncc": 2}, "records of another nncc: format 2, this one reads 1"),
    ],
)
def test_what_is_out_of_bounds_is_refused(changes, reason):
    with pytest.raises(ValueError) as error:
        from_line(json.dumps(json.loads(made().to_line()) | changes))
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "it is not JSON"),
        (b"\xff", "it is not UTF-8"),
        (b"[" * 100_000, "it is not JSON"),
        (b"1" * 10_000, "it is not JSON"),
        (b" " * (1 << 20) + b"{}", "it is longer than 1 MiB"),
        (b"{}", "it is not a tuning record"),
        (b'{"nncc":1}', "it has no `task`"),
        (b'{"nncc":1,"workload":"0123456789abcdef","tir":"*"}', "tir is not base64"),
        (made().to_line().replace("0.0015", "NaN").encode(), "reference is not a time"),
        (made().to_line().replace("0.0015", "1e999").encode(), "reference is not a time"),
        (made().to_line().replace('"tile":4', '"tile":NaN').encode(), "Out of range float values"),
    ],
)
def test_what_is_no_record_is_refused(line, reason):
    with pytest.raises(ValueError) as error:
        from_line(line)
    assert str(error.value).startswith(reason)


def test_what_a_later_nncc_adds_is_left_out():
    assert from_line(json.dumps(json.loads(made().to_line()) | {"energy": 1.0})) == made()


def test_a_workload_is_no_record():
    with pytest.raises(ValueError, match=r"^this is a workload, not a record$"):
        Record.from_line(Workload.of(TASK, "{}").to_line())


@unhurried
@given(st.text())
def test_a_workload_has_its_text(text):
    assert Workload.of(TASK, text).text() == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no zlib", "the TIR of 0123456789abcdef cannot be unpacked: "),
        (zlib.compress(b"x" * 100)[:-5], "the TIR of 0123456789abcdef is cut off, or larger than 64 MiB"),
        (zlib.compress(bytes(65 << 20)), "the TIR of 0123456789abcdef is cut off, or larger than 64 MiB"),
    ],
)
def test_a_workload_that_cannot_be_unpacked(data, reason):
    with pytest.raises(ValueError) as error:
        Workload(TASK, b64encode(data).decode()).text()
    assert str(error.value).startswith(reason)


def test_a_line_that_is_too_long_is_not_written():
    with pytest.raises(ValueError, match=r"^it is longer than 1 MiB$"):
        made(trace="x" * (1 << 20)).to_line()
