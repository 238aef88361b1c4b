"""C compilers: which of this machine's make code for a target, and how any tool is called."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nncc.errors import OutputError, ToolError
from nncc.target import Target

__all__ = ["Toolchain", "call_tool", "find_toolchain", "toolchains"]


@dataclass(frozen=True)
class Toolchain:
    """A C compiler that makes code for one target."""

    name: str
    """``cc``, ``zig`` or the name of a cross compiler."""
    command: tuple[str, ...]
    """How a call begins, the choice of target included."""
    archiver: tuple[str, ...] = ("ar",)
    """How a call of its ``ar`` begins."""


def toolchains(target: Target) -> list[Toolchain]:
    """Every toolchain on this machine that can make code for `target`, the preferred one first.

    Raises ToolError if ``$CC`` is set and there is no such program.
    """
    found = []
    if (platform.system(), platform.machine()) == (target.link.system, target.link.machine):
        command = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(command[0]):
            found.append(Toolchain("cc", tuple(command)))
        elif os.environ.get("CC"):
            raise ToolError(f"there is no compiler `{os.environ['CC']}`, which $CC names", "unset CC, or correct it")
    if target.link.zig and importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang")
        found.append(Toolchain("zig", (*zig, "cc", "-target", target.link.zig), (*zig, "ar")))
    if target.link.gcc and shutil.which(target.link.gcc):
        found.append(Toolchain(target.link.gcc, (target.link.gcc,), (re.sub(r"gcc$", "ar", target.link.gcc),)))
    return found


def find_toolchain(target: Target) -> Toolchain:
    """The machine's own ``cc`` (or ``$CC``) where that makes code for `target`; else zig; else a cross gcc.

    Raises ToolError that says what was looked for and how to get it.
    """
    found = toolchains(target)
    if found:
        return found[0]
    looked, ways = [], []
    if (platform.system(), platform.machine()) == (target.link.system, target.link.machine):
        looked.append("`cc`")
        ways.append("install gcc or clang")
    if target.link.zig:
        looked.append("zig")
        ways.append("`pip install ziglang`")
    if target.link.gcc:
        looked.append(f"`{target.link.gcc}`")
        ways.append(f"install {target.link.gcc} (Debian: `apt install {_debian_compiler(target.link.gcc)}`)")
    if not looked:
        raise ToolError(f"target `{target.name}` names no C compiler", "its [link] needs `zig` or `gcc`")
    raise ToolError(f"no C compiler for target `{target.name}`: looked for {', '.join(looked)}", ", or ".join(ways))


def _debian_compiler(gcc: str) -> str:
    """``x86_64-linux-gnu-gcc`` is in the package gcc-x86-64-linux-gnu; mingw has names of its own."""
    triple = gcc.removesuffix("-gcc").replace("_", "-")
    return "gcc-mingw-w64" if "mingw" in triple else f"gcc-{triple}"


def call_tool(command: Sequence[str], work: Path) -> None:
    """Run a tool in `work`.

    Raises ToolError with the command and what it said: its stderr whole, or the last 60 lines of it.
    """
    # zig keeps every object it makes, the weights too, in its local cache: that is to go with `work`.
    fixed = {"SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1", "LC_ALL": "C", "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    environment = os.environ | fixed
    try:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ToolError(f"cannot run `{command[0]}`: {error.strerror}: {shlex.join(command)}") from error
    if done.returncode == 0:
        return
    said = done.stderr.strip() or done.stdout.strip() or "(it said nothing)"
    if "No space left on device" in said:
        raise OutputError(f"the disk is full: {shlex.join(command)}", "free some space")
    lines = said.splitlines()
    if len(lines) > 60:
        lines = [f"({len(lines) - 60} lines before)", *lines[-60:]]
    how = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
    tool = next((Path(word).name for word in command if not word.startswith("-")), command[0])
    raise ToolError("\n".join([f"{tool} failed with {how}:", f"  {shlex.join(command)}", *lines]))
