"""Which GPU candidates run on: whether its times are those of the target; and the smallest library, to ask there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nncc.backends.cuda import build
from nncc.errors import TargetError
from nncc.host import Gpu
from nncc.ir import Call, Program, Ref, TensorSpec
from nncc.target import Target

__all__ = ["build_probe", "check_gpu"]

_KERNEL = 'extern "C" __global__ void nncc_probe(float* x) { *x = 0; }\n'
"""Device code has to hold one, be it never launched."""


def build_probe(target: Target, folder: Path) -> Path:
    """A library for TVM's RPC server whose one output is its one input, float32[1]. Raises as the backend's `build`."""
    tensor = TensorSpec("x", "float32", (1,))
    copy = Call("", (Ref("input", 0), Ref("output", 0)), tensor.nbytes)
    nothing = np.zeros(0, np.uint8)
    program = Program("probe", target, (tensor,), (tensor,), (copy,), nothing, 0, 0, _KERNEL)
    return build(program, folder, "probe", rpc=True).library


def check_gpu(runner: str, found: Gpu, target: Target) -> None:
    """TargetError where a GPU is of another compute capability than `target`, whose times its records pretend to be."""
    here, wanted = f"sm_{found.major}{found.minor}", str(target.tvm["arch"]).removesuffix("a")
    if here != wanted:
        raise TargetError(
            f"runner `{runner}`: target `{target.name}` is for {wanted}, and {found.name} there is {here}",
            "tune for a target of that architecture: `nncc targets` lists targets",
        )
