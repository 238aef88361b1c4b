"""What is slow to import is not imported before it is needed: modules are counted, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "click", "fsspec", "numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "torch", "tvm", "xgboost")


def imported_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import nncc", set()),
        ("import nncc.cli", {"click"}),
        ("from nncc.cli import cli\ntry: cli(['--help'])\nexcept SystemExit: pass", {"click"}),
        ("from nncc.cli import cli\ntry: cli(['compile', '--help'])\nexcept SystemExit: pass", {"click"}),
        ("from nncc.cli import cli\ntry: cli(['records', '--help'])\nexcept SystemExit: pass", {"click"}),
        ("import nncc.tuning.records", set()),
        ("import nncc.execute", set()),
        ("import nncc; nncc.load", {"numpy"}),
        ("from nncc.cli import cli\ntry: cli(['quantize', '--help'])\nexcept SystemExit: pass", {"click"}),
        ("import nncc; nncc.compile", set()),
        ("import nncc; nncc.quantize", set()),
        ("import nncc; nncc.prune", set()),
        ("import nncc; nncc.distill", set()),
        ("from nncc.cli import cli\ntry: cli(['distill', '--help'])\nexcept SystemExit: pass", {"click"}),
        ("from nncc.cli import cli\ntry: cli(['prune', '--help'])\nexcept SystemExit: pass", {"click"}),
        ("from nncc.cli import cli\ntry: cli(['targets'])\nexcept SystemExit: pass", {"click"}),
    ],
)
def test_nothing_heavy_is_imported(code, allowed):
    assert imported_by(code) <= allowed
