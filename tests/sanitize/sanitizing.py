"""Libraries compiled so that every access of theirs to memory is checked: AddressSanitizer, and UBSan in their C.

What is compiled is what users get but for three things. The generated C and the runtime go through
``-fsanitize=address,undefined``; the kernels are LLVM's own code after its optimizations, instrumented by the clang in
ziglang (TVM has no such pass); buffers and constants lie apart, and what is between them is poisoned. The program that
runs them, the runner for boards, has inputs and outputs in blocks of their exact size, and is instrumented too. What
kernels compute with integers is not checked: they are told to wrap around.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from nncc.emulation import emulate
from nncc.execute import OpenLibrary
from nncc.target import resolve

__all__ = ["missing", "open_sanitized", "sanitized"]

RED_ZONE = 256
"""Bytes between two buffers: four of the widest vectors."""
_COMPILER = "cc -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
_OPTIONS = {
    # Contexts live as long as the runner does, which does not free them; what is not written yet is not zero.
    "ASAN_OPTIONS": "detect_leaks=0:max_malloc_fill_size=268435456:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
_SCRATCH = """
void* TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes, int dtype_code, int bits) {
  (void)device_type, (void)device_id, (void)dtype_code, (void)bits;
  void* block = NULL;
  return posix_memalign(&block, 64, nbytes) ? NULL : block;
}
int TVMBackendFreeWorkspace(int device_type, int device_id, void* block) {
  (void)device_type, (void)device_id;
  free(block);
  return 0;
}
"""
"""Scratch memory of kernels, each block by itself."""


@cache
def missing() -> str:
    """What this machine lacks to sanitize libraries; empty where it can."""
    if not importlib.util.find_spec("ziglang"):
        return "there is no ziglang, whose clang instruments the kernels"
    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        source = Path(scratch) / "empty.c"
        source.write_text("int main(void) { return 0; }\n")
        try:
            subprocess.run([*_COMPILER.split(), source, "-o", source.with_suffix("")], check=True, capture_output=True)
            subprocess.run([source.with_suffix("")], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return "cc has no AddressSanitizer"
    from nncc.compat import tvm

    said = subprocess.run([*_clang(), "--version"], capture_output=True, text=True, check=False).stdout
    theirs, ours = re.search(r"clang version (\d+)", said), tvm.get_global_func("target.llvm_version_major")()
    if theirs is None or int(theirs[1]) < ours:
        return f"ziglang's clang {theirs and theirs[1]} does not read what LLVM {ours} writes"
    return ""


def _clang() -> list[str]:
    return [sys.executable, "-m", "ziglang", "clang"]


@dataclass
class _Layout:
    """Where the buffers of the arena and the constants of the model that is being compiled lie: from byte to byte."""

    buffers: list[tuple[int, int]] = field(default_factory=list)
    constants: list[tuple[int, int]] = field(default_factory=list)

    def plan(self, buffers: Sequence[Any]) -> tuple[list[int], int]:
        """In place of `nncc.codegen.memory.plan`: no two buffers share memory, and all are apart."""
        from nncc.ir import align

        at, self.buffers = RED_ZONE, []
        for buffer in buffers:
            self.buffers.append((at, at + buffer.nbytes))
            at += align(buffer.nbytes) + RED_ZONE
        return [start for start, _ in self.buffers], at


def _gaps(taken: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    stops = [0, *(stop for _, stop in taken)]
    starts = [*(start for start, _ in taken), end]
    return [(stop, start) for stop, start in zip(stops, starts, strict=True) if start > stop]


@contextlib.contextmanager
def sanitized() -> Iterator[None]:
    """What is compiled within, for processors and by LLVM, is sanitized."""
    from nncc.backends import llvm
    from nncc.codegen import place
    from nncc.ir import align

    layout = _Layout()

    def apart(size: int, to: int) -> int:
        return align(size, to) + RED_ZONE

    def weights(memory: Any, original: Any = place.Memory.weights) -> Any:
        layout.constants = [(at, at + array.nbytes) for at, array in sorted(memory.constants.items())]
        return original(memory)

    def code_of(program: Any, dump_code: Any = (), rpc: bool = False, original: Any = llvm.code_of) -> Any:
        code = original(program, ("ll",), rpc)
        return replace(
            code,
            source=lambda build, compiler: _poisoned(code.source(build, compiler), program, layout),
            kernels=_instrumented(code.dumps["ll"], program.target),
            dumps={},
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(place, "plan", layout.plan))
        stack.enter_context(mock.patch.object(place, "align", apart))
        stack.enter_context(mock.patch.object(place.Memory, "weights", weights))
        stack.enter_context(mock.patch.object(llvm, "code_of", code_of))
        stack.enter_context(mock.patch.dict(os.environ, {"CC": _COMPILER}))
        yield


def _instrumented(text: str, target: Any) -> bytes:
    """The object file of LLVM code whose every access asks AddressSanitizer."""
    groups = {group for line in re.findall(r"^define .*$", text, re.M) for group in re.findall(r" (#\d+)", line)}
    text = re.sub(
        r"^attributes (#\d+) = \{",
        lambda found: found[0] + (" sanitize_address" if found[1] in groups else ""),
        text,
        flags=re.M,
    )
    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        source, made = Path(scratch) / "kernels.ll", Path(scratch) / "kernels.o"
        source.write_text(text)
        triple = f"--target={target.link.machine}-linux-gnu"
        command = [*_clang(), triple, "-fsanitize=address", "-O1", "-fPIC", "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return made.read_bytes()


def _poisoned(source: str, program: Any, layout: _Layout) -> str:
    """model.c in which what lies between buffers and constants is poison while the calls run."""

    def table(name: str, gaps: Sequence[tuple[int, int]]) -> str:
        rows = ", ".join(f"{{{start}u, {stop}u}}" for start, stop in [*gaps, (0, 0)])
        return f"static const size_t {name}[][2] = {{{rows}}};"

    end = max((stop for _, stop in layout.buffers), default=0) + RED_ZONE
    of_arena = _gaps(layout.buffers, end) if layout.buffers else []
    # Packed constants lie elsewhere: in the arena, behind all else.
    of_weights = [] if program.packed else _gaps(layout.constants, program.weights.nbytes)
    guard = f"""#include <sanitizer/asan_interface.h>
#include <stdlib.h>
{table("gaps_of_arena", of_arena)}
{table("gaps_of_weights", of_weights)}
static int32_t guarded_invoke(uint8_t* arena, const uint8_t* weights, int64_t* dims,
    const void* const* in, void* const* out, double* seconds) {{
  for (size_t i = 0; i < {len(of_arena)}; ++i) {{
    __asan_poison_memory_region(arena + gaps_of_arena[i][0], gaps_of_arena[i][1] - gaps_of_arena[i][0]);
  }}
  for (size_t i = 0; i < {len(of_weights)}; ++i) {{
    __asan_poison_memory_region(weights + gaps_of_weights[i][0], gaps_of_weights[i][1] - gaps_of_weights[i][0]);
  }}
  const int32_t failed = model_invoke(arena, weights, dims, in, out, seconds);
  __asan_unpoison_memory_region(arena, {end if of_arena else 0});
  return failed;
}}
{_SCRATCH}
#define model_invoke guarded_invoke
#define NNCC_SYM_ALLOC_WORKSPACE runtime_alloc_workspace
#define NNCC_SYM_FREE_WORKSPACE runtime_free_workspace
"""
    before, include, after = source.rpartition('#include "runtime.c"')
    undefined = "#undef NNCC_SYM_ALLOC_WORKSPACE\n#undef NNCC_SYM_FREE_WORKSPACE\n"
    return before + undefined + guard + include + after


def open_sanitized(library: Path, threads: int = 1) -> OpenLibrary:
    """A library that was compiled within `sanitized`; what a sanitizer finds in a run is a RunError."""
    target = resolve("native")
    words = (shutil.which("env") or "env", *(f"{name}={value}" for name, value in _OPTIONS.items()))
    with mock.patch.dict(os.environ, {"CC": _COMPILER}):
        description = json.loads(emulate(library, target, words, ["--describe"]))
        return _Sanitized(library, threads, target, words, description)


class _Sanitized(OpenLibrary):
    def run(self, inputs: Any) -> Any:
        with mock.patch.dict(os.environ, {"CC": _COMPILER}):
            return super().run(inputs)
