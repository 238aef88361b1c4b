"""An nvcc that makes libraries for this machine's processor: as much of its command line as nncc uses.

A cubin is an ELF file, and so is such a library: fake_libcuda.cpp loads it. The assembler's report says 40 registers of
each kernel, and that those spill which have the words of NNCC_FAKE_NVCC_SPILLS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fake_cuda import emulated, kernel_texts


def main(words: list[str]) -> None:
    if "--version" in words:
        print("fake: release 0.1")
        return
    result = Path(words[words.index("-o") + 1])
    source = next(Path(word).read_text() for word in words if word in ("kernels.cu", "kernels.ptx"))
    if "-ptx" in words:
        result.write_text(source)
        return
    result.write_bytes(emulated(source, "-O1").read_bytes())
    spills = os.environ.get("NNCC_FAKE_NVCC_SPILLS", "")
    for name, text in kernel_texts(source).items():
        spilled = 64 if spills and spills in text else 0
        print(f"ptxas info    : Compiling entry function '{name}' for 'sm_80'", file=sys.stderr)
        print(f"    0 bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads", file=sys.stderr)
        print("ptxas info    : Used 40 registers", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
