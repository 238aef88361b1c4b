"""What the tests of several runners share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from candidates import build_candidate, small_net
from compiled import Compiled, compile_net


@pytest.fixture(scope="session")
def candidate(tmp_path_factory) -> Callable[..., Path]:
    """candidate("crash"): see build_candidate."""
    return partial(build_candidate, tmp_path_factory.mktemp("candidates"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Compiled:
    """A small model."""
    return compile_net(small_net(), tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="session")
def compiled_arm64(tmp_path_factory) -> Compiled:
    """The same for another machine."""
    return compile_net(small_net(), tmp_path_factory.mktemp("arm64"), "arm64")
