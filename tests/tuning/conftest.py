"""No test of records looks into the user's cache."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
