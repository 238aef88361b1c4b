"""The same input gives the same bytes, whoever compiles it, where and when; and the bytes do not tell."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_generated_c import small_network

import nncc
from nncc.config import Config
from nncc.pipeline import plan, run

EMIT = ("so", "a", "o")


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> tuple[Path, Path, list[Path]]:
    """Two folders of files, one made in this process, one by the command line elsewhere; and the folders they saw."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there-of-another-length")
    path = small_network().save(here / "net.onnx")
    (there / "sub").mkdir()
    shutil.copy(path, there / "sub" / "net.onnx")
    nncc.compile(path, output=here / "out", emit=EMIT, verify=False)
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TMPDIR": str(there), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    command = [
        "-m",
        "nncc",
        "compile",
        "sub/net.onnx",
        "--target",
        "native",
        "-o",
        "out",
        "--emit",
        ",".join(EMIT),
        "--no-verify",
    ]
    root = str(Path(nncc.__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, *command], cwd=there, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return here / "out", there / "out", [here, there]


def test_two_builds_are_equal_to_the_byte(builds):
    one, other, _ = builds
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert {Path(name).suffix for name in names} == {".so", ".a", ".o", ".h", ".json"}
    different = [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
    assert not different


def test_no_path_host_or_user_is_inside(builds):
    folder, _, seen = builds
    words = [str(path) for path in seen] + [os.getcwd(), str(Path.home()), socket.gethostname(), getpass.getuser()]
    words += [str(Path(nncc.__file__).parent), sys.prefix, "/tmp/", "pytest-of"]
    for path in folder.iterdir():
        data = path.read_bytes()
        # A word of four letters or fewer (`root`, `ci`) may be there by chance, or as a part of another.
        inside = [word for word in words if len(word) > 4 and word.encode() in data]
        assert not inside, path.name


def test_a_program_has_the_same_digest_each_time(tmp_path):
    path = small_network().save(tmp_path / "net.onnx")
    job = plan(path, Config(target="x86-64-v3", until="flatten", verify=False))
    assert run(job).digest() == run(job).digest()
