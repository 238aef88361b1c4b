"""The process that compiles and runs conformance cases: names in JSON on stdin, one line of JSON for each on stdout.

A line ``{"begin": NAME}`` comes before a case, so that whoever reads knows which one a crash or a hang belongs to.
The word that it is started with is a target, or ``sanitized``: for this machine, with every access to memory checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves the folder of a script out
sys.path.insert(0, str(Path(__file__).parents[1] / "sanitize"))

import numpy as np
from conformance_cases import Case, cases
from sanitizing import open_sanitized, sanitized

import nncc
from nncc.errors import InternalError, ModelError, NnccError, RunError

SANITIZED = "sanitized"
MOST_ATTEMPTS = 4
"""Compilations of a case: each may end in an error that asks for another input to be fixed."""

BFLOAT16_RTOL = 2.0**-6
"""Two steps of bfloat16: what onnx's own runner grants (`onnx.backend.test.runner`), whose expected values come from
numpy, which adds up in bfloat16, one after the other."""


def _asked(error: ModelError, option: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the hint of an error asks for: the inputs behind each ``--bind NAME=`` or ``--shape NAME=``."""
    words = re.findall(rf"--{option} ([^`=]+)=", error.hint or "")
    asked = {word: inputs[word] for word in words if inputs.get(word) is not None}
    for name in {word.partition("[")[0] for word in words if word.endswith("]")} & inputs.keys():
        asked |= _tensors(name, inputs[name]) or {f"{name}[]": ()}
    return asked


def _tensors(name: str, value: Any) -> dict[str, Any]:
    """An input as the library takes it: a list is as many tensors, what is optional and not there is none."""
    if isinstance(value, list):
        return {f"{name}[{number}]": each for number, each in enumerate(value)}
    return {} if value is None else {name: value}


def _compile(path: Path, target: str, inputs: dict[str, Any]) -> tuple[Any, set[str]]:
    """The artifact, and the names of the inputs that were bound, because the compiler said so."""
    bind: dict[str, Any] = {}
    shape: dict[str, Any] = {}
    for _ in range(MOST_ATTEMPTS):
        try:
            artifact = nncc.compile(
                path,
                target,
                path.parent / "out",
                shape=shape,
                bind=bind,
                threads=1,
                verify=False,
                shipped_records=False,
            )
            return artifact, set(bind)
        except ModelError as error:
            more = _asked(error, "bind", inputs)
            sizes = {word: np.shape(value) for word, value in _asked(error, "shape", inputs).items()}
            if not (more.keys() - bind.keys() or sizes.keys() - shape.keys()):
                raise
            bind, shape = bind | more, {name: size for name, size in (shape | sizes).items() if name not in more}
    raise ModelError("it asks for more inputs to be fixed each time")


def _difference(expected: Any, actual: np.ndarray, case: Case) -> str:
    """Why `actual` is not what the case expects; empty where it is."""
    expected = np.asarray(expected)
    if expected.dtype != actual.dtype:
        return f"dtype {actual.dtype} instead of {expected.dtype}"
    if expected.shape != actual.shape:
        return f"shape {actual.shape} instead of {expected.shape}"
    if case.operator == "Bernoulli":
        return ""  # no two implementations draw the same numbers
    if expected.dtype.kind in "iub":
        return "" if np.array_equal(expected, actual) else "values differ"
    try:
        with np.errstate(all="ignore"):
            a, b = (each.astype(np.complex128 if each.dtype.kind == "c" else np.float64) for each in (actual, expected))
        rtol = max(case.rtol, BFLOAT16_RTOL) if expected.dtype.name == "bfloat16" else case.rtol
        np.testing.assert_allclose(a, b, rtol=rtol, atol=case.atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


def _results(library: Path, target: str, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs in order. A library for this machine runs in this process, which is faster."""
    from nncc.execute import open_library
    from nncc.runtime.loader import load

    if target == "native":
        with load(library) as module:
            return list(module.run(given).values())
    opened = open_sanitized(library) if target == SANITIZED else open_library(library, 1)
    return list(opened.run(given).values())


def verdict(case: Case, target: str) -> tuple[str, str]:
    """``passed``, ``refused``, ``wrong`` or ``failed``, and why."""
    model = case.model()
    inputs, outputs = case.data(model)
    with tempfile.TemporaryDirectory(prefix="nncc-conformance-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            with sanitized() if target == SANITIZED else contextlib.nullcontext():
                artifact, bound = _compile(path, "native" if target == SANITIZED else target, inputs)
        except InternalError as error:
            return "failed", str(error)
        except NnccError as error:
            return "refused", str(error)
        given = {
            word: np.asarray(each)
            for name, value in inputs.items()
            if name not in bound
            for word, each in _tensors(name, value).items()
        }
        try:
            results = _results(artifact.library, target, given)
        except RunError as error:
            return "failed", str(error)
    wanted = [
        entry
        for value, expected in zip(model.graph.output, outputs, strict=True)
        for entry in _tensors(value.name, expected).items()
    ]
    if len(wanted) != len(results):
        return "wrong", f"{len(results)} tensors instead of {len(wanted)}"
    for (name, expected), actual in zip(wanted, results, strict=True):
        if difference := _difference(expected, actual, case):
            return "wrong", f"{name}: {difference}"
    return "passed", ""


def main(target: str) -> None:
    names, out = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what TVM and LLVM print is no answer
    for name in names:
        print(json.dumps({"begin": name}), file=out, flush=True)
        start = time.monotonic()
        try:
            found, text = verdict(cases()[name], target)
        except Exception as error:  # whatever it is, it should have been an error of nncc's
            found, text = "failed", f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - start, 2)
        entry = {"name": name, "verdict": found, "text": " ".join(text.split())[:500], "seconds": seconds}
        print(json.dumps(entry), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
