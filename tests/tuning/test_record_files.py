"""Folders of tuning records: many write, some are killed, disks are full, bytes rot; nothing else is lost."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import KEY, OTHER, RECORDS, SETS, TASK, WORKLOADS, failed, made, unhurried

from nncc.errors import OutputError, RecordError
from nncc.tuning.records import Journal, RecordSet, Workload, add_to_folder, keep_in_folder, read_folder
from nncc.tuning.set_operations import prune

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals and locks")
not_root = pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from made_records import KEY, made
from nncc.tuning.records import Journal
journal, who, count = Journal(sys.argv[2], KEY), sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
for number in range(count):
    journal.append(made(tile=number, by=who))
    print(number, flush=True)
"""


def writer(folder: Path, who: str, count: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", WRITER, str(Path(__file__).parents[1]), str(folder), who, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=0)  # what is read ahead would be lost


def fresh(folder: Path) -> Path:
    """The folder without what an earlier example left there."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


# ---- reading ----------------------------------------------------------------------------------------------------


@unhurried
@given(records=SETS)
def test_a_folder_gives_what_was_put_in(tmp_path, records):
    folder = fresh(tmp_path / "records")
    assert add_to_folder(records, folder) == len(records)
    assert read_folder(folder) == (records, [])
    assert add_to_folder(records, folder) == 0
    assert all(path.parent == folder for path in folder.rglob("*"))


@unhurried
@given(data=st.data())
def test_damaged_bytes_never_stop_the_reader(tmp_path, data):
    records = data.draw(st.lists(RECORDS, min_size=1, max_size=5)) + data.draw(st.lists(WORKLOADS, max_size=1))
    text = bytearray(b"".join(record.to_line().encode() + b"\n" for record in records))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if what == "flip":
            text[at] = data.draw(st.integers(0, 255))
        elif what == "insert":
            text[at:at] = data.draw(st.binary(max_size=5))
        else:
            del text[at : at + data.draw(st.integers(0, len(text) - 1))]
        text = text or bytearray(b"\n")
    (tmp_path / "x.jsonl").write_bytes(text)
    found, _ = read_folder(tmp_path)
    for record in found:
        found.best(record.task.hash, record.key)
        assert read_folder(tmp_path)[0] == found


def test_a_damaged_line_is_told_and_left_out(tmp_path):
    good, other = made().to_line(), made(tile=8).to_line()
    long = '"' + "x" * (3 << 20) + '"'
    later = '{"nncc":2}'
    lines = [good, "<<<<<<< HEAD", "", long, later, other, good[:40]]
    file = tmp_path / "x86-64-v4-2t.jsonl"
    file.write_text("\n".join(lines))
    found, problems = read_folder(tmp_path)
    assert set(found) == {made(), made(tile=8)}
    assert [(line, reason) for _, line, reason in problems] == [
        (2, "it is not JSON"),
        (4, "it is longer than 1 MiB"),
        (5, "records of another nncc: format 2, this one reads 1"),
        (7, "it is cut off, or being written: it is not JSON"),
    ]
    assert {each.file for each in problems} == {str(file)}


def test_a_missing_folder(tmp_path):
    with pytest.raises(RecordError) as error:
        read_folder(tmp_path / "none")
    assert str(error.value) == f"there is no folder `{tmp_path / 'none'}` of tuning records"
    assert error.value.hint == "give the folder that `nncc tune` wrote"
    assert read_folder(tmp_path / "none", must_exist=False) == (RecordSet(), [])
    assert read_folder(tmp_path) == (RecordSet(), [])


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(RecordError) as error:
        read_folder(tmp_path / "x.jsonl", must_exist=False)
    assert str(error.value) == f"`{tmp_path / 'x.jsonl'}` is a file, not a folder of tuning records"
    assert error.value.hint == "give the folder it is in"


def test_records_of_metaschedule(tmp_path):
    (tmp_path / "database_workload.json").write_text("[]")
    with pytest.raises(RecordError) as error:
        read_folder(tmp_path)
    assert str(error.value) == f"`{tmp_path}` holds records of TVM's MetaSchedule, not of nncc"
    assert error.value.hint == f"`nncc records import {tmp_path} FOLDER` makes records of nncc of them"
    (tmp_path / "x.jsonl").write_text("")
    assert read_folder(tmp_path) == (RecordSet(), [])


@pytest.mark.parametrize("question", ["exists", "iterdir"])
def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch, question):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, question, refuse)
    with pytest.raises(RecordError) as error:
        read_folder(tmp_path)
    assert str(error.value) == f"the tuning records in `{tmp_path}` cannot be read: Permission denied"
    assert error.value.hint == "look at its permissions"


# ---- writing ----------------------------------------------------------------------------------------------------


def test_a_journal_writes_plain_lines_that_git_merges(tmp_path):
    journal = Journal(tmp_path / "records", KEY)
    journal.append(made())
    journal.append(made(tile=8), Workload.of(TASK, "{}"))
    lines = [made().to_line(), made(tile=8).to_line(), Workload.of(TASK, "{}").to_line()]
    assert (tmp_path / "records" / "x86-64-v4-2t.jsonl").read_text() == "\n".join(lines) + "\n"
    assert (tmp_path / "records" / ".gitattributes").read_text() == "*.jsonl merge=union\n"


def test_git_merges_two_branches(tmp_path):
    if not shutil.which("git"):
        pytest.skip("git is not installed")

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    for branch, tile in (("main", 1), ("mine", 2), ("main", 3)):
        if branch == "mine":
            git("checkout", "-b", branch)
        elif tile > 1:
            git("checkout", branch)
        Journal(tmp_path, KEY).append(made(tile=tile))
        git("add", ".")
        git("commit", "-m", branch)
    git("merge", "mine")
    found, problems = read_folder(tmp_path)
    assert {record.decisions["tile"] for record in found} == {1, 2, 3}
    assert problems == []


def test_gitattributes_of_someone_else_stay(tmp_path):
    (tmp_path / ".gitattributes").write_text("* text\n")
    Journal(tmp_path, KEY)
    assert (tmp_path / ".gitattributes").read_text() == "* text\n"


def test_an_unterminated_line_is_ended_first(tmp_path):
    path = tmp_path / "x86-64-v4-2t.jsonl"
    path.write_text(made().to_line() + "\n" + made(tile=8).to_line()[:50])
    Journal(tmp_path, KEY).append(made(tile=9))
    found, problems = read_folder(tmp_path)
    assert set(found) == {made(), made(tile=9)}
    assert [each.line for each in problems] == [2]


@posix
def test_writers_at_once_lose_nothing(tmp_path):
    writers = [writer(tmp_path, who, 100) for who in "abc"]
    for each in writers:
        each.communicate(timeout=120)
        assert each.returncode == 0
    found, problems = read_folder(tmp_path)
    assert problems == []
    assert {(record.by, record.decisions["tile"]) for record in found} == {(w, n) for w in "abc" for n in range(100)}


@posix
def test_a_killed_writer_loses_at_most_the_record_in_flight(tmp_path):
    chance = random.Random(7)
    written: set[tuple[str, int]] = set()
    for turn in range(20):
        victim = writer(tmp_path, f"v{turn}", 10**6)
        assert victim.stdout is not None and victim.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0, 0.03))
        victim.send_signal(signal.SIGKILL)
        rest, _ = victim.communicate(timeout=60)
        written |= {(f"v{turn}", int(word)) for word in rest.split(b"\n")[:-1]}
    Journal(tmp_path, KEY).append(made(by="survivor", tile=0))
    found, problems = read_folder(tmp_path)
    assert written | {("survivor", 0)} <= {(record.by, record.decisions["tile"]) for record in found}
    assert len(found) <= len(written) + 21
    assert len(problems) <= 20


@posix
def test_pruning_while_others_write_loses_nothing_of_theirs(tmp_path):
    busy = [writer(tmp_path, who, 150) for who in "ab"]
    while any(each.poll() is None for each in busy):
        keep_in_folder(tmp_path, lambda found: prune(found, keep=10**6))
    for each in busy:
        each.communicate()
    assert len(read_folder(tmp_path)[0]) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitattributes", "x86-64-v4-2t.jsonl"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:7])))
    Journal(tmp_path, KEY).append(made())
    assert read_folder(tmp_path) == (RecordSet([made()]), [])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_gets_full_leaves_the_file_as_it_was(tmp_path, monkeypatch, code):
    journal = Journal(tmp_path, KEY)
    journal.append(made())
    before, write, calls = journal.path.read_bytes(), os.write, []

    def full(descriptor, data):
        calls.append(data)
        if len(calls) > 1:
            raise OSError(code, os.strerror(code))
        return write(descriptor, bytes(data[:10]))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError) as error:
        journal.append(made(tile=8))
    assert str(error.value) == f"cannot write tuning records to `{journal.path}`: {os.strerror(code)}"
    full_hint, hint = "free some space", "choose another folder, or its permissions"
    assert error.value.hint == (full_hint if code == errno.ENOSPC else hint)
    assert journal.path.read_bytes() == before
    monkeypatch.undo()
    journal.append(made(tile=8))
    assert set(read_folder(tmp_path)[0]) == {made(), made(tile=8)}


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        journal, count = Journal(disk, KEY), 0
        with pytest.raises(OutputError, match=r"^cannot write tuning records to `.*`: No space left on device$"):
            for count in range(1000):
                journal.append(made(tile=count))
        found, problems = read_folder(disk)
        assert (len(found), problems) == (count, [])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@not_root
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(0o555)
    with pytest.raises(OutputError) as error:
        Journal(tmp_path / "locked", KEY)
    assert str(error.value) == f"cannot write tuning records to `{tmp_path / 'locked'}`: Permission denied"
    assert error.value.hint == "choose another folder, or its permissions"


def test_a_folder_without_permission_as_anyone(tmp_path, monkeypatch):
    def refuse(path, *rest):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError) as error:
        Journal(tmp_path, KEY)
    assert str(error.value) == f"cannot write tuning records to `{tmp_path}`: Permission denied"


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as error:
        Journal(tmp_path / "file", KEY)
    assert str(error.value) == f"cannot write tuning records to `{tmp_path / 'file'}`: File exists"


# ---- rewriting --------------------------------------------------------------------------------------------------


def test_records_go_into_their_target_s_file_and_workloads_with_them(tmp_path):
    add_to_folder(RecordSet([made(), made("ffffffff", key=OTHER)], [Workload.of("ffffffff", "{}")]), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["x86-64-v3-2t.jsonl", "x86-64-v4-2t.jsonl"]
    assert '"workload":"ffffffff"' in (tmp_path / "x86-64-v3-2t.jsonl").read_text()


def test_pruning_keeps_the_lines_of_a_later_nncc(tmp_path):
    path = tmp_path / "x86-64-v4-2t.jsonl"
    path.write_text(f'{{"nncc":2}}\nnoise\n{made().to_line()}\n{failed(tile=1).to_line()}\n')
    (tmp_path / "x86-64-v4-2t.0123.jsonl").write_text(made().to_line())
    before, after = keep_in_folder(tmp_path, prune)
    assert (len(before), set(after)) == (2, {made()})
    left = "".join(path.read_text() for path in sorted(tmp_path.glob("*.jsonl")))
    assert sorted(left.splitlines()) == sorted(['{"nncc":2}', made().to_line()])


def test_a_rewrite_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    Journal(tmp_path, KEY).append(made(), failed(tile=1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*anything):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    for change in (lambda: keep_in_folder(tmp_path, prune), lambda: add_to_folder(RecordSet([made(tile=8)]), tmp_path)):
        with pytest.raises(OutputError, match=r"^cannot write tuning records to `.*`: No space left on device$"):
            change()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@posix
def test_a_rewritten_file_keeps_its_permissions(tmp_path):
    journal = Journal(tmp_path, KEY)
    journal.append(made(), failed(tile=1))
    journal.path.chmod(0o664)
    keep_in_folder(tmp_path, prune)
    assert journal.path.stat().st_mode & 0o777 == 0o664
