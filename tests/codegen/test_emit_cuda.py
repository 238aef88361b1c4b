"""model.c of a program for CUDA: C that every compiler takes; the library needs libc and exports the interface."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nncc.codegen.emit_c import emit_header
from nncc.codegen.emit_cuda import architecture, emit_source
from nncc.codegen.link import CUDA_FUNCTIONS, PUBLIC_FUNCTIONS, link
from nncc.errors import TargetError
from nncc.ir import Call, Launch, Program, Ref, TensorSpec
from nncc.resources import runtime_folder
from nncc.target import Link, Target

X86 = Target(
    "gpu",
    "",
    {"kind": "cuda", "arch": "sm_80"},
    link=Link(machine="x86_64", zig="x86_64-linux-gnu.2.17", gcc="x86_64-linux-gnu-gcc"),
)
ARM = replace(X86, link=Link(machine="aarch64", zig="aarch64-linux-gnu.2.28", gcc="aarch64-linux-gnu-gcc"))
ODD = 'in"put\\ ??/*/ é\n%s'


def small(target: Target = X86) -> Program:
    scale = Launch("net_scale", (2, 3, 1), (8, 1, 4), ((0, 0), (1, 16), (2, 0)), 1024)
    again = replace(scale, args=((2, 0), (1, 0), (2, 64)), shared_bytes=60000)
    return Program(
        name="net",
        target=target,
        inputs=(TensorSpec(ODD, "float32", (8,)),),
        outputs=(TensorSpec("y", "float32", ()),),
        steps=(
            Call("scale", (Ref("input", 0, 4), Ref("weights", 64), Ref("arena", 0))),
            Call("", (Ref("arena", 64), Ref("output", 0, 0)), 4),
            Call("other", (Ref("output", 0, 8),)),
        ),
        weights=np.zeros(128, np.uint8),
        arena_bytes=256,
        scratch_bytes=0,
        kernels="",
        launches={"scale": (scale, again), "other": (Launch("net_other", (1, 1, 1), (32, 1, 1), ((0, 0),)),)},
    )


def test_calls_become_launches_in_order():
    source = emit_source(small(), "00ff", "nncc test")
    assert re.findall(r"^  NNCC_\w+\(.*$", source, re.MULTILINE) == [
        "  NNCC_LAUNCH(0, 0, 2, 3, 1, 8, 1, 4, 1024, in[0] + 4, weights + 80, arena);",
        "  NNCC_LAUNCH(0, 0, 2, 3, 1, 8, 1, 4, 60000, arena, weights + 64, arena + 64);",
        "  NNCC_DEVICE_COPY(1, out[0], arena + 64, 4);",
        "  NNCC_LAUNCH(2, 1, 1, 1, 1, 32, 1, 1, 0, out[0] + 8);",
    ]
    assert '  {"net_scale", 60000},\n  {"net_other", 0},\n' in source, "each kernel with the most it asks for"
    assert "MODEL_KERNELS = 2, MODEL_ARCHITECTURE = 80, MODEL_EXACT = 0" in source


@pytest.mark.parametrize(
    ("arch", "number", "exact"), [("sm_75", 75, False), ("sm_90a", 90, True), ("sm_120", 120, False)]
)
def test_architectures(arch, number, exact):
    assert architecture(small(replace(X86, tvm={"arch": arch}))) == (number, exact)


@pytest.mark.parametrize("arch", ["", "compute_80", "sm_8"])
def test_what_is_no_architecture(arch):
    with pytest.raises(TargetError) as caught:
        emit_source(small(replace(X86, tvm={"arch": arch})), "0", "nncc test")
    assert str(caught.value) == f"target `gpu`: `{arch}` is no architecture of CUDA"
    assert caught.value.hint == "give [tvm] an `arch` as TVM spells it, `sm_` and two or three digits"


@pytest.mark.parametrize(
    "compiler",
    [
        ("cc",),
        ("clang",),
        ("aarch64-linux-gnu-gcc",),
        (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28"),
    ],
    ids=lambda words: words[0] if len(words) == 1 else "zig",
)
@pytest.mark.parametrize("empty", [False, True])
def test_it_compiles_without_a_warning(tmp_path, compiler, empty):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    if len(compiler) > 1:
        pytest.importorskip("ziglang")
    program = small()
    if empty:
        program = replace(program, inputs=(), outputs=(), steps=(), launches={}, arena_bytes=0, weights=np.zeros(0))
    (tmp_path / "model.c").write_text(emit_source(program, "00ff", "nncc test"))
    strict = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{runtime_folder()}"]
    # A comparison with a number of kernels that is 0 is always false.
    done = subprocess.run(
        [*compiler, *strict, "-Wno-type-limits", "-c", "model.c", "-o", "model.o"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def linked(folder: Path, target: Target, emit: str) -> Path:
    (folder / "model.c").write_text(emit_source(small(target), "00ff", "nncc test"))
    for name, data in (("weights", bytes(128)), ("cubin", b"\x7fELF and so on"), ("ptx", b".version 8.0\0")):
        (folder / name).write_bytes(data)
    return link(
        target,
        folder / "out",
        source=folder / "model.c",
        kernels=None,
        weights=folder / "weights",
        stem="net",
        include=[runtime_folder()],
        static_prefix="net",
        emit=[emit],
        exports=(*PUBLIC_FUNCTIONS, *CUDA_FUNCTIONS),
        blobs={"nncc_cubin": folder / "cubin", "nncc_ptx": folder / "ptx"},
    )[emit]


def read(tool: str, *arguments: str | Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("target", "machine"), [(X86, "X86-64"), (ARM, "AArch64")], ids=["x86-64", "arm64"])
def test_the_library_needs_libc_and_exports_the_interface(tmp_path, target, machine):
    library = linked(tmp_path, target, "so")
    assert machine in read("readelf", "-h", library)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", read("readelf", "-d", library)))
    assert "libc.so.6" in needed
    assert all(re.fullmatch(r"(libc|libdl|libpthread|ld-linux[\w-]*)\.so\.\d", name) for name in needed), needed
    lines = [line.split() for line in read("readelf", "-W", "--dyn-syms", library).splitlines()]
    defined = {fields[7] for fields in lines if len(fields) == 8 and fields[0][:-1].isdigit() and fields[6] != "UND"}
    assert defined == {*PUBLIC_FUNCTIONS, *CUDA_FUNCTIONS}
    data = library.read_bytes()
    assert b"\x7fELF and so on" in data and b".version 8.0\0" in data


def test_an_archive_names_everything_after_its_model(tmp_path):
    archive = linked(tmp_path, X86, "a")
    names = {line.split()[-1] for line in read("nm", "-g", "--defined-only", archive).splitlines() if " " in line}
    public = {name.replace("nncc_", "nncc_net_", 1) for name in (*PUBLIC_FUNCTIONS, *CUDA_FUNCTIONS)}
    assert names == {*public, "nncc_net_weights", "nncc_net_cubin", "nncc_net_ptx"}


def test_the_same_inputs_give_the_same_library(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = (linked(tmp_path / name, X86, "so").read_bytes() for name in ("one", "two"))
    assert first == second


def test_the_header_declares_what_only_libraries_for_cuda_have():
    interface = (runtime_folder() / "nncc.h").read_text()
    words = "int nncc_net_run_on(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream);"
    assert words in emit_header(small(), interface)
    assert words not in emit_header(small(replace(X86, tvm={"kind": "llvm"})), interface)
