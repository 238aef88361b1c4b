"""This machine: what it is, and what LLVM says of a processor's features, in the words of `Hardware.features`."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import TargetError

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["Gpu", "Host", "driver_problem", "gpu", "host", "llvm_features", "system_of"]

_CPUINFO_WORDS = {"pni": "sse3", "abm": "lzcnt"}
"""Words of /proc/cpuinfo that the C runtime, and so `Hardware.features`, spells otherwise."""

_CPUINFO_PROCESSOR = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "CPU variant", "uarch")
"""Keys of /proc/cpuinfo that say which processor it is, on one architecture or another."""

_LLVM_WORDS = {
    "x86": {
        "sse3": "sse3",
        "ssse3": "ssse3",
        "sse4.1": "sse4_1",
        "sse4.2": "sse4_2",
        "popcnt": "popcnt",
        "cx16": "cx16",
        "avx": "avx",
        "avx2": "avx2",
        "fma": "fma",
        "f16c": "f16c",
        "bmi": "bmi1",
        "bmi2": "bmi2",
        "lzcnt": "lzcnt",
        "movbe": "movbe",
        "avx512f": "avx512f",
        "avx512bw": "avx512bw",
        "avx512cd": "avx512cd",
        "avx512dq": "avx512dq",
        "avx512vl": "avx512vl",
        "avx512vnni": "avx512_vnni",
        "avxvnni": "avx_vnni",
    },
    "aarch64": {"dotprod": "asimddp", "fullfp16": "asimdhp", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve"},
    "arm": {"neon": "neon", "vfp4": "vfpv4"},
    "riscv": {"v": "v"},
}
"""For each architecture: LLVM's features that kernels may use, in the words of `Hardware.features`."""


@dataclass(frozen=True)
class Host:
    """What this machine says of itself."""

    system: str
    machine: str
    features: frozenset[str]
    cores: int
    l1_kib: int = 0
    """0 where not known."""
    l2_kib: int = 0
    last_cache_kib: int = 0
    """Of the largest cache, which cores may share; 0 where not known."""
    processor: str = ""
    """What tells this processor from others, for telling what was measured on which; may be empty."""

    def missing(self, target: Target) -> list[str] | None:
        """The features that `target` needs and this machine lacks; None if it is another kind of machine."""
        if (self.system, self.machine) != (target.link.system, target.link.machine):
            return None
        return [word for word in target.hardware.features if word not in self.features]


def host() -> Host:
    """This machine. Reads ``/proc`` and ``/sys`` on Linux; elsewhere asks LLVM for the features."""
    system, machine = platform.system(), platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if system != "Linux":
        return Host(system, machine, frozenset(llvm_features(None)), cores, processor=platform.processor())
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    words = facts.get("flags", facts.get("Features", "")).split()
    features = frozenset(_CPUINFO_WORDS.get(word, word) for word in words)
    caches = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            caches[level] = int(size[:-1])
    processor = ", ".join(facts[key] for key in _CPUINFO_PROCESSOR if key in facts)
    last = max(caches.values(), default=0)
    return Host(system, machine, features, cores, caches.get("1", 0), caches.get("2", 0), last, processor)


@dataclass(frozen=True)
class Gpu:
    """A GPU as CUDA's driver describes it."""

    name: str
    major: int
    minor: int
    """Of its compute capability."""


def gpu(ordinal: int = 0) -> Gpu | str:
    """The GPU of this number, or why no program can use it. It starts the driver in this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed, count, device = driver.cuInit(0), ctypes.c_int(), ctypes.c_int()
        failed = failed or driver.cuDeviceGetCount(ctypes.byref(count))
        if failed:
            return f"NVIDIA's driver does not start (error {failed})"
        if not count.value:
            return "it has no GPU"
        if ordinal >= count.value:
            return f"it has no GPU of number {ordinal}"
        name, numbers = ctypes.create_string_buffer(200), (ctypes.c_int(), ctypes.c_int())
        failed = driver.cuDeviceGet(ctypes.byref(device), ordinal) or driver.cuDeviceGetName(name, 200, device)
        for attribute, number in zip(_CAPABILITY, numbers, strict=True):
            failed = failed or driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    except (OSError, AttributeError) as error:
        return f"NVIDIA's driver cannot be opened ({error})"
    if failed:
        return f"NVIDIA's driver does not describe its GPU (error {failed})"
    return Gpu(name.value.decode(errors="replace"), numbers[0].value, numbers[1].value)


_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


def driver_problem() -> str:
    """Why no program can use a GPU of NVIDIA's here; empty where the driver finds one."""
    found = gpu()
    return found if isinstance(found, str) else ""


def llvm_features(tvm: dict[str, Any] | None) -> tuple[str, ...]:
    """What LLVM may use for this dictionary, or for this machine, in the words of `Hardware.features`."""
    import tvm as tvm_package
    from tvm.target import codegen

    if tvm is None:
        tvm = {"kind": "llvm", "mtriple": codegen.llvm_get_system_triple(), "mcpu": codegen.llvm_get_system_cpu()}
    options = {key: value for key, value in tvm.items() if key in ("kind", "mtriple", "mcpu", "mattr")}
    try:
        features = {str(feature) for feature in codegen.llvm_get_cpu_features(tvm_package.target.Target(options))}
    except (ValueError, TypeError, RuntimeError) as error:
        raise TargetError(f"LLVM does not take {json.dumps(options)}: {str(error).strip()}") from error
    machine = system_of(tvm["mtriple"])[0]
    family = "x86" if machine in ("x86_64", "i686", "i386") else re.sub(r"(32|64)$", "", machine)
    words = _LLVM_WORDS.get(machine, _LLVM_WORDS.get(family, {}))
    return tuple(word for feature, word in words.items() if feature in features)


def system_of(mtriple: str) -> tuple[str, str]:
    """Architecture and system of a triple, by one name each."""
    machine = mtriple.split("-")[0]
    for prefix, name in (("arm64", "aarch64"), ("armv7", "arm"), ("thumbv7", "arm"), ("amd64", "x86_64")):
        if machine.startswith(prefix):
            machine = name
    systems = {"linux": "linux", "windows": "windows", "mingw": "windows", "apple": "macos", "darwin": "macos"}
    return machine, next((name for word, name in systems.items() if word in mtriple), "")
