"""What the tests of runners share; and no test of records looks into the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from candidates import build_candidate, small_net
from compiled import Compiled, compile_net


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def candidate(tmp_path_factory) -> Callable[..., Path]:
    """candidate("crash"): see build_candidate."""
    return partial(build_candidate, tmp_path_factory.mktemp("candidates"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Compiled:
    """A small model."""
    return compile_net(small_net(), tmp_path_factory.mktemp("net"))
