"""CUDA C++ to machine code, with no GPU: nvcc where it is installed, else NVRTC, NVIDIA's library of it.

Both give a cubin for the architecture that is named, PTX that later ones compile it from, and what each kernel takes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nncc.errors import InternalError, ToolError

__all__ = ["Compiler", "DeviceCode", "Resources", "compile_device_code", "find_compiler"]

_OPTIONS = ("-std=c++17", "-diag-suppress=177")
"""177: TVM's code declares names that it does not use."""


@dataclass(frozen=True)
class Resources:
    """What a kernel takes, as the assembler says."""

    registers: int
    """Of each thread, 32 bits each."""
    shared_bytes: int
    """Of each block, without dynamic shared memory."""
    spilled_bytes: int
    """What each thread writes to memory, and reads back, because registers are lacking."""
    stack_bytes: int
    """Of each thread: arrays that are not in registers."""


@dataclass(frozen=True)
class DeviceCode:
    """Machine code of all kernels of a model."""

    cubin: bytes
    """An ELF file for one architecture."""
    ptx: bytes
    """Text, from which a driver makes code for later architectures; empty where only this one was asked for."""
    resources: Mapping[str, Resources]
    """By kernel."""
    compiler: str
    """Name and version, such as ``nvcc 13.0``."""


@dataclass(frozen=True)
class Compiler:
    """A compiler of CUDA C++ on this machine."""

    name: str
    """With its version."""
    compile: Callable[[str, str, bool], tuple[bytes, bytes, str]]
    """Cubin, PTX and the assembler's report of a source for an architecture, ``sm_80``; and whether later ones matter,
    for which the PTX is."""


def compile_device_code(source: str, arch: str, later: bool = True) -> DeviceCode:
    """Compile CUDA C++ for `arch`, such as ``sm_80``, and for `later` ones.

    Where the assembler would rather spill some registers than have fewer blocks on a multiprocessor, it is asked once
    more, to hold at least one block.

    Raises ToolError if there is no compiler or it does not know the architecture, InternalError if it refuses the code.
    """
    compiler = find_compiler()

    def compiled(source: str) -> DeviceCode:
        cubin, ptx, report = compiler.compile(source, arch, later)
        return DeviceCode(cubin, ptx, read_resources(report), compiler.name)

    code = compiled(source)
    roomy = _with_room(source, [name for name, used in code.resources.items() if used.spilled_bytes])
    if roomy == source:
        return code
    again = compiled(roomy)
    return min(code, again, key=lambda each: sum(used.spilled_bytes for used in each.resources.values()))


def _with_room(source: str, kernels: Sequence[str]) -> str:
    """The source, with so many registers for some of its kernels that a multiprocessor holds one block of them."""
    for name in kernels:
        source = re.sub(rf"__launch_bounds__\((\d+)\) ({re.escape(name)})\(", r"__launch_bounds__(\1, 1) \2(", source)
    return source


def find_compiler() -> Compiler:
    """nvcc of ``$NNCC_NVCC``, of ``PATH`` or of ``/usr/local/cuda``, else NVRTC as pip installs it.

    Raises ToolError that says what was looked for.
    """
    wanted = os.environ.get("NNCC_NVCC", "")
    if wanted and not shutil.which(wanted):
        raise ToolError(f"there is no compiler `{wanted}`, which $NNCC_NVCC names", "unset NNCC_NVCC, or correct it")
    nvcc = shutil.which(wanted or "nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc:
        return _nvcc(nvcc)
    library = _nvrtc_library()
    if library is not None:
        return _nvrtc(library)
    raise ToolError(
        "no compiler for CUDA: looked for nvcc on PATH and in /usr/local/cuda, and for NVRTC among Python's packages",
        "`pip install 'nncc[cuda]'` brings NVRTC, NVIDIA's toolkit nvcc; neither needs a GPU",
    )


def read_resources(report: str) -> dict[str, Resources]:
    """What ``ptxas -v`` says, by kernel."""
    found: dict[str, Resources] = {}
    for part in re.split(r"(?=ptxas info\s*: Compiling entry function)", report):
        name = re.search(r"Compiling entry function '(\w+)'", part)
        if name is None:
            continue

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match.group(1)) if match else 0

        found[name.group(1)] = Resources(
            registers=number(r"Used (\d+) registers"),
            shared_bytes=number(r"(\d+) bytes smem"),
            spilled_bytes=max(number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes spill loads")),
            stack_bytes=number(r"(\d+) bytes stack frame"),
        )
    return found


def _nvcc(nvcc: str) -> Compiler:
    try:
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"`{nvcc} --version` failed: {error}") from error
    release = re.search(r"release (\d+\.\d+)", said.stdout)

    def compile_(source: str, arch: str, later: bool) -> tuple[bytes, bytes, str]:
        virtual = arch.replace("sm_", "compute_")
        with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
            work = Path(scratch)
            (work / "kernels.cu").write_text(source)
            front = [nvcc, *_OPTIONS, "-ptx", f"-arch={virtual}", "kernels.cu", "-o", "kernels.ptx"]
            _call(front, work, arch)
            back = [nvcc, "-cubin", f"-arch={arch}", "-Xptxas=-v", "kernels.ptx", "-o", "kernels.cubin"]
            report = _call(back, work, arch)
            ptx = (work / "kernels.ptx").read_bytes() if later else b""
            return (work / "kernels.cubin").read_bytes(), ptx, report

    return Compiler(f"nvcc {release.group(1) if release else 'of unknown version'}", compile_)


def _call(command: list[str], work: Path, arch: str) -> str:
    """What a command says on stderr."""
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    except OSError as error:
        raise ToolError(f"`{command[0]}` cannot be run: {error}") from error
    if done.returncode == 0:
        return done.stderr
    raise _refusal(f"`{' '.join(command)}`", done.stderr + done.stdout, arch)


def _refusal(what: str, said: str, arch: str) -> ToolError | InternalError:
    """The error for what a compiler says when it fails."""
    if re.search(r"[Uu]nsupported gpu architecture|invalid value for --gpu-architecture|not defined for option", said):
        return ToolError(f"{what}: this compiler does not know {arch}", "install a newer CUDA toolkit, or NVRTC")
    return InternalError(f"build: {what} failed:\n{said.strip()[:4000]}")


_NVRTC_PACKAGES = ("nvidia.cu13", "nvidia.cuda_nvrtc")
"""Where pip puts NVRTC: of CUDA 13, and of earlier ones."""


def _nvrtc_library() -> Path | None:
    for package in _NVRTC_PACKAGES:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in spec.submodule_search_locations if spec and spec.submodule_search_locations else ():
            found = sorted(Path(folder, "lib").glob("libnvrtc.so.*"), key=lambda path: len(path.name))
            if found:
                return found[0]
    return None


def _nvrtc(library: Path) -> Compiler:
    try:
        nvrtc = ctypes.CDLL(str(library))
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    except (OSError, AttributeError) as error:
        raise ToolError(f"NVRTC cannot be loaded from `{library}`: {error}") from error
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compile_(source: str, arch: str, later: bool) -> tuple[bytes, bytes, str]:
        virtual = arch.replace("sm_", "compute_")
        cubin, report = _nvrtc_compile(nvrtc, source, arch, "CUBIN", ("--ptxas-options=-v",))
        ptx, _ = _nvrtc_compile(nvrtc, source, virtual, "PTX", ()) if later else (b"", "")
        return cubin, ptx.rstrip(b"\0"), report

    return Compiler(f"NVRTC {major.value}.{minor.value}", compile_)


def _nvrtc_compile(
    nvrtc: ctypes.CDLL, source: str, arch: str, form: str, options: tuple[str, ...]
) -> tuple[bytes, str]:
    """The code in one form, ``CUBIN`` or ``PTX``, and the log."""
    program = ctypes.c_void_p()

    def call(name: str, *arguments: object) -> int:
        return int(getattr(nvrtc, name)(*arguments))

    def text(name: str) -> bytes:
        size = ctypes.c_size_t()
        call(f"{name}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(1, size.value))
        call(name, program, buffer)
        return buffer.raw[: size.value]

    failed = call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    if failed:
        raise InternalError(f"build: nvrtcCreateProgram failed: {nvrtc.nvrtcGetErrorString(failed).decode()}")
    try:
        words = [option.encode() for option in (*_OPTIONS, f"--gpu-architecture={arch}", *options)]
        failed = call("nvrtcCompileProgram", program, len(words), (ctypes.c_char_p * len(words))(*words))
        log = text("nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
        if failed:
            reason = nvrtc.nvrtcGetErrorString(failed).decode()
            raise _refusal("NVRTC", f"{reason}\n{log}", arch)
        return text(f"nvrtcGet{form}"), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
