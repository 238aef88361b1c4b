"""The doctor looks at everything and survives whatever is broken."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest

import nncc.doctor as doctor
from nncc.doctor import Row, diagnose
from nncc.target import available


def by_check(rows: list[Row]) -> dict[str, Row]:
    return {row.check: row for row in rows}


def test_everything_is_looked_at():
    rows = by_check(diagnose())
    for check in ("python", "apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "onnx-ir", "llvm", "cc", "cache"):
        assert check in rows
    assert all(f"target {target.name}" in rows for target in available())
    assert {row.status for row in rows.values()} <= {"ok", "warn", "fail"}
    assert rows["apache-tvm"].status == "ok"
    assert rows["llvm"].detail.startswith("LLVM ")


def test_a_package_that_differs_from_its_pin_fails(monkeypatch):
    installed = {"apache-tvm": "0.26.0", "numpy": "1.26.4", "onnx": "1.18"}
    wanted = ["apache-tvm==0.27.0", "numpy>=2", "onnx>=1.18", "gone>=1", "old>=1; python_version < '3.0'"]
    monkeypatch.setattr(doctor, "_requirements", lambda: wanted)

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert list(doctor._packages()) == [
        Row("apache-tvm", "fail", "0.26.0, pinned to 0.27.0", "`pip install 'apache-tvm==0.27.0'`"),
        Row("numpy", "fail", "1.26.4, older than 2", "`pip install 'numpy>=2'`"),
        Row("onnx", "ok", "1.18"),
        Row("gone", "fail", "not installed", "`pip install 'gone>=1'`"),
    ]


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(doctor, "_requires_python", lambda: ">=3.99,<4.0")
    (row,) = doctor._python()
    assert (row.status, row.hint) == ("fail", "nncc wants Python >=3.99,<4.0")


def test_a_machine_without_tools_is_described_not_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = by_check([*doctor._compilers(), *doctor._emulators(), *doctor._targets()])
    assert rows["cc"] == Row("cc", "warn", "`cc` is not there", "install gcc or clang, or correct $CC")
    assert rows["zig"].status == "warn"
    assert rows["target rpi4"].status == "warn"
    assert rows["target rpi4"].detail.startswith("cannot be linked; ")
    assert not any(row.status == "ok" for row in rows.values() if row.check.startswith("target"))


def test_a_cc_that_is_not_there_is_said_for_the_targets_it_concerns(monkeypatch):
    monkeypatch.setenv("CC", "gonecc")
    rows = by_check(diagnose())
    assert rows["cc"] == Row("cc", "warn", "`gonecc` is not there", "install gcc or clang, or correct $CC")
    assert rows["target native"].status == "warn"
    assert rows["target native"].hint == "unset CC, or correct it"


def test_a_probe_that_goes_wrong_is_a_row(monkeypatch):
    def broken():
        yield Row("half", "ok", "done")
        raise RuntimeError("it broke")

    monkeypatch.setattr(doctor, "PROBES", {"first": broken, "second": lambda: [Row("second", "ok", "fine")]})
    assert diagnose() == [
        Row("half", "ok", "done"),
        Row("first", "fail", "RuntimeError: it broke"),
        Row("second", "ok", "fine"),
    ]


@pytest.mark.parametrize("free_gib, status", [(0.5, "warn"), (5, "ok")])
def test_a_cache_that_runs_full_warns(monkeypatch, tmp_path, free_gib, status):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "not" / "yet"))
    usage = type("Usage", (), {"free": int(free_gib * 2**30)})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    (row,) = doctor._cache()
    assert row.status == status
    assert row.detail == f"{tmp_path / 'not' / 'yet'}, {free_gib:.1f} GiB free"
