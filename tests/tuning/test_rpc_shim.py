"""The functions in a candidate library that TVM's RPC server calls: exported, laid out, and called without TVM."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from candidates import SAID, build_candidate, small_net
from compiled import Compiled, compile_net

from nncc.backends import llvm
from nncc.codegen.link import PUBLIC_FUNCTIONS, RPC_FUNCTIONS
from nncc.emulation import emulator
from nncc.errors import NnccError
from nncc.resources import runtime_folder
from nncc.target import resolve

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="forks, and reads ELF files")


@pytest.fixture(scope="module")
def candidate(tmp_path_factory) -> Callable[..., Path]:
    """candidate("crash"): see build_candidate."""
    return partial(build_candidate, tmp_path_factory.mktemp("candidates"))


@pytest.fixture(scope="module")
def compiled_arm64(tmp_path_factory) -> Compiled:
    """A small model for another machine."""
    return compile_net(small_net(), tmp_path_factory.mktemp("arm64"), "arm64")


def test_an_arm64_candidate_carries_the_shim_and_wants_nothing_of_tvm(compiled_arm64, tmp_path):
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    library = llvm.build(compiled_arm64.program, tmp_path, "net", rpc=True).library
    table = subprocess.run(["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.splitlines()]
    symbols = [(row[7], row[6] != "UND") for row in rows if len(row) >= 8 and row[0][:-1].isdigit()]
    assert {name for name, defined in symbols if defined} == {*PUBLIC_FUNCTIONS, *RPC_FUNCTIONS}
    assert not [name for name, defined in symbols if not defined and "TVM" in name.upper()]
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"NEEDED.*\[(.*?)\]", needed)) <= {"libc.so.6", "libm.so.6", "libpthread.so.0"} | set(
        re.findall(r"\[(ld-linux[^]]*)\]", needed)
    )


def test_its_layouts_are_those_of_tvm_ffi(tmp_path, candidate):
    """Compiled against tvm_ffi's own headers, sizes and places agree."""
    import tvm_ffi

    include = Path(tvm_ffi.__file__).parent / "include"
    pairs = [
        ("rpc_tensor", "DLTensor", ("data", "ndim", "lanes", "shape", "strides", "byte_offset")),
        ("rpc_any", "TVMFFIAny", ()),
    ]
    lines = [f"_Static_assert(sizeof({ours}) == sizeof({theirs}), {ours!r});" for ours, theirs, _ in pairs]
    lines += [
        f"_Static_assert(offsetof({ours}, {name}) == offsetof({theirs}, {'dtype.lanes' if name == 'lanes' else name}), "
        f'"{name}");'
        for ours, theirs, names in pairs
        for name in names
    ]
    text = '#define BEHAVIOUR 0\n#include "candidate.c"\n#include "tvm/ffi/c_api.h"\n' + "\n".join(lines)
    text += '\n_Static_assert(offsetof(rpc_any, as) == offsetof(TVMFFIAny, v_int64), "value");'
    text += '\n_Static_assert(sizeof(TVMFFIObject) == 24, "header");'
    codes = {"RPC_INT": "Int", "RPC_BOOL": "Bool", "RPC_FLOAT": "Float", "RPC_DLTENSOR": "DLTensorPtr"}
    for ours, theirs in (codes | {"RPC_TENSOR": "Tensor"}).items():
        text += f'\n_Static_assert((int){ours} == (int)kTVMFFI{theirs}, "{ours}");'
    (tmp_path / "layout.c").write_text(text.replace("'", '"') + "\n")
    folders = (f"-I{runtime_folder()}", f"-I{Path(__file__).parent}", f"-I{include}")
    command = ["cc", "-std=gnu11", "-fsyntax-only", *folders, tmp_path / "layout.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("behaviour", "measured", "ran"),
    [
        ("well", "4, 8 times", "0: 2 62, 8 11; "),
        ("crash", "-111, 0 times", "-111: 0 0, 0 0; "),
        ("hang", "-2, 0 times", "-2: 0 0, 0 0; "),
        ("fail", "-1, 0 times", f"-1: 0 0, 0 0; kernel 1 (behave) failed: {SAID}"),
    ],
)
@pytest.mark.parametrize("machine", ["native", "arm64"])
def test_kernels_run_in_a_process_of_their_own(candidate, tmp_path, machine, behaviour, measured, ran):
    """On whichever machine: a crash is a number, and the caller lives."""
    try:
        emulated = emulator(resolve(machine))
    except NnccError as error:
        pytest.skip(error.message)
    cc = "cc" if machine == "native" else str(resolve(machine).link.gcc)
    library = candidate(behaviour, cc=cc)
    strict = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    source = Path(__file__).parent / "shim_main.c"
    subprocess.run([cc, *strict, source, "-o", tmp_path / "main", "-ldl"], check=True)
    done = subprocess.run([*emulated, tmp_path / "main", library], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "facts 1",
        "calls 2",
        "input float32 128 4 8",
        "input int64 16 2",
        "output float32 128 4 8",
        "output int64 16 2",
        f"measured {measured}",
        f"ran {ran}",
    ]
