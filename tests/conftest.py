"""What the tests of the whole compiler share: one tiny model, compiled once; the zoo, and a report of it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tiny_model import tiny_model
from zoo_models import found_or_made


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The tiny model as a file, its batch dimension open."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(tiny_model(), path)
    return path


@pytest.fixture(scope="session")
def library(tiny, tmp_path_factory) -> Path:
    """The tiny model compiled for this machine, for a batch of two."""
    import nncc

    folder = tmp_path_factory.mktemp("native")
    return nncc.compile(tiny, output=folder, shape={"image": (2, 3, 8, 8)}).library


@pytest.fixture(scope="session")
def arm64_library(tiny, tmp_path_factory) -> Path:
    """The tiny model compiled for another machine, and not run."""
    import nncc

    folder = tmp_path_factory.mktemp("arm64")
    return nncc.compile(tiny, "arm64", folder, shape={"image": (2, 3, 8, 8)}, verify=False).library


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """zoo(name): the model's file."""
    return found_or_made(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def report(request):
    """Lines that are printed at the end, whatever is captured."""
    lines: list[str] = []
    yield lines.append
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(["", *sorted(lines)]))
