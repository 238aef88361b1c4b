"""What this machine attains at most: arithmetic, and reading from each size of memory.

Beside a library it is measured anew, by medians, as its kernels are: processors clock themselves by what they and their
neighbours do, and by several percent otherwise from one second to the next. What predictions need is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from nncc.codegen.link import link
from nncc.codegen.publish import workshop
from nncc.errors import NnccError, OutputError
from nncc.execute import OpenLibrary
from nncc.host import host
from nncc.ir import Operations
from nncc.library_facts import target_of
from nncc.resources import cache_folder, runtime_folder
from nncc.target import Target
from nncc.worker import work

__all__ = ["TIMES", "Roofline", "attempt", "build", "measure", "roofline", "typical", "with_peak", "working_set"]

SECONDS = 0.8
"""How long to measure; the median of all rounds counts, and one takes tens of milliseconds."""
TIMES = 3
"""How often a roofline is measured before what is kept is only read: other programs may disturb a whole measurement."""
SMALL = 8 << 20
"""Bytes that are read in far less than a millisecond wherever that many fit into a cache."""

_FLAGS = {
    "avx": ("-mavx",),
    "fma": ("-mfma",),
    "avx512f": ("-mavx512f",),
    # NEON takes denormal floats for zero, so that compilers want to be told before they use it for them.
    "vfpv4": ("-mfpu=neon-vfpv4", "-funsafe-math-optimizations"),
}
"""Flags that let a C compiler use what kernels may, by the word of `Hardware.features`."""


@dataclass(frozen=True)
class Roofline:
    """What a machine attains on a number of threads, with the instructions that a library may use."""

    gflops: float
    """Float32 multiply-adds in registers, two operations each."""
    bandwidth: tuple[tuple[int, float], ...]
    """For working sets of so many bytes, how many GB/s are read again and again; the last fits into no cache."""
    described: bool = False
    """Whether it is what the target's description says of a GPU, rather than what was measured."""

    @property
    def memory_gbps(self) -> float:
        """From beyond the caches."""
        return self.bandwidth[-1][1]

    def gbps(self, nbytes: float) -> float:
        """The bandwidth at the working set that is nearest to `nbytes` by ratio: what fits a cache comes from there."""
        return min(self.bandwidth, key=lambda rung: max(rung[0], nbytes) / max(1.0, min(rung[0], nbytes)))[1]

    def least_seconds(
        self, operations: Operations, nbytes: float, weight_bytes: float = 0.0, working_set: float = 0.0
    ) -> float:
        """The time below which so many operations on so many distinct bytes cannot be done.

        This is the roofline (Williams et al. 2009) from its other side. Additions are done with the multiplications,
        and those that are more than these beside them, on units of their own at best. `nbytes` may come from where so
        many fit; the `weight_bytes` among them from where the `working_set` fits, all that an inference touches before
        it reads them again. Without operations it is the time of reading.
        """
        busiest = max(operations.multiplications, operations.additions - operations.multiplications)
        return max(
            2 * busiest / (self.gflops * 1e9),
            nbytes / (self.gbps(nbytes) * 1e9),
            weight_bytes / (self.gbps(working_set) * 1e9),
        )


def roofline(library: OpenLibrary, seconds: float = SECONDS) -> Roofline:
    """The roofline of this machine for a library and its threads, as it is now: measured in about a second; of a GPU,
    what the description of the library's target says.

    Raises ToolError where there is no C compiler for this machine or it fails, RunError where the measuring fails.
    """
    target = target_of(library.path)
    hardware = target.hardware
    if hardware.multiprocessors:
        return Roofline(hardware.peak_gflops, ((hardware.l2_kib << 10, hardware.dram_gbps),), described=True)
    features = tuple(library.description["features"])
    return measure(target, features, _vector_bits(target, features), _sizes(), library.threads, seconds)


def with_peak(target: Target, required: bool = True) -> Target:
    """`target` with what one core of this machine attains, where it is this machine and does not say so itself.

    Raises as :func:`roofline`; where that is not `required`, the target then stays as it is.
    """
    if target.hardware.peak_gflops or target.name.split(",")[0] != "native":
        return target
    try:
        found = _kept(target, target.hardware.features, 1)
    except NnccError:
        if required:
            raise
        return target
    gflops, gbps = round(found.gflops, 1), round(found.memory_gbps, 1)
    return replace(target, hardware=replace(target.hardware, peak_gflops=gflops, dram_gbps=gbps))


def _kept(target: Target, features: tuple[str, ...], threads: int) -> Roofline:
    vector_bits, sizes, machine = _vector_bits(target, features), _sizes(), host()
    about = (machine.processor, machine.cores, sorted(features), vector_bits, threads, sizes)
    text = (runtime_folder() / "roofline.c").read_bytes()
    kept = cache_folder() / f"roofline-{hashlib.sha256(text + repr(about).encode()).hexdigest()[:16]}.json"
    before, times = _read(kept)
    if before is not None and times >= TIMES:
        return before
    found = measure(target, features, vector_bits, sizes, threads)
    if before is not None:
        found = _better(found, before)
    facts = {"gflops": found.gflops, "bandwidth": found.bandwidth, "times": times + 1}
    with contextlib.suppress(OutputError), workshop(kept.parent) as folder:  # what cannot be kept is measured again
        (folder / "new").write_text(json.dumps(facts))
        os.replace(folder / "new", kept)
    return found


def _read(kept: Path) -> tuple[Roofline | None, int]:
    """The roofline in a file of the cache, and how often it was measured; None and 0 where there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads(kept.read_text(encoding="utf-8"))
        bandwidth = tuple((int(size), float(gbps)) for size, gbps in facts["bandwidth"])
        return Roofline(float(facts["gflops"]), bandwidth), int(facts["times"])
    return None, 0


def _better(one: Roofline, other: Roofline) -> Roofline:
    """What either of two measurements of a machine attains: nothing makes it faster than it is."""
    best = dict(other.bandwidth)
    bandwidth = tuple((size, max(gbps, best.get(size, 0.0))) for size, gbps in one.bandwidth)
    return Roofline(max(one.gflops, other.gflops), bandwidth)


def working_set(description: Mapping[str, Any]) -> float:
    """How many bytes an inference touches: a library's weights and arena."""
    return float(description["weights_bytes"] + description["arena_bytes"])


def attempt(library: OpenLibrary, seconds: float = SECONDS) -> Roofline | NnccError:
    """The roofline, or why there is none, for reports that are of use without it."""
    try:
        return roofline(library, seconds)
    except NnccError as error:
        return error


def typical(found: Sequence[Roofline | NnccError]) -> Roofline | NnccError:
    """What measurements made in turn with something else say together: medians; an error where there are only such."""
    good = [each for each in found if isinstance(each, Roofline)]
    if not good:
        return found[0]
    bandwidth = (
        (rungs[0][0], median(gbps for _, gbps in rungs)) for rungs in zip(*(e.bandwidth for e in good), strict=True)
    )
    return replace(good[0], gflops=median(each.gflops for each in good), bandwidth=tuple(bandwidth))


def measure(
    target: Target,
    features: Sequence[str],
    vector_bits: int,
    sizes: Sequence[int],
    threads: int,
    seconds: float = SECONDS,
) -> Roofline:
    """Measure now, with a model written in C in place of a compiled one. Raises as :func:`roofline`."""
    # What takes little time is done several times a round, for as many samples of it.
    calls = [0, *(size for size in sizes if size <= SMALL)] * 4 + [size for size in sizes if size > SMALL]
    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        library = build(target, features, vector_bits, calls, Path(scratch))
        found = work(library, {"task": "calls", "threads": threads, "folder": scratch, "seconds": seconds})
    rates: dict[int, list[float]] = {}
    for seconds_of_calls in found["call_seconds"]:
        for size, amount, each in zip(calls, found["outputs"]["amounts"], seconds_of_calls, strict=True):
            rates.setdefault(size, []).append(amount / each * 1e-9)
    return Roofline(median(rates[0]), tuple((size, median(rates[size])) for size in sizes))


def build(target: Target, features: Sequence[str], vector_bits: int, calls: Sequence[int], folder: Path) -> Path:
    """The library that measures, made in `folder`: each call reads so many bytes, or computes where it is 0."""
    used = [word for word in features if word in _FLAGS]
    flags = tuple(flag for word in used for flag in _FLAGS[word])
    source, weights = folder / "model.c", folder / "weights.bin"
    source.write_text(
        f'#define NNCC_FEATURES "{",".join(used)}"\n'
        f"#define NNCC_VECTOR_BYTES {vector_bits // 8}\n"
        f"#define NNCC_SIZES(DO) {' '.join(f'DO({size})' for size in calls)}\n"
        f"#define NNCC_MOST_BYTES {max(calls)}\n"
        '#include "roofline.c"\n'
    )
    weights.write_bytes(b"")
    return link(
        replace(target, link=replace(target.link, cflags=(*target.link.cflags, *flags))),
        folder / "linked",
        source=source,
        kernels=None,
        weights=weights,
        stem="roofline",
        include=[runtime_folder()],
        static_prefix="roofline",
        emit=["so"],
    )["so"]


def _vector_bits(target: Target, features: Sequence[str]) -> int:
    """Width of the vectors of a library's kernels: its target's, or where that is not known the widest it may use."""
    if set(features) == set(target.hardware.features):
        return target.hardware.vector_bits
    return 512 if "avx512f" in features else 256 if "avx" in features else min(128, target.hardware.vector_bits)


def _sizes() -> tuple[int, ...]:
    """Working sets in bytes: from what every first-level cache holds, by doubling, to four times the last cache."""
    memory = min(max(128 << 20, 4 * host().last_cache_kib << 10), 512 << 20)
    return (*(1 << bits for bits in range(14, 27)), memory)
