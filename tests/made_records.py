"""Tuning records to test with, any field of them changed, and strategies that make up whole sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nncc.tuning.records import Key, Record, RecordSet, Task, Versions, Workload

TEXT = "conv2d 1x4x56x56x16, 4x4x1x1x16x16 -> 1x4x56x56x16 +relu"
KEY = Key("x86-64-v4", "llvm", "x86_64-unknown-linux-gnu", "x86-64-v4", ("-prefer-256-bit",), 2, 512)
OTHER = replace(KEY, target="x86-64-v3", mcpu="x86-64-v3", mattr=(), vector_bits=256)
TASK = "0123456789abcdef"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""For properties: other tests share the processor, and a folder may serve all examples."""

VERSIONS = Versions("0.2", "0.27.0", "19.1.0")


def made(hash_: str = TASK, key: Key = KEY, tile: Any = 4, median: float = 1e-3, **changes: Any) -> Record:
    """An accepted record, or what `changes` make of it."""
    fields: dict[str, Any] = {
        "task": Task(hash_, "kernel", TEXT),
        "key": key,
        "decisions": {"tile": tile},
        "seconds": (median, median * 0.9, median * 1.1),
        "reference": 1.5e-3,
        "runs": 30,
        "accepted": True,
        "error": "",
        "trace": "",
        "machine": "AMD EPYC 9254",
        "versions": VERSIONS,
        "date": "2026-11-25T10:00:00Z",
        "by": "",
    }
    return Record(**fields | changes)


def failed(error: str = "it computes something else", **changes: Any) -> Record:
    return made(seconds=(), accepted=False, error=error, **changes)


_HASHES = st.sampled_from([TASK, "fedcba9876543210", "00000000"])
_TIMES = st.floats(1e-7, 10, allow_nan=False)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.builds(
    Key,
    st.sampled_from(["x86-64-v4", "rpi4", "../../etc/passwd", ""]),
    st.just("llvm"),
    st.sampled_from(["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]),
    st.sampled_from(["", "cortex-a72"]),
    st.lists(st.sampled_from(["+sse", "-avx"]), max_size=2).map(tuple),
    st.sampled_from([1, 2]),
    st.sampled_from([128, 256]),
)


@st.composite
def _records(draw: st.DrawFn) -> Record:
    ok = draw(st.booleans())
    median = draw(_TIMES)
    return Record(
        task=Task(draw(_HASHES), draw(st.sampled_from(["kernel", "algorithm", "layout"])), draw(st.text(max_size=20))),
        key=draw(KEYS),
        decisions=draw(st.dictionaries(st.text(max_size=4), _JSON, max_size=2) | st.just({"tile": 4})),
        seconds=(median, median / 2, median * 2) if ok else (),
        reference=draw(_TIMES | st.just(0.0)),
        runs=draw(st.integers(0, 1000)),
        accepted=ok and draw(st.booleans()),
        error="" if ok else "e" + draw(st.text(max_size=20)),
        trace=draw(st.text(max_size=10)),
        machine=draw(st.text(max_size=10)),
        versions=VERSIONS,
        date=draw(st.datetimes().map(lambda d: d.isoformat() + "Z")),
        by=draw(st.text(max_size=10)),
    )


RECORDS = _records()
WORKLOADS = st.builds(Workload.of, _HASHES, st.text(max_size=20))
SETS = st.builds(RecordSet, st.lists(RECORDS, max_size=6), st.lists(WORKLOADS, max_size=3))
