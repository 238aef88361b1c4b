"""The compiler for a target is found, or one is told how to get it."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from nncc.codegen.toolchains import Toolchain, find_toolchain
from nncc.errors import ToolError
from nncc.target import Link, Target, resolve


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without compilers."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_without_a_compiler_one_is_told_how_to_get_it(bare):
    with pytest.raises(ToolError) as caught:
        find_toolchain(resolve("rpi4"))
    assert caught.value.message == "no C compiler for target `rpi4`: looked for zig, `aarch64-linux-gnu-gcc`"
    assert caught.value.hint == (
        "`pip install ziglang`, or install aarch64-linux-gnu-gcc (Debian: `apt install gcc-aarch64-linux-gnu`)"
    )
    with pytest.raises(ToolError) as caught:
        find_toolchain(resolve("x86-64"))
    assert caught.value.message == "no C compiler for target `x86-64`: looked for `cc`, zig, `x86_64-linux-gnu-gcc`"
    with pytest.raises(ToolError) as caught:
        find_toolchain(Target("mine", "", link=Link()))
    assert caught.value.message == "target `mine` names no C compiler"
    assert caught.value.hint == "its [link] needs `zig` or `gcc`"


def test_the_machines_own_compiler_comes_first_and_cc_is_honoured(bare, monkeypatch, tmp_path):
    for name in ("cc", "mycc", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert find_toolchain(resolve("x86-64")) == Toolchain("cc", ("cc",), ("ar",))
    cross = Toolchain("aarch64-linux-gnu-gcc", ("aarch64-linux-gnu-gcc",), ("aarch64-linux-gnu-ar",))
    assert find_toolchain(resolve("rpi4")) == cross
    monkeypatch.setenv("CC", "mycc -m64")
    assert find_toolchain(resolve("x86-64")).command == ("mycc", "-m64")
    assert find_toolchain(resolve("rpi4")) == cross, "$CC makes code for this machine"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    zig = find_toolchain(resolve("rpi4"))
    assert zig.command == (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28")
    monkeypatch.setenv("CC", "gonecc")
    with pytest.raises(ToolError) as caught:
        find_toolchain(resolve("x86-64"))
    assert caught.value.message == "there is no compiler `gonecc`, which $CC names"
    assert caught.value.hint == "unset CC, or correct it"
