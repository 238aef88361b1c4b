"""A small model written by hand as the compiler would write it, compiled in as many ways as the tests need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "nncc" / "runtime"
MODEL = ("fake_model.c", "fake_kernels.c", "fake_weights.c")
STRICT = ("-std=c11", "-O1", "-g0", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def build(output: Path, sources: tuple[str | Path, ...], *flags: str, cc: str = "cc") -> Path:
    """Compile with every warning an error; skip the test where the compiler is not installed."""
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    paths = [str(HERE / source) for source in sources]
    command = [cc, *STRICT, f"-I{RUNTIME}", f"-I{HERE}", *flags, *paths, "-o", str(output), "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return output


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """model(*flags, cc="cc"): the library, built once for each set of flags."""
    built: dict[tuple[str, ...], Path] = {}

    def get(*flags: str, cc: str = "cc") -> Path:
        key = (cc, *flags)
        if key not in built:
            output = tmp_path_factory.mktemp("model") / "model.so"
            built[key] = build(output, MODEL, "-shared", "-fPIC", *flags, cc=cc)
        return built[key]

    return get


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """bench(cc="cc"): nncc-bench, built once for each compiler."""
    built: dict[str, Path] = {}

    def get(cc: str = "cc") -> Path:
        if cc not in built:
            output = tmp_path_factory.mktemp("bench") / "nncc-bench"
            built[cc] = build(output, (RUNTIME / "bench_main.c",), "-ldl", cc=cc)
        return built[cc]

    return get
