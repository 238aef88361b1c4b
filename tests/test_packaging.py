"""The installed package is whole, and where it is a wheel it is the wheel that the tests import."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import nncc
from nncc.resources import runtime_folder, schedules_folder, targets_folder

ROOT = Path(__file__).resolve().parents[1]


def installed() -> importlib.metadata.Distribution:
    """The distribution that pip installed, not what an old build left beside the sources."""
    found = [d for d in importlib.metadata.distributions(name="nncc") if d.read_text("INSTALLER") is not None]
    assert len(found) == 1
    return found[0]


def editable() -> bool:
    url = json.loads(installed().read_text("direct_url.json") or "{}")
    return url.get("dir_info", {}).get("editable", False)


def contents(folder: Path, pattern: str) -> dict[Path, bytes]:
    found = [path for path in folder.glob(pattern) if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder): path.read_bytes() for path in found}


def test_the_installed_package_is_tested():
    expected = ROOT / "nncc" / "__init__.py" if editable() else Path(str(installed().locate_file("nncc/__init__.py")))
    assert Path(nncc.__file__).resolve() == expected.resolve()


def test_what_travels_with_the_code_is_there():
    for folder, source, pattern in (
        (targets_folder(), ROOT / "targets", "*.toml"),
        (schedules_folder(), ROOT / "schedules", "**/*"),
        (runtime_folder(), ROOT / "nncc" / "runtime", "*.[ch]"),
        (runtime_folder(), ROOT / "nncc" / "runtime", "vta/*.[ch]pp"),
        (Path(nncc.__file__).parent / "vta" / "rtl", ROOT / "nncc" / "vta" / "rtl", "*"),
    ):
        assert contents(source, pattern)
        assert contents(folder, pattern) == contents(source, pattern)


def test_nothing_but_the_package_is_installed():
    if editable():
        return
    files = {file.parts[0] for file in installed().files or ()}
    assert {name for name in files if name != ".." and not name.startswith("nncc")} == set()


def test_the_versions_agree():
    script = Path(sys.executable).parent / "nncc"
    printed = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert printed == f"nncc {installed().version}\n"
    assert installed().version == nncc.__version__


def test_tvm_is_pinned_to_the_version_that_the_code_is_written_for():
    pins = [line for line in installed().requires or () if re.match(r"apache-tvm(-ffi)?\b", line)]
    assert sorted(pins) == ["apache-tvm-ffi==0.1.14.post1", "apache-tvm==0.27.0.post1"]
