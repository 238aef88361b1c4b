"""Libraries of other machines: the generic runner that loads them there, and the emulator that runs it here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from nncc.codegen.publish import workshop
from nncc.codegen.toolchains import Toolchain, call_tool, find_toolchain
from nncc.errors import OutputError, RunError, TargetError
from nncc.host import driver_problem, host
from nncc.library_facts import target_of
from nncc.resources import cache_folder, runtime_folder
from nncc.target import Target
from nncc.worker import never_ended, signal_name

__all__ = ["build_runner", "emulate", "emulator", "write_runner"]


def emulator(target: Target) -> list[str]:
    """The words to put before a program of `target` to run it here: none on a machine of its own kind.

    Raises TargetError if this machine cannot run it.
    """
    missing = host().missing(target)
    if missing == [] and target.hardware.multiprocessors and (reason := driver_problem()):
        raise TargetError(f"this machine cannot run target `{target.name}`: {reason}", "run it on one with such a GPU")
    if missing == []:
        return []
    if missing is not None:
        words = ", ".join(missing)
        raise TargetError(f"this machine cannot run target `{target.name}`: its processor lacks {words}")
    name, sysroot = target.link.emulator, target.link.sysroot
    hint = f"`apt install {target.link.packages}`, or run it on a machine of its own" if target.link.packages else None
    if not name:
        raise TargetError(f"this machine cannot run target `{target.name}`, and it names no emulator", hint)
    if not shutil.which(name):
        raise TargetError(f"this machine cannot run target `{target.name}`: there is no `{name}`", hint)
    if not sysroot or os.environ.get("QEMU_LD_PREFIX"):
        return [name]
    if not Path(sysroot).is_dir():
        raise TargetError(f"this machine cannot run target `{target.name}`: there is no `{sysroot}`", hint)
    return [name, "-L", sysroot]


def emulate(
    path: Path, target: Target, emulator: Sequence[str], words: Sequence[str], timeout: float | None = None
) -> str:
    """What the generic runner prints for these `words` about a library of another machine.

    Raises RunError where the library fails or crashes, or is killed after `timeout` seconds.
    """
    command = [*emulator, str(build_runner(target)), str(path), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise never_ended(path, error.timeout) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip().removeprefix("nncc-bench: ")
    name = Path(emulator[0]).name
    if done.returncode < 0 or "uncaught target signal" in said:
        number = -done.returncode if done.returncode < 0 else int(said.split("uncaught target signal")[1].split()[0])
        raise RunError(f"{path} crashed in {name}: {signal_name(number)}", "please report this, with the model")
    raise RunError(f"{path}: {said or f'{name} ended with exit status {done.returncode}'}")


def build_runner(target: Target, folder: Path | None = None, *, toolchain: Toolchain | None = None) -> Path:
    """The program that loads, runs and times any library, compiled for `target`; made once, kept in `folder`.

    `folder` is by default the user's cache. Raises ToolError and OutputError as `nncc.codegen.link.link`.
    """
    folder = folder or cache_folder()
    toolchain = toolchain or find_toolchain(target)
    runtime = runtime_folder()
    sources = ("bench_main.c", "clock.h", "nncc.h")
    text = b"".join((runtime / name).read_bytes() for name in sources)
    key = hashlib.sha256(text + repr((target.link, toolchain)).encode()).hexdigest()[:16]
    runner = folder / f"runner-{key}{'.exe' if target.link.format == 'coff' else ''}"
    if runner.is_file():
        return runner
    with workshop(folder) as work:
        for name in sources:
            shutil.copyfile(runtime / name, work / name)
        libraries = {"elf": ["-ldl", "-lm", "-lpthread"], "coff": [], "macho": []}[target.link.format]
        flags = ["-O2", "-std=gnu11", *target.link.cflags]
        call_tool([*toolchain.command, *flags, "bench_main.c", "-o", runner.name, *libraries], work)
        os.replace(work / runner.name, runner)
    return runner


def write_runner(library: Path, folder: Path) -> Path:
    """Write the bench program for a library's target to `folder`: ``nncc-bench``, for a board without Python.

    Raises RunError if the file is no library, ToolError if the program cannot be compiled, OutputError.
    """
    target = target_of(library)
    runner = build_runner(target)
    program = folder / f"nncc-bench{runner.suffix if runner.suffix == '.exe' else ''}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(runner, program)
    except OSError as error:
        raise OutputError(f"cannot write `{program}`: {error.strerror or error}", "choose another folder") from error
    return program
