"""A GPU made of g++: device kernels as functions of the processor, and a libcuda.so.1 that launches them.

    kernels = emulated(source)                     # a library, kept in a cache
    launch(kernels, "scale", (4, 1, 1), (32, 1, 1), [x, y])         # numpy arrays in place of device memory

    environment = fake_gpu(kernels)                # of a process that believes it has a GPU
    run_python("import nncc; print(nncc.load('model.so').run(...))", environment)

tests/cuda/emulator.hpp says what is emulated, tests/cuda/fake_libcuda.cpp what the driver does and which variables of
the environment change it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "cuda"
_FLAGS = ("-std=gnu++17", "-O2", "-g0", "-fPIC", "-shared", "-fno-strict-aliasing", "-fvisibility=hidden", "-w")
_ALIGNMENT = ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")
_HEADERS = ("emulator.hpp", "fiber.hpp", "device_language.hpp", "include/cuda_fp16.h", "include/cuda_bf16.h")
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(\s*(\d+)[^)]*\)\s*)?(\w+)\s*\([^;{]*\{'
)
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:(?:alignas|__align__)\s*\(\s*\d+\s*\)\s*)?([\w\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)


def compiler() -> str | None:
    """The C++ compiler that emulates, or None where there is none, or the system is not Linux, whose ELF it takes."""
    return shutil.which("g++") or shutil.which("clang++") if platform.system() == "Linux" else None


def device_compiler() -> str:
    """The compiler of machine code for real GPUs; empty where there is none."""
    from nncc.codegen.cuda_compiler import find_compiler
    from nncc.errors import NnccError

    try:
        return find_compiler().name
    except NnccError:
        return ""


def emulated(source: str, *flags: str) -> Path:
    """The library of the device kernels of `source`, CUDA C++; compiled once for each source and set of `flags`."""
    bounds = {name: bound or "1024" for bound, name in _KERNEL.findall(source)}
    text = _DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(emulator::dynamic_shared());", source)
    text += f"\nEMULATED_KERNELS({' '.join(f'EMULATED({name}, {bound})' for name, bound in bounds.items())})\n"
    # A vector at an odd place is a fault on a GPU.
    checks = () if any("-fsanitize" in flag for flag in flags) else _ALIGNMENT
    native = ("-march=native",) if platform.machine() == "x86_64" else ()
    return _built(
        "kernels.so",
        {"kernels.cu": text},
        (*_FLAGS, *checks, *native, f"-I{HERE / 'include'}", "-include", str(HERE / "emulator.hpp"), *flags),
        _HEADERS,
    )


def launch(
    kernels: Path,
    symbol: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    arrays: Sequence[np.ndarray],
    shared_bytes: int = 0,
) -> None:
    """Run one kernel on `arrays`, contiguous, one a parameter; RuntimeError if it fails."""
    library = ctypes.CDLL(str(kernels))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    addresses = (ctypes.c_void_p * max(1, len(pointers)))(*[ctypes.addressof(p) for p in pointers])
    error = ctypes.create_string_buffer(1000)
    count = library.emulated_parameters(symbol.encode())
    if count < 0:
        raise RuntimeError(f"there is no kernel `{symbol}`")
    if count != len(arrays):
        raise RuntimeError(f"kernel `{symbol}` has {count} parameters, and {len(arrays)} are given")
    three = ctypes.c_uint * 3
    shared = ctypes.c_size_t(shared_bytes)
    if library.emulated_launch(
        symbol.encode(), three(*grid), three(*block), shared, addresses, error, ctypes.c_size_t(1000)
    ):
        raise RuntimeError(error.value.decode())


def fake_gpu(kernels: Path, *flags: str, **variables: str) -> dict[str, str]:
    """The environment of a process whose libcuda.so.1 is the fake one, compiled with `flags`, and has `kernels`.

    `variables` are those of fake_libcuda.cpp, without NNCC_FAKE_CUDA_ and in lower case: ``capability="8.0"``.
    """
    driver = _built(
        "libcuda.so.1",
        {"fake_libcuda.cpp": (HERE / "fake_libcuda.cpp").read_text()},
        ("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-soname,libcuda.so.1", *flags, "-ldl"),
        (),
    )
    paths = os.pathsep.join(filter(None, [str(driver.parent), os.environ.get("LD_LIBRARY_PATH")]))
    own = {f"NNCC_FAKE_CUDA_{name.upper()}": value for name, value in variables.items()}
    return os.environ | {"LD_LIBRARY_PATH": paths, "NNCC_FAKE_CUDA_KERNELS": str(kernels)} | own


def fake_compiler(folder: Path) -> str:
    """The path of an nvcc, made in `folder`, whose cubins are libraries of this machine that the fake driver loads; its
    environment's NNCC_FAKE_NVCC_SPILLS are words of kernels that it says spill."""
    script = folder / "nvcc"
    search = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{search}" exec "{sys.executable}" "{HERE / "fake_nvcc.py"}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def kernel_texts(source: str) -> dict[str, str]:
    """The kernels of a source by name, each from its name on to the next one."""
    found = list(_KERNEL.finditer(source))
    ends = [match.start() for match in found[1:]] + [len(source)]
    return {match.group(2): source[match.start() : end] for match, end in zip(found, ends, strict=True)}


def run_python(script: str, environment: dict[str, str], *arguments: str | Path) -> str:
    """What `script` prints; AssertionError with its stderr if it fails."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1], timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _built(name: str, sources: dict[str, str], flags: Sequence[str], headers: Sequence[str]) -> Path:
    """`name`, compiled from `sources` with `flags`, from the cache if nothing changed."""
    command = compiler()
    if command is None:
        raise RuntimeError("there is no C++ compiler")
    digest = hashlib.sha256(repr((command, sources, tuple(flags), platform.node())).encode())
    for header in headers:
        digest.update((HERE / header).read_bytes())
    folder = Path(tempfile.gettempdir()) / f"nncc-fake-cuda-{os.getuid()}" / digest.hexdigest()[:24]
    if (folder / name).exists():
        return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for file, text in sources.items():
            Path(work, file).write_text(text)
        call = [command, "-x", "c++", *sources, "-x", "none", *flags, "-o", name]
        done = subprocess.run(call, cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(call)}\n{done.stderr[:4000]}")
        os.replace(Path(work, name), folder / name)
    return folder / name
