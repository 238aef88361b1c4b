"""The folders that nncc looks into."""

from __future__ import annotations

from pathlib import Path

from nncc.resources import cache_folder, schedules_folder, targets_folder


def test_the_folders_of_a_checkout_are_found():
    assert (targets_folder() / "native.toml").is_file()
    assert schedules_folder().name == "schedules"


def test_the_cache_is_where_one_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("NNCC_CACHE_DIR")
    assert cache_folder() == tmp_path / "b" / "nncc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "nncc"
