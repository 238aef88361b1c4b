"""Compile a model as a user does, and tell what that takes: seconds, memory, bytes.

Run as a program, this file starts the command that it is given and prints what it took. A process begins with the peak
memory of the one that starts it, and bench.py has TVM loaded: this small program between them keeps that out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class NotCompiled(Exception):
    """nncc refused the model; the message is nncc's."""


def compile_model(
    path: Path, target: str, output: Path, shape: Mapping[str, Sequence[int]], threads: int
) -> tuple[Path, dict[str, Any]]:
    """The library, and what it took: ``seconds`` of the whole command, without the check against ONNX Runtime;
    ``peak_mib`` of the largest process, be it the compiler or the linker that it starts; ``library_bytes``."""
    command = [sys.executable, "-m", "nncc", "compile", str(path), "--target", target, "--output", str(output)]
    command += ["--threads", str(threads), "--no-verify", "--no-shipped-records", "--json"]
    for name, sizes in shape.items():
        command += ["--shape", f"{name}={'x'.join(map(str, sizes))}"]
    between = [sys.executable, str(Path(__file__).resolve()), *command]
    done = subprocess.run(between, capture_output=True, text=True)
    if done.returncode:
        raise NotCompiled((done.stdout + done.stderr).strip())
    took = json.loads(done.stdout)
    facts = json.loads(took.pop("said"))
    return Path(facts["library"]), took | {"library_bytes": facts["sizes"]["library_bytes"]}


def main(*command: str) -> None:
    import resource

    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    print(json.dumps({"seconds": round(seconds, 2), "peak_mib": round(peak), "said": done.stdout}))


if __name__ == "__main__":
    main(*sys.argv[1:])
