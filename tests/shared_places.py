"""What tests of shared places have in common: pushes by processes of their own, ports, and errors."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nncc.errors import NnccError, RecordError
from nncc.tuning.records import RecordSet

PUSHER = """
import sys
sys.path.insert(0, sys.argv[1])
from made_records import made
from nncc.tuning.records import RecordSet, push
sys.stdin.readline()
for number in range(int(sys.argv[4])):
    push(RecordSet([made(tile=number, by=sys.argv[3]), made(tile=number, by="both")]), sys.argv[2])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def push_at_once(url: str | Path, count: int) -> None:
    words = [sys.executable, "-c", PUSHER, str(Path(__file__).parent), str(url)]
    pushers = [subprocess.Popen([*words, who, str(count)], stdin=subprocess.PIPE, text=True) for who in "ab"]
    for each in pushers:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in pushers:
        each.communicate(timeout=240)
        assert each.returncode == 0


def pushed_by(records: RecordSet) -> set[tuple[str, int]]:
    return {(record.by, record.decisions["tile"]) for record in records}


def all_of(count: int) -> set[tuple[str, int]]:
    return {(who, number) for who in ("a", "b", "both") for number in range(count)}


def refused(call: Callable[[], object], kind: type[NnccError] = RecordError) -> tuple[str, str | None]:
    with pytest.raises(kind) as error:
        call()
    return str(error.value), error.value.hint
