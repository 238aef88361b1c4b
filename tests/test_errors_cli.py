"""Bad input to the command line: one clear error, whole, exit status 1, and nothing left behind."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tiny_model import tiny_model

from nncc.cli import cli

SHAPE = ("--shape", "image=2x3x8x8")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stderr_of(*words: object, status: int = 1) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == status, result.stdout + result.stderr
    assert result.stdout == ""
    return result.stderr


def refused(*words: object) -> str:
    """What `nncc compile` says on stderr; it must leave the folder as it was."""
    before = sorted(os.listdir())
    text = stderr_of("compile", *words)
    assert sorted(os.listdir()) == before
    return text


def save(name: str, **options) -> str:
    onnx.save(tiny_model(batch=1), name, **options)
    return name


# ---- the model --------------------------------------------------------------------------------------------------


def test_not_a_file():
    assert refused("none.onnx") == "error: `none.onnx` does not exist\n\nhint: give the path of an ONNX model\n"


def test_a_folder():
    os.mkdir("folder")
    assert refused("folder") == ("error: `folder` is a directory, not an ONNX file\n\nhint: give an ONNX file\n")


def test_not_onnx():
    Path("notes.onnx").write_text("Dear diary,")
    assert refused("notes.onnx") == (
        "error: `notes.onnx` is not ONNX: it seems to be a text file\n"
        "\n"
        "hint: give a binary ONNX model; ONNX text becomes one with `onnx.parser.parse_model`\n"
    )


def test_truncated():
    data = tiny_model(batch=1).SerializeToString()
    Path("cut.onnx").write_bytes(data[: len(data) // 2])
    text = refused("cut.onnx")
    assert text.startswith(f"error: `cut.onnx` is truncated: {len(data) // 2:,} bytes were read, at least ")
    assert text.endswith(" more are needed\n\nhint: fetch or export the model again\n")


def test_external_data_that_are_missing():
    path = save("model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)
    os.remove("model.data")
    assert refused(path) == (
        "error: tensor `kernel` keeps its data in `model.data`, which cannot be opened: No such file or directory\n"
        "\n"
        "hint: put the model and the files it came with into one folder\n"
    )


def test_external_data_outside_the_folder():
    proto = tiny_model(batch=1)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    Path("model.onnx").write_bytes(proto.SerializeToString())
    assert refused("model.onnx") == (
        "error: tensor `kernel` keeps its data in `../../etc/passwd`, which is outside the model's folder: refused\n"
        "\n"
        "hint: save the model again, weights beside it\n"
    )


def test_a_dynamic_dimension_without_a_shape(tiny):
    assert refused(tiny) == (
        "error: `image` has a dynamic leading (batch) dimension: `N`x3x8x8\n"
        "\n"
        "hint: fix it with `--shape image=1x3x8x8` for a batch of one\n"
    )


def test_a_shape_for_an_input_that_is_not_there(tiny):
    assert refused(tiny, "--shape", "imgae=1x3x8x8") == (
        "error: `--shape imgae=...` names no input of the model\n\nhint: did you mean `image`?\n"
    )


def test_a_shape_of_the_wrong_rank(tiny):
    assert refused(tiny, "--shape", "image=3x8x8") == (
        "error: `--shape image=3x8x8` has 3 dimensions; the input has 4: `N`x3x8x8\n"
        "\n"
        "hint: for example `--shape image=1x3x8x8`\n"
    )


def test_unsupported_operators_are_told_all_at_once():
    kinds = ("Frobnicate", "Antifrobnicate", "Frobnicate")
    onnx.save(tiny_model(tuple((kind, "my.operators") for kind in kinds), batch=1), "odd.onnx")
    assert refused("odd.onnx") == (
        "error: `odd` uses 2 operators that nncc cannot compile:\n"
        "  my.operators Antifrobnicate (opset 3): 1 x, `odd_1`\n"
        "  my.operators Frobnicate (opset 3): 2 x, `odd_0`, `odd_2`\n"
        "\n"
        "hint: cut the model before them, or export it with other operators (a lower opset often helps)\n"
    )


def test_an_operator_of_a_domain_of_one_s_own():
    onnx.save(tiny_model((("Frobnicate", "my.operators"),), batch=1), "odd.onnx")
    assert refused("odd.onnx") == (
        "error: `odd` uses 1 operator that nncc cannot compile:\n"
        "  my.operators Frobnicate (opset 3): 1 x, `odd_0`\n"
        "\n"
        "hint: cut the model before them, or export it with other operators (a lower opset often helps)\n"
    )


# ---- target and tools -------------------------------------------------------------------------------------------


def test_an_unknown_target(tiny):
    assert refused(tiny, *SHAPE, "--target", "rpi44") == (
        "error: unknown target `rpi44`\n\nhint: did you mean `rpi4`? `nncc targets` lists all of them\n"
    )


def test_no_linker(tiny, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name != "ziglang" and find_spec(name, *rest))
    monkeypatch.setenv("PATH", "")
    assert refused(tiny, *SHAPE, "--target", "arm64") == (
        "error: no C compiler for target `arm64`: looked for zig, `aarch64-linux-gnu-gcc`\n"
        "\n"
        "hint: `pip install ziglang`, or install aarch64-linux-gnu-gcc (Debian: `apt install gcc-aarch64-linux-gnu`)\n"
    )


# ---- the output -------------------------------------------------------------------------------------------------


def test_an_output_that_is_a_file(tiny):
    Path("file").write_text("")
    assert refused(tiny, *SHAPE, "-o", "file") == (
        "error: cannot write to `file`: it is a file\n\nhint: choose a folder with `-o`\n"
    )
    inside = os.path.join("file", "out")
    assert refused(tiny, *SHAPE, "-o", inside) == (
        f"error: cannot write to `{inside}`: `{Path('file').absolute()}` is a file\n\nhint: choose a folder with `-o`\n"
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission(tiny):
    os.mkdir("locked", 0o555)
    inside = os.path.join("locked", "out")
    assert refused(tiny, *SHAPE, "-o", inside) == (
        f"error: cannot write to `{inside}`: no permission\n\nhint: choose another folder with `-o`\n"
    )


def test_an_output_without_permission_as_anyone(tiny, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *anything: False)
    assert refused(tiny, *SHAPE, "-o", "out") == (
        "error: cannot write to `out`: no permission\n\nhint: choose another folder with `-o`\n"
    )


@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk(tiny, monkeypatch, existed):
    copy, copied = shutil.copyfile, []

    def full(source, destination, **options):
        if Path(destination).is_relative_to(Path("out").absolute()):
            if copied:  # the first file still finds room
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination))
            copied.append(destination)
        return copy(source, destination, **options)

    monkeypatch.setattr(shutil, "copyfile", full)
    if existed:
        os.mkdir("out")
    assert refused(tiny, *SHAPE, "-o", "out") == (
        "error: cannot write to `out`: No space left on device\n\nhint: free some space\n"
    )
    assert copied
    assert not existed or os.listdir("out") == []


def test_a_disk_that_is_really_full(tiny, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        assert refused(tiny, *SHAPE, "-o", disk / "out") == (
            f"error: cannot write to `{disk / 'out'}`: No space left on device\n\nhint: free some space\n"
        )
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- the library and its inputs ---------------------------------------------------------------------------------


@pytest.fixture
def run_on(library):
    def run_on(**arrays: np.ndarray) -> str:
        np.savez("in.npz", **arrays)
        return stderr_of("run", library, "--inputs", "in.npz")

    return run_on


IMAGE, OFFSET = np.zeros((2, 3, 8, 8), np.float32), np.zeros(5, np.float32)


def test_inputs_of_the_wrong_name(run_on):
    assert run_on(imgae=IMAGE, offset=OFFSET) == (
        "error: `in.npz`: the model has no input `imgae`\n\nhint: did you mean `image`?\n"
    )


def test_inputs_of_the_wrong_dtype(run_on):
    assert run_on(image=IMAGE.astype(np.float64), offset=OFFSET) == (
        "error: `in.npz`: input `image` is float64 2x3x8x8; the model wants float32 2x3x8x8\n"
        "\n"
        "hint: convert it first: `array.astype('float32').reshape(2, 3, 8, 8)`\n"
    )


def test_inputs_of_the_wrong_shape(run_on):
    assert run_on(image=IMAGE[:1], offset=OFFSET) == (
        "error: `in.npz`: input `image` is float32 1x3x8x8; the model wants float32 2x3x8x8\n"
        "\n"
        "hint: the shape is fixed when the model is compiled: choose it with `--shape`\n"
    )


def test_inputs_that_are_missing(run_on):
    assert run_on(image=IMAGE) == (
        "error: `in.npz` lacks: offset: float32[5]\n\nhint: give an array for every input, by its name\n"
    )


@pytest.mark.parametrize("command", ["run", "bench"])
def test_no_library(command):
    assert stderr_of(command, "none.so") == (
        "error: none.so does not exist\n\nhint: compile a model first: `nncc compile model.onnx`\n"
    )


@pytest.mark.parametrize("command", ["run", "bench"])
def test_a_file_that_is_no_library(command, tiny):
    assert stderr_of(command, tiny) == f"error: {tiny} is not a shared library\n"


def test_a_machine_that_cannot_be_run_here(arm64_library, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert stderr_of("run", arm64_library) == (
        "error: this machine cannot run target `arm64`: there is no `qemu-aarch64`\n"
        "\n"
        "hint: `apt install qemu-user libc6-arm64-cross`, or run it on a machine of its own\n"
    )


def test_emulated_times_are_not_the_device_s(arm64_library, monkeypatch):
    from nncc.execute import OpenLibrary

    opened = OpenLibrary(arm64_library, 1, None, ("qemu-aarch64",), {"inputs": [], "outputs": [], "calls": []})
    monkeypatch.setattr("nncc.execute.open_library", lambda *words, **options: opened)
    assert stderr_of("bench", arm64_library) == (
        "error: emulated by qemu-aarch64: times say nothing about the device\n"
        "\n"
        "hint: `--runner FOLDER` writes the bench program for the board: copy both there\n"
    )


def test_outputs_that_cannot_be_written(library):
    assert stderr_of("run", library, "--outputs", os.path.join("none", "y.npz")) == (
        f"error: cannot write `{os.path.join('none', 'y.npz')}`: No such file or directory\n"
        "\n"
        "hint: choose another path\n"
    )
