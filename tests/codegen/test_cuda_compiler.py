"""CUDA C++ becomes machine code without a GPU, by nvcc or NVRTC; who is missing or refuses is told with what to do."""

from __future__ import annotations

import pytest

import nncc.codegen.cuda_compiler as cuda_compiler
from nncc.codegen.cuda_compiler import Resources, compile_device_code, find_compiler, read_resources
from nncc.errors import InternalError, NnccError, ToolError

SOURCE = """
extern "C" __global__ void __launch_bounds__(64) twice(const float* __restrict__ x, float* __restrict__ y) {
  __shared__ float row[64];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = 2.0f * row[63 - threadIdx.x];
}
"""


def nvcc() -> cuda_compiler.Compiler | None:
    try:
        found = find_compiler()
    except NnccError:
        return None
    return found if found.name.startswith("nvcc") else None


def nvrtc() -> cuda_compiler.Compiler | None:
    library = cuda_compiler._nvrtc_library()
    return cuda_compiler._nvrtc(library) if library else None


@pytest.mark.parametrize("compiler", [pytest.param(nvcc, id="nvcc"), pytest.param(nvrtc, id="NVRTC")])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_code_for_an_architecture_and_for_later_ones(monkeypatch, compiler, arch):
    found = compiler()
    if found is None:
        pytest.skip(f"no {compiler.__name__} on this machine")
    monkeypatch.setattr(cuda_compiler, "find_compiler", lambda: found)
    code = compile_device_code(SOURCE, arch)
    assert code.cubin[:4] == b"\x7fELF" and code.cubin[18:20] == b"\xbe\x00", "EM_CUDA, 190"
    assert f".target {arch}".encode() in code.ptx
    assert list(code.resources) == ["twice"]
    assert code.resources["twice"].shared_bytes >= 256 and code.resources["twice"].spilled_bytes == 0
    assert code.compiler == found.name


@pytest.mark.parametrize("compiler", [pytest.param(nvcc, id="nvcc"), pytest.param(nvrtc, id="NVRTC")])
def test_refusals_of_the_compiler(monkeypatch, compiler):
    found = compiler()
    if found is None:
        pytest.skip(f"no {compiler.__name__} on this machine")
    monkeypatch.setattr(cuda_compiler, "find_compiler", lambda: found)
    with pytest.raises(ToolError) as caught:
        compile_device_code(SOURCE, "sm_20")
    assert caught.value.message.endswith(": this compiler does not know sm_20")
    assert caught.value.hint == "install a newer CUDA toolkit, or NVRTC"
    with pytest.raises(InternalError) as refused:
        compile_device_code("no code", "sm_80")
    assert "failed:" in refused.value.message and "error" in refused.value.message


def test_without_a_compiler_both_are_named(monkeypatch):
    monkeypatch.setattr(cuda_compiler.shutil, "which", lambda name: None)
    monkeypatch.setattr(cuda_compiler, "_NVRTC_PACKAGES", ("no_such.package",))
    monkeypatch.delenv("NNCC_NVCC", raising=False)
    with pytest.raises(ToolError) as caught:
        find_compiler()
    looked = "nvcc on PATH and in /usr/local/cuda, and for NVRTC among Python's packages"
    assert caught.value.message == f"no compiler for CUDA: looked for {looked}"
    hint = "`pip install 'nncc[cuda]'` brings NVRTC, NVIDIA's toolkit nvcc; neither needs a GPU"
    assert caught.value.hint == hint


def test_a_compiler_that_is_named_must_be_there(monkeypatch):
    monkeypatch.setenv("NNCC_NVCC", "/nowhere/nvcc")
    with pytest.raises(ToolError) as caught:
        find_compiler()
    assert caught.value.message == "there is no compiler `/nowhere/nvcc`, which $NNCC_NVCC names"
    assert caught.value.hint == "unset NNCC_NVCC, or correct it"


@pytest.mark.parametrize(("then", "kept"), [(0, "again"), (32, "first")])
def test_kernels_that_spill_are_compiled_once_more_with_room_for_one_block(monkeypatch, then, kept):
    source = """extern "C" __global__ void __launch_bounds__(128) few(float* x) { }
extern "C" __global__ void __launch_bounds__(64) many(float* x) { }
"""
    asked = []

    def compile_(text, arch, later):
        asked.append(text)
        spilled = [0, then if "(64, 1)" in text else 8]
        report = "".join(
            f"ptxas info    : Compiling entry function '{name}' for '{arch}'\n"
            f"    8 bytes stack frame, {number} bytes spill stores, {number} bytes spill loads\n"
            for name, number in zip(("few", "many"), spilled, strict=True)
        )
        return (b"again" if len(asked) > 1 else b"first"), b"", report

    monkeypatch.setattr(cuda_compiler, "find_compiler", lambda: cuda_compiler.Compiler("stub", compile_))
    assert compile_device_code(source, "sm_90").cubin == kept.encode()
    assert asked == [source, source.replace("__launch_bounds__(64) many", "__launch_bounds__(64, 1) many")]


def test_the_assemblers_report_is_read():
    report = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    16 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 6912 bytes smem, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_80'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, 368 bytes cmem[0]
"""
    assert read_resources(report) == {
        "first": Resources(registers=72, shared_bytes=6912, spilled_bytes=28, stack_bytes=16),
        "second": Resources(registers=8, shared_bytes=0, spilled_bytes=0, stack_bytes=0),
    }
