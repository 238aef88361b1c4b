"""The runtime on a real GPU: `python tests/cuda/on_gpu.py FOLDER sm_90` compiles, with nvcc, the model of cuda_model.py
and hammer_cuda.c for it into FOLDER, which needs no GPU; `FOLDER/hammer` then runs on a machine with one, by itself,
and prints "fine"."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cuda_model


def main(folder: Path, arch: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    (folder / "kernels.cu").write_text(cuda_model.SOURCE)
    for form, architecture in (("cubin", arch), ("ptx", arch.replace("sm_", "compute_"))):
        command = ["nvcc", f"-{form}", f"-arch={architecture}", "kernels.cu", "-o", f"kernels.{form}"]
        subprocess.run(command, cwd=folder, check=True)
    cubin, ptx = ((folder / f"kernels.{form}").read_bytes() for form in ("cubin", "ptx"))
    target = replace(cuda_model.TARGET, tvm={"kind": "cuda", "arch": arch})
    print(cuda_model.build_hammer(folder, target=target, cubin=cubin, ptx=ptx))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
