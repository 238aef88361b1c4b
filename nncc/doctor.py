"""What this machine has for compiling and running models, and what it lacks: data for ``nncc doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from nncc.codegen.cuda_compiler import find_compiler
from nncc.codegen.toolchains import find_toolchain, toolchains
from nncc.emulation import emulator
from nncc.errors import NnccError
from nncc.host import driver_problem, host
from nncc.resources import cache_folder
from nncc.target import Target, available

__all__ = ["PROBES", "Row", "diagnose"]


class Row(NamedTuple):
    """One thing looked at."""

    check: str
    status: Literal["ok", "warn", "fail"]
    """``fail``: nncc cannot compile here; ``warn``: something that some work needs is not there."""
    detail: str
    hint: str = ""


def diagnose() -> list[Row]:
    """Every probe's rows. A probe that goes wrong is a row itself: nothing raises."""
    rows: list[Row] = []
    for name, probe in PROBES.items():
        try:
            rows += probe()
        except Exception as error:  # whatever is broken is what the reader wants to hear of
            rows.append(Row(name, "fail", f"{type(error).__name__}: {error}"))
    return rows


def _python() -> Iterator[Row]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    bounds = re.findall(r"(>=|<)\s*(\d+)\.(\d+)", _requires_python())
    fits = {">=": lambda bound: sys.version_info[:2] >= bound, "<": lambda bound: sys.version_info[:2] < bound}
    if all(fits[sign]((int(major), int(minor))) for sign, major, minor in bounds):
        yield Row("python", "ok", found)
    else:
        yield Row("python", "fail", found, f"nncc wants Python {_requires_python()}")


def _packages() -> Iterator[Row]:
    for requirement in _requirements():
        match = re.match(r"([A-Za-z0-9_.-]+)\s*((==|>=)\s*([\w.]+))?", requirement)
        if match is None or not _applies(requirement):
            continue
        name, bound, sign, wanted = match.groups()
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Row(name, "fail", "not installed", f"`pip install '{name}{bound or ''}'`")
            continue
        if sign == "==" and found != wanted:
            yield Row(name, "fail", f"{found}, pinned to {wanted}", f"`pip install '{name}=={wanted}'`")
        elif sign == ">=" and _numbers(found) < _numbers(wanted):
            yield Row(name, "fail", f"{found}, older than {wanted}", f"`pip install '{name}>={wanted}'`")
        else:
            yield Row(name, "ok", found)


def _llvm() -> Iterator[Row]:
    from tvm.target import codegen

    version, processor = codegen.llvm_version_major(), codegen.llvm_get_system_cpu()
    yield Row("llvm", "ok", f"LLVM {version} in TVM, this processor is `{processor}`")


def _processor() -> Iterator[Row]:
    machine = host()
    yield Row("cores", "ok", str(machine.cores))
    known = dict.fromkeys(word for target in available() for word in target.hardware.features)
    words = " ".join(word for word in known if word in machine.features)
    yield Row("processor", "ok", words or "no features beyond the architecture's baseline")


def _compilers() -> Iterator[Row]:
    own = os.environ.get("CC") or "cc"
    if shutil.which(own.split()[0]):
        yield Row("cc", "ok", _first_line([*own.split(), "--version"]))
    else:
        yield Row("cc", "warn", f"`{own}` is not there", "install gcc or clang, or correct $CC")
    zig = importlib.util.find_spec("ziglang") is not None
    if zig:
        yield Row("zig", "ok", _first_line([sys.executable, "-m", "ziglang", "version"]))
    else:
        yield Row("zig", "warn", "not installed", "`pip install ziglang`: one compiler for every target")
    for gcc in _each(target.link.gcc for target in available()):
        if shutil.which(gcc):
            yield Row(gcc, "ok", _first_line([gcc, "--version"]))
        else:
            yield Row(gcc, "ok" if zig else "warn", f"not installed{', zig is' if zig else ''}")


def _cuda() -> Iterator[Row]:
    try:
        yield Row("cuda compiler", "ok", find_compiler().name)
    except NnccError as error:
        yield Row("cuda compiler", "warn", error.message, error.hint or "")
    problem = driver_problem()
    yield Row("gpu", "warn" if problem else "ok", problem or "NVIDIA's driver has one")


def _emulators() -> Iterator[Row]:
    seen = set()
    for target in available():
        name, sysroot = target.link.emulator, target.link.sysroot
        if not name or (name, sysroot) in seen or host().missing(target) is not None:
            continue
        seen.add((name, sysroot))
        lacking = [] if shutil.which(name) else [f"`{name}`"]
        if sysroot and not Path(sysroot).is_dir() and not os.environ.get("QEMU_LD_PREFIX"):
            lacking.append(f"`{sysroot}`")
        if lacking:
            yield Row(name, "warn", f"no {' and no '.join(lacking)}", f"`apt install {target.link.packages}`")
        else:
            yield Row(name, "ok", sysroot or "installed")


def _targets() -> Iterator[Row]:
    for target in available():
        runs, hint = _how_it_runs(target)
        try:
            find_toolchain(target)
        except NnccError as error:
            yield Row(f"target {target.name}", "warn", f"cannot be linked; {runs}", error.hint or str(error))
        else:
            names = ", ".join(toolchain.name for toolchain in toolchains(target))
            yield Row(f"target {target.name}", "ok", f"links with {names}; {runs}", hint)


def _how_it_runs(target: Target) -> tuple[str, str]:
    try:
        words = emulator(target)
    except NnccError as error:
        return "does not run here", error.hint or str(error)
    return (f"runs in {words[0]}" if words else "runs natively"), ""


def _cache() -> Iterator[Row]:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free_mib = shutil.disk_usage(existing).free // 2**20
    detail = f"{folder}, {free_mib / 1024:.1f} GiB free"
    if not os.access(existing, os.W_OK):
        yield Row("cache", "warn", f"{folder} cannot be written", "set NNCC_CACHE_DIR")
    elif free_mib < 1024:
        yield Row("cache", "warn", detail, "free some space, or set NNCC_CACHE_DIR")
    else:
        yield Row("cache", "ok", detail)


PROBES: dict[str, Callable[[], Iterable[Row]]] = {
    "python": _python,
    "packages": _packages,
    "llvm": _llvm,
    "processor": _processor,
    "compilers": _compilers,
    "cuda": _cuda,
    "emulators": _emulators,
    "targets": _targets,
    "cache": _cache,
}
"""What is looked at, in the order in which it is told."""


def _project() -> dict[str, object]:
    """The [project] table of a checkout that is not installed."""
    from nncc.toml import tomllib

    return tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]


def _requires_python() -> str:
    try:
        return importlib.metadata.metadata("nncc")["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return str(_project()["requires-python"])


def _requirements() -> list[str]:
    try:
        found = importlib.metadata.requires("nncc") or []
    except importlib.metadata.PackageNotFoundError:
        found = [str(requirement) for requirement in _project()["dependencies"]]  # type: ignore[attr-defined]
    return [requirement for requirement in found if "extra ==" not in requirement]


def _applies(requirement: str) -> bool:
    """Whether the requirement's marker, of those that our project file uses, holds here."""
    _, _, marker = requirement.partition(";")
    if match := re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)", marker):
        return sys.version_info[:2] < (int(match[1]), int(match[2]))
    if match := re.search(r"platform_system\s*(==|!=)\s*['\"](\w+)", marker):
        return (platform.system() == match[2]) == (match[1] == "==")
    return True


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _each(words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word]


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return (done.stdout or done.stderr).strip().split("\n")[0]
