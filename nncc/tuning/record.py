"""What one line of tuning records says: a choice for a task, how long it took, and where that holds."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from nncc.tuning.bounds import check_hash, check_whole, check_word, checked_time, make_line

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["FORMAT", "LONGEST", "Key", "OtherFormat", "Record", "Task", "Versions", "Workload", "from_line", "now"]

FORMAT = 1
LONGEST = 1 << 20
"""Bytes of a line."""
TASK_KINDS = ("kernel", "algorithm", "layout")

_T = TypeVar("_T")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_LARGEST_TIR = 64 << 20


class OtherFormat(ValueError):
    """A line of a later nncc: to be kept, not to be understood."""


@dataclass(frozen=True)
class Task:
    """Something to choose for; equal hashes are equal tasks."""

    hash: str
    kind: str
    """kernel, a TIR function | algorithm or layout, choices that change the graph"""
    text: str
    """For people: ``conv2d 1x4x56x56x16, 4x4x1x1x16x16 -> 1x4x56x56x16 +relu``."""

    def __post_init__(self) -> None:
        check_hash(self.hash, "task.hash")
        if self.kind not in TASK_KINDS:
            raise ValueError(f"task.kind is none of {', '.join(TASK_KINDS)}")
        make_line(self, "text", "task.text", 1000)


@dataclass(frozen=True)
class Key:
    """What makes a time valid: two records compare where their `code` is equal."""

    target: str
    """Name of the file that describes the target; no part of `code`."""
    kind: str
    mtriple: str
    mcpu: str
    mattr: tuple[str, ...]
    """Sorted."""
    threads: int
    vector_bits: int

    def __post_init__(self) -> None:
        for name in ("target", "kind", "mtriple", "mcpu"):
            check_word(getattr(self, name), f"key.{name}")
        object.__setattr__(self, "mattr", tuple(sorted(self.mattr)))
        for word in self.mattr:
            check_word(word, "key.mattr")
        check_whole(self.threads, "key.threads", 1, 1 << 16)
        check_whole(self.vector_bits, "key.vector_bits", 1, 1 << 20)

    @classmethod
    def of(cls, target: Target) -> Key:
        """The key of what runs on `target`: on its accelerator or GPU, if it has one, whose times its host has no part
        in."""
        tvm, hardware = target.tvm, target.hardware
        machine = hardware.accelerator
        if machine is not None and hardware.drives_accelerator:
            times = (f"bus{machine.bus_bytes}", f"{machine.clock_mhz}MHz", f"memory-{machine.memory}")
            depths = (f"queue{machine.queue_depth}", f"fetch{machine.fetch_depth}")
            cycles = (f"issue{machine.issue_cycles}", f"pipeline{machine.pipeline_cycles}")
            facts = (*times, *depths, *cycles)
            return cls(target.base, "accelerator", "", machine.configuration, facts, 1, 8 * machine.block)
        if hardware.multiprocessors:
            size = f"multiprocessors{hardware.multiprocessors}"
            return cls(target.base, str(tvm["kind"]), "", str(tvm["arch"]), (size,), 1, hardware.vector_bits)
        kind, mtriple, mcpu = (str(tvm.get(name, "")) for name in ("kind", "mtriple", "mcpu"))
        mattr = tvm.get("mattr", ())
        words = mattr.split(",") if isinstance(mattr, str) else map(str, mattr)
        return cls(target.base, kind, mtriple, mcpu, tuple(words), hardware.cores, hardware.vector_bits)

    @cached_property
    def code(self) -> tuple[Any, ...]:
        return (self.kind, self.mtriple, self.mcpu, self.mattr, self.threads, self.vector_bits)

    @cached_property
    def file_name(self) -> str:
        """Of the file that holds its records, without suffix: ``x86-64-v4-2t``."""
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", self.target).strip("-.")[:80]
        return f"{base or 'target'}-{self.threads}t"


@dataclass(frozen=True)
class Versions:
    """Of what made and measured the code."""

    nncc: str
    tvm: str
    llvm: str

    def __post_init__(self) -> None:
        for name in _VERSIONS:
            check_word(getattr(self, name), f"versions.{name}")


@dataclass(frozen=True, eq=False)
class Record:
    """One choice for a task, measured. Equal records are equal lines.

    A value out of its bounds is a ValueError. `error`, `machine` and `by` become one printable line each.
    """

    task: Task
    key: Key
    decisions: Mapping[str, Any]
    """Chosen values by name: what JSON can say."""
    seconds: tuple[float, ...]
    """Median, low and high of its confidence interval; empty if it failed."""
    reference: float
    """Median seconds of the template's default, measured in turn with it; 0 if unknown."""
    runs: int
    accepted: bool
    """Measured again and checked against the untuned kernel: only these are compiled with."""
    error: str
    """Why it failed; empty if it did not."""
    trace: str
    """A TVM trace as JSON, of an imported record."""
    machine: str
    """Its processor."""
    versions: Versions
    date: str
    """ISO 8601 in UTC: ``2026-11-25T18:14:47Z``, or with six digits of a second."""
    by: str = ""
    _decisions: str = field(init=False, repr=False, default="{}")

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.decisions, Mapping) or not all(isinstance(name, str) for name in self.decisions):
            raise ValueError("decisions is not an object")
        put(self, "_decisions", _json(dict(self.decisions)))
        put(self, "decisions", json.loads(self._decisions))
        put(self, "seconds", tuple(checked_time(value, "seconds") for value in self.seconds))
        make_line(self, "error", "error", 4000)
        make_line(self, "machine", "machine", 400)
        make_line(self, "by", "by", 200)
        if self.seconds and not (len(self.seconds) == 3 and self.seconds[1] <= self.seconds[0] <= self.seconds[2]):
            raise ValueError("seconds is not median, low, high")
        if bool(self.seconds) == bool(self.error):
            raise ValueError("seconds and an error exclude each other" if self.error else "neither seconds nor error")
        put(self, "reference", checked_time(self.reference, "reference") if self.reference else 0.0)
        check_whole(self.runs, "runs", 0, 1 << 40)
        if not isinstance(self.accepted, bool) or (self.accepted and self.error):
            raise ValueError("accepted is not a truth value" if not self.error else "accepted in spite of its error")
        if not isinstance(self.trace, str):
            raise ValueError("trace is not text")
        if not isinstance(self.date, str) or not _DATE.fullmatch(self.date):
            raise ValueError("date is not like 2026-11-25T18:14:47Z")
        datetime.fromisoformat(self.date[:-1])

    @property
    def ratio(self) -> float:
        """Its time over the default's: below 1 is a gain; infinite where one of them is unknown."""
        return self.seconds[0] / self.reference if self.seconds and self.reference else math.inf

    @property
    def choice(self) -> tuple[str, str]:
        """Equal where the same was chosen."""
        return self._decisions, self.trace

    @cached_property
    def moment(self) -> str:
        """Sorts by date."""
        return self.date[:-1]

    def to_line(self) -> str:
        """Canonical JSON without an end of line; ValueError where it would be longer than a line may be."""
        return self._text

    @cached_property
    def _text(self) -> str:
        known = {
            "nncc": FORMAT,
            "task": {name: getattr(self.task, name) for name in _TASK},
            "key": {name: getattr(self.key, name) for name in _KEY},
            "decisions": self.decisions,
            "versions": {name: getattr(self.versions, name) for name in _VERSIONS},
        }
        text = _json(known | {name: getattr(self, name) for name in _PLAIN})
        if len(text) > LONGEST:
            raise ValueError("it is longer than 1 MiB")
        return text

    @classmethod
    def from_line(cls, line: str | bytes) -> Record:
        """The record of a line. ValueError says what is wrong with it."""
        found = from_line(line)
        if not isinstance(found, cls):
            raise ValueError("this is a workload, not a record")
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


_TASK = ("hash", "kind", "text")
_VERSIONS = ("nncc", "tvm", "llvm")
_KEY = ("target", "kind", "mtriple", "mcpu", "mattr", "threads", "vector_bits")
_PLAIN = ("seconds", "reference", "runs", "accepted", "error", "trace", "machine", "date", "by")


@dataclass(frozen=True)
class Workload:
    """The TIR of a task, which export and verification need: TVM's JSON, zlib, base64."""

    hash: str
    tir: str

    def __post_init__(self) -> None:
        check_hash(self.hash, "workload")
        if not isinstance(self.tir, str) or not _BASE64.fullmatch(self.tir):
            raise ValueError("tir is not base64")

    @classmethod
    def of(cls, hash: str, text: str) -> Workload:
        """Of TVM's JSON."""
        return cls(hash, base64.b64encode(zlib.compress(text.encode(), 9)).decode())

    def text(self) -> str:
        """TVM's JSON; ValueError where there is none inside, or too much."""
        try:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(base64.b64decode(self.tir, validate=True), _LARGEST_TIR)
            if not unpacker.eof:
                raise ValueError(f"the TIR of {self.hash} is cut off, or larger than 64 MiB")
            return data.decode()
        except (zlib.error, binascii.Error, UnicodeDecodeError) as error:
            raise ValueError(f"the TIR of {self.hash} cannot be unpacked: {error}") from error

    def to_line(self) -> str:
        text = _json({"nncc": FORMAT, "workload": self.hash, "tir": self.tir})
        if len(text) > LONGEST:
            raise ValueError("it is longer than 1 MiB")
        return text


def from_line(line: str | bytes) -> Record | Workload:
    """What a line holds. ValueError says what is wrong with it, OtherFormat that a later nncc wrote it.

    What a later nncc adds without changing the format's number is left out.
    """
    if len(line) > LONGEST:
        raise ValueError("it is longer than 1 MiB")
    try:
        found = json.loads(line if isinstance(line, str) else line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(found, dict) or "nncc" not in found:
        raise ValueError("it is not a tuning record")
    if type(found["nncc"]) is not int or found["nncc"] < 1:
        raise ValueError("its format is not a number from 1")
    if found["nncc"] > FORMAT:
        raise OtherFormat(f"records of another nncc: format {found['nncc']}, this one reads {FORMAT}")
    try:
        if "workload" in found:
            return Workload(found["workload"], found["tir"])
        task, key, versions = found["task"], found["key"], found["versions"]
        if not isinstance(found["seconds"], list) or not isinstance(key["mattr"], list):
            raise ValueError("seconds and key.mattr are not lists")
        return Record(
            _one(Task, *(task[name] for name in _TASK)),
            _one(Key, *(tuple(key[name]) if name == "mattr" else key[name] for name in _KEY)),
            decisions=found["decisions"],
            versions=_one(Versions, *(versions[name] for name in _VERSIONS)),
            **{name: found[name] for name in _PLAIN},
        )
    except KeyError as error:
        raise ValueError(f"it has no `{error.args[0]}`") from None
    except (TypeError, RecursionError, OverflowError):
        raise ValueError("a value is of the wrong kind") from None


@lru_cache(maxsize=1 << 14, typed=True)
def _one(kind: type[_T], *values: Any) -> _T:
    """Equal parts of records are one object: there are few of them in many lines."""
    return kind(*values)


def now() -> str:
    """The date of a record that is made now."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
