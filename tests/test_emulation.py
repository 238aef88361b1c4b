"""Where a program of a target runs here, and the generic runner for it."""

from __future__ import annotations

import subprocess

import pytest

from nncc import emulation
from nncc.emulation import build_runner, emulator
from nncc.errors import TargetError
from nncc.host import Host
from nncc.target import Link, Target, resolve


def test_emulators(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("QEMU_LD_PREFIX", raising=False)
    monkeypatch.setattr(emulation, "host", lambda: Host("Linux", "x86_64", frozenset({"sse3"}), 1))
    assert emulator(resolve("x86-64")) == []
    with pytest.raises(TargetError) as caught:
        emulator(resolve("x86-64-v2"))
    assert caught.value.message == (
        "this machine cannot run target `x86-64-v2`: its processor lacks ssse3, sse4_1, sse4_2, popcnt, cx16"
    )
    with pytest.raises(TargetError) as caught:
        emulator(resolve("rpi4"))
    assert caught.value.message == "this machine cannot run target `rpi4`: there is no `qemu-aarch64`"
    hint = "`apt install qemu-user libc6-arm64-cross`, or run it on a machine of its own"
    assert caught.value.hint == hint
    (tmp_path / "qemu-aarch64").write_text("")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    board = resolve("rpi4")
    linked = Link(**{**vars(board.link), "sysroot": str(tmp_path / "gone")})
    with pytest.raises(TargetError) as caught:
        emulator(Target("rpi4", "", link=linked))
    assert caught.value.message == f"this machine cannot run target `rpi4`: there is no `{tmp_path / 'gone'}`"
    assert caught.value.hint == hint
    (tmp_path / "gone").mkdir()
    assert emulator(Target("rpi4", "", link=linked)) == ["qemu-aarch64", "-L", str(tmp_path / "gone")]
    monkeypatch.setenv("QEMU_LD_PREFIX", "/elsewhere")
    assert emulator(board) == ["qemu-aarch64"]
    with pytest.raises(TargetError) as caught:
        emulator(resolve("arm64-macos"))
    assert caught.value.message == "this machine cannot run target `arm64-macos`, and it names no emulator"


def test_the_runner_is_made_once_and_runs_a_library(library, tmp_path, monkeypatch):
    target = resolve("native")
    runner = build_runner(target, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [runner.name]
    monkeypatch.setattr(emulation, "call_tool", None)
    assert build_runner(target, tmp_path / "cache") == runner
    done = subprocess.run([runner, library], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tiny for native")
