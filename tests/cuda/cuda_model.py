"""A program for CUDA as flatten makes them, but by hand, and its kernels: every kind of launch and place."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import numpy as np

from nncc.codegen.emit_cuda import emit_source
from nncc.codegen.link import CUDA_FUNCTIONS, PUBLIC_FUNCTIONS, link
from nncc.ir import Call, Launch, Operations, Program, Ref, TensorSpec
from nncc.resources import runtime_folder
from nncc.target import Link, Target

SHARED_BYTES = 60000
"""More than a kernel has unless it asks."""

SOURCE = r"""
extern "C" __global__ void __launch_bounds__(64) m_scale(const float* __restrict__ x, const float* __restrict__ w,
                                                         float* __restrict__ y) {
  y[blockIdx.x * 64 + threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x] * w[threadIdx.x];
}
extern "C" __global__ void m_turn_first(const float* __restrict__ x, float* __restrict__ workspace) {
  __shared__ alignas(64) float row[64];
  row[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  workspace[blockIdx.x * 64 + threadIdx.x] = row[63 - threadIdx.x];
}
extern "C" __global__ void m_turn_second(const float* __restrict__ workspace, float* __restrict__ y) {
  y[blockIdx.x * 64 + threadIdx.x] = workspace[blockIdx.x * 64 + threadIdx.x] + 1.0f;
}
extern "C" __global__ void m_total(const float* __restrict__ x, float* __restrict__ total) {
  extern __shared__ float sums[];
  float sum = x[blockIdx.x * 64 + threadIdx.x];
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
  if (threadIdx.x % 32 == 0) sums[14000 + threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) total[blockIdx.x] = sums[14000] + sums[14001];
}
"""

_LINKS = {
    "x86_64": Link(machine="x86_64", zig="x86_64-linux-gnu.2.17", gcc="x86_64-linux-gnu-gcc"),
    "aarch64": Link(machine="aarch64", zig="aarch64-linux-gnu.2.28", gcc="aarch64-linux-gnu-gcc"),
}
TARGET = Target(
    "cuda-test", "", {"kind": "cuda", "arch": "sm_80"}, link=_LINKS.get(platform.machine(), _LINKS["x86_64"])
)
"""A GPU in a machine of this one's kind."""

X = np.arange(256, dtype=np.float32).reshape(4, 64)
W = np.linspace(0.5, 2.0, 64, dtype=np.float32)


def expected(x: np.ndarray = X) -> dict[str, np.ndarray]:
    """What the model computes: products and additions are rounded once each, and sums of small multiples not at all."""
    turned = (x * W)[:, ::-1] + np.float32(1)
    return {"turned": turned, "total": x.sum(axis=1), "copy": x}


def program(target: Target = TARGET) -> Program:
    """turned = reverse(x * w) + 1, total = the sums of the rows of x, copy = x."""
    rows = (4, 1, 1)

    def launch(symbol: str, *args: tuple[int, int], shared_bytes: int = 0) -> tuple[Launch, ...]:
        return (Launch(f"m_{symbol}", rows, (64, 1, 1), args, shared_bytes),)

    weights = np.zeros(512, np.uint8)
    weights[128:384] = W.view(np.uint8)
    return Program(
        name="by hand",
        target=target,
        inputs=(TensorSpec("x", "float32", (4, 64)),),
        outputs=(
            TensorSpec("turned", "float32", (4, 64)),
            TensorSpec("total", "float32", (4,)),
            TensorSpec("copy", "float32", (4, 64)),
        ),
        steps=(
            Call("scale", (Ref("input", 0), Ref("weights", 64), Ref("arena", 256))),
            Call("turn", (Ref("arena", 256), Ref("output", 0), Ref("arena", 1280))),
            Call("total", (Ref("input", 0), Ref("output", 1))),
            Call("", (Ref("input", 0), Ref("output", 2)), 1024),
        ),
        weights=weights,
        arena_bytes=1280 + 64 + 1024,
        scratch_bytes=0,
        kernels=SOURCE,
        launches={
            "scale": launch("scale", (0, 0), (1, 64), (2, 0)),
            "turn": (*launch("turn_first", (0, 0), (2, 64)), *launch("turn_second", (2, 64), (1, 0))),
            "total": launch("total", (0, 0), (1, 0), shared_bytes=SHARED_BYTES),
        },
        operations={"scale": Operations(128, 128)},
        argument_bytes={"scale": (1024, 256, 1024)},
    )


def build(
    folder: Path,
    program: Program,
    cubin: bytes = b"\x7fELF" + bytes(60),
    ptx: bytes = b".version 8.0",
    emit: tuple[str, ...] = ("so",),
) -> Path:
    """The program as a library; by default its cubin is only as much of an ELF file as the fake driver looks at."""
    write_parts(folder, program, cubin, ptx)
    return link(
        program.target,
        folder,
        source=folder / "model.c",
        kernels=None,
        weights=folder / "nncc_weights",
        stem="model",
        include=[runtime_folder()],
        static_prefix="by_hand",
        emit=emit,
        exports=(*PUBLIC_FUNCTIONS, *CUDA_FUNCTIONS),
        blobs={"nncc_cubin": folder / "nncc_cubin", "nncc_ptx": folder / "nncc_ptx"},
    )[emit[0]]


def write_parts(folder: Path, program: Program, cubin: bytes, ptx: bytes) -> None:
    """What `link` takes, as files of `folder`."""
    (folder / "model.c").write_text(emit_source(program, "00ff", "nncc test"))
    (folder / "nncc_cubin").write_bytes(cubin)
    (folder / "nncc_ptx").write_bytes(ptx + b"\0")
    program.weights.tofile(folder / "nncc_weights")


class NoSanitizer(Exception):
    """The compiler has not the sanitizer that it was asked for."""


def build_hammer(
    folder: Path,
    *flags: str,
    target: Target = TARGET,
    cubin: bytes = b"\x7fELF" + bytes(60),
    ptx: bytes = b".version 8.0",
) -> Path:
    """hammer_cuda.c and the model as one program, compiled with `flags`; it needs libc and, to run, a driver."""
    write_parts(folder, program(target), cubin, ptx)
    blobs = "".join(
        f'.globl {name}\n.balign 64\n{name}: .incbin "{folder / name}"\n'
        for name in ("nncc_weights", "nncc_cubin", "nncc_ptx")
    )
    (folder / "blobs.s").write_text(f'.section .rodata\n{blobs}.section .note.GNU-stack,"",%progbits\n')
    sources = [Path(__file__).parent / "hammer_cuda.c", folder / "model.c", folder / "blobs.s"]
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", *flags, f"-I{runtime_folder()}", *sources]
    done = subprocess.run([*command, "-o", folder / "hammer", "-pthread", "-ldl"], capture_output=True, text=True)
    if re.search(r"cannot find .*lib(t|a|ub)san", done.stderr):
        raise NoSanitizer
    assert done.returncode == 0, done.stderr
    return folder / "hammer"
