"""cuda.c: contexts, streams, graphs and errors, through a driver that has no GPU behind it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import cuda_model
import numpy as np
import pytest
from fake_cuda import compiler, emulated, fake_gpu, run_python

from nncc.emulation import build_runner
from nncc.errors import RunError
from nncc.runtime.loader import load

pytestmark = pytest.mark.skipif(compiler() is None, reason="the fake driver needs g++ or clang++, and Linux")

BEGIN = """
import ctypes, os, sys, threading
sys.path[:0] = ["tests", "tests/cuda"]
import numpy as np
from cuda_model import X, expected
from nncc.emulation import build_runner
from nncc.errors import RunError
from nncc.runtime.loader import load
library = sys.argv[1]
def right(results, x=X):
    return all(np.array_equal(results[name], value) for name, value in expected(x).items())
"""
GPU = BEGIN + "from gpu_arrays import GpuArray, call, driver, make_current, new_stream\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return cuda_model.build(tmp_path_factory.mktemp("model"), cuda_model.program())


@pytest.fixture(scope="module")
def kernels() -> Path:
    return emulated(cuda_model.SOURCE)


@pytest.fixture
def run(library, kernels, tmp_path):
    """run(script, **variables): what the script prints on a fake GPU, and the lines of the driver's log."""

    def call(script: str, begin: str = BEGIN, environment: dict[str, str] | None = None, **variables: str):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        gpu = fake_gpu(kernels, log=str(log), **variables)
        printed = run_python(begin + script, gpu | (environment or {}), library)
        return printed, log.read_text().splitlines()

    return call


LAUNCHES = [
    "cuLaunchKernel(m_scale, 4x1x1, 64x1x1, 0)",
    "cuLaunchKernel(m_turn_first, 4x1x1, 64x1x1, 0)",
    "cuLaunchKernel(m_turn_second, 4x1x1, 64x1x1, 0)",
    "cuLaunchKernel(m_total, 4x1x1, 64x1x1, 60000)",
    "cuMemcpyDtoDAsync_v2(1024)",
]


def test_launches_come_in_the_order_of_the_program_and_are_replayed_from_the_second_run_on(run):
    printed, log = run(
        "with load(library) as model:\n    print([right(model.run({'x': X + i}), X + i) for i in range(4)])"
    )
    assert printed == "[True, True, True, True]\n"
    work = [line for line in log if line.startswith(("cuLaunch", "cuMemcpy", "cuGraphLaunch"))]
    given, taken = ["cuMemcpyHtoDAsync_v2(1024)"], [f"cuMemcpyDtoHAsync_v2({n})" for n in (1024, 16, 1024)]
    replay = [*given, "cuGraphLaunch()", *taken]
    first, second = [*given, *LAUNCHES, *taken], [*given, *LAUNCHES, "cuGraphLaunch()", *taken]
    assert work == ["cuMemcpyHtoD_v2(512)", *first, *second, *replay, *replay]
    assert log[-1] == "alive: nothing"


def test_sizes_and_attributes(run):
    _, log = run("load(library).close()")
    assert [line for line in log if line.startswith(("cuMemAlloc", "cuFunc", "cuModuleLoad"))] == [
        "cuModuleLoadData(ptx)",  # the fake is of compute capability 9.0, the cubin for 8.0
        "cuFuncSetAttribute(8, 60000)",
        "cuMemAlloc_v2(512)",
        "cuMemAlloc_v2(2368)",
        "cuMemAlloc_v2(3328)",
    ]
    assert log[-1] == "alive: nothing"


def test_without_graphs_kernels_are_always_launched_one_by_one(run):
    script = "with load(library) as model:\n    print([right(model.run({'x': X})) for i in range(3)])"
    printed, log = run(script, environment={"NNCC_CUDA_GRAPH": "0"})
    assert printed == "[True, True, True]\n"
    assert sum("cuLaunchKernel" in line for line in log) == 12 and not any("Graph" in line for line in log)


def test_profile_has_the_seconds_of_each_call_by_the_clock_of_the_gpu(run):
    """The fake's clock goes on by a millisecond an event."""
    printed, log = run(
        "with load(library) as model:\n"
        "    for _ in range(2):\n"
        "        results, seconds = model.profile({'x': X})\n"
        "        print(right(results), seconds)\n"
        "    print(model.profile_rounds({'x': X}, 3).shape, len(model.benchmark({'x': X}, repeat=3)))"
    )
    assert printed == 2 * "True [0.001 0.001 0.001 0.001]\n" + "(3, 4) 3\n"
    assert sum(line == "cuEventRecordWithFlags(1)" for line in log) == 5, "one graph serves all"
    assert log[-1] == "alive: nothing"


def test_profile_without_graphs(run):
    printed, log = run(
        "with load(library) as model:\n    for _ in range(2): print(model.profile({'x': X})[1])",
        environment={"NNCC_CUDA_GRAPH": "0"},
    )
    assert printed == 2 * "[0.001 0.001 0.001 0.001]\n"
    assert sum(line == "cuEventRecord()" for line in log) == 2 * 5 and not any("Graph" in line for line in log)


def test_contexts_share_weights_and_kernels_and_run_in_threads(run):
    printed, log = run("""
models = [load(library) for _ in range(3)]
good = []
def work(model, seed):
    for i in range(20):
        x = X + seed * 100 + i
        good.append(right(model.run({"x": x}), x))
threads = [threading.Thread(target=work, args=(model, seed)) for seed, model in enumerate(models)]
for thread in threads: thread.start()
for thread in threads: thread.join()
models[0].close()
print(len(good), all(good), right(models[1].run({"x": X})))
for model in models: model.close()
with load(library) as again: print(right(again.run({"x": X})))
""")
    assert printed == "60 True True\nTrue\n"
    assert sum(line == "cuMemcpyHtoD_v2(512)" for line in log) == 2, "weights: for three contexts, and for the last"
    assert log[-1] == "alive: nothing"


def test_pointers_of_the_gpu_are_used_in_place_and_those_of_the_processor_copied(run):
    printed, log = run(
        """
make_current()
with load(library) as model:
    x = GpuArray(X)
    turned, copy = GpuArray(X * 0), GpuArray(X * 0, managed=True)
    for _ in range(3):
        results = model.run({"x": x}, {"turned": turned, "copy": copy})
        print(results["turned"] is turned)
        print(right({"turned": turned.get(), "copy": copy.get(), "total": results["total"]}))
    for array in (x, turned, copy): array.free()
""",
        begin=GPU,
    )
    assert printed == "True\n" * 6
    assert not any("HtoDAsync" in line for line in log)
    assert {line for line in log if "DtoHAsync" in line} == {"cuMemcpyDtoHAsync_v2(16)"}
    assert sum(line == "cuGraphLaunch()" for line in log) == 2


def test_pointers_that_no_vector_can_be_loaded_from_are_copied_on_the_gpu(run):
    printed, log = run(
        """
make_current()
with load(library) as model:
    x, turned, total, copy = (GpuArray(a, shift=4) for a in (X, X * 0, X[:, 0] * 0, X * 0))
    for i in range(3):
        x.set(X + i)
        model.run({"x": x}, {"turned": turned, "total": total, "copy": copy}, stream=new_stream())
        print(right({"turned": turned.get(), "total": total.get(), "copy": copy.get()}, X + i))
""",
        begin=GPU,
    )
    assert printed == "True\n" * 3
    assert sum(line == "cuGraphLaunch()" for line in log) == 2, "the addresses that kernels see are the same"


def test_runs_in_streams_return_at_once_and_come_one_after_the_other(run):
    """The fake runs nothing before it has to: were two runs not ordered, the second would overwrite the arena."""
    printed, _ = run(
        """
make_current()
with load(library) as model:
    sets = [(new_stream(), *(GpuArray(a) for a in (X + i, X * 0, X[:, 0] * 0, X * 0))) for i in range(3)]
    for _ in range(2):
        for stream, x, turned, total, copy in sets:
            model.run({"x": x}, {"turned": turned, "total": total, "copy": copy}, stream=stream)
    print(right(model.run({"x": X - 5}), X - 5))  # waits for what it depends on
    for i in (2, 0, 1):
        stream, x, turned, total, copy = sets[i]
        call("cuStreamSynchronize", ctypes.c_void_p(stream))
        print(right({"turned": turned.get(), "total": total.get(), "copy": copy.get()}, X + i))
""",
        begin=GPU,
    )
    assert printed == "True\n" * 4


def test_more_sets_of_pointers_than_graphs_are_remembered(run):
    printed, log = run(
        """
make_current()
stream = new_stream()
with load(library) as model:
    sets = [tuple(GpuArray(a) for a in (X + i, X * 0, X[:, 0] * 0, X * 0)) for i in range(6)]
    for order in ([0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 5, 0, 0]):
        for i in order:
            x, turned, total, copy = sets[i]
            model.run({"x": x}, {"turned": turned, "total": total, "copy": copy}, stream=stream)
            assert right({"turned": turned.get(), "total": total.get(), "copy": copy.get()}, X + i)
    print(driver.fake_cuda_calls(b"cuGraphInstantiateWithFlags"), driver.fake_cuda_calls(b"cuGraphExecDestroy"))
""",
        begin=GPU,
    )
    assert printed == "4 2\n", "0 and 1; then 5, and 0 again; 0 and 1 had to go"
    assert "cuGraphExecDestroy()" in log


def test_a_stream_that_is_captured_gets_the_launches(run):
    printed, _ = run(
        """
make_current()
stream = new_stream()
x, turned, total, copy = (GpuArray(a) for a in (X, X * 0, X[:, 0] * 0, X * 0))
graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
with load(library) as model:
    call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), 0)
    model.run({"x": x}, {"turned": turned, "total": total, "copy": copy}, stream=stream)
    call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
    call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    print(turned.get().any())
    x.set(X + 7)
    call("cuGraphLaunch", executable, ctypes.c_void_p(stream))
    print(right({"turned": turned.get(), "total": total.get(), "copy": copy.get()}, X + 7))
""",
        begin=GPU,
    )
    assert printed == "False\nTrue\n"


def test_the_caller_s_context_is_current_again(run):
    printed, _ = run(
        """
own = make_current(1)
def current():
    found = ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(found))
    return found.value == own.value
model = load(library)
print(current())
model.run({"x": X})
print(current())
try: model.run({"x": X}, {"turned": GpuArray(X)})
except RunError as error: print(error, current())
model.close()
print(current(), driver.fake_cuda_alive().decode())
""",
        begin=GPU,
        devices="2",
    )
    assert printed.splitlines() == [
        "True",
        "True",
        "the pointer for output 0, `turned`, is memory of CUDA device 1; this context is on device 0 True",
        "True 1 allocations, 1 contexts, 1 current",
    ]


def test_every_call_that_fails_is_named_and_nothing_leaks(run):
    """For each function of the driver, and for each time it is called: the error says which, and what is there goes."""
    printed, _ = run(
        """
names = ["cu" + n.split(",")[0] for n in open("nncc/runtime/cuda_driver.c").read().split("F(cu")[1:]]
make_current()
x, outputs, stream = GpuArray(X), {name: GpuArray(a) for name, a in expected().items()}, new_stream()
def scene():
    with load(library) as model:
        for _ in range(3): assert right(model.run({"x": X}))
        for _ in range(2): model.run({"x": x}, outputs, stream=stream)
        model.profile({"x": X})
before = driver.fake_cuda_alive()
for name in names:
    driver.fake_cuda_reset()
    os.environ["NNCC_FAKE_CUDA_FAIL"] = ""
    scene()
    for number in range(1, driver.fake_cuda_calls(name.encode()) + 1):
        driver.fake_cuda_reset()
        os.environ["NNCC_FAKE_CUDA_FAIL"] = f"{name}:{number}:701"
        try:
            scene()
            print(name, number, "unnoticed")
        except RunError as error: print(name, number, str(error).removeprefix(library + ": "))
        os.environ["NNCC_FAKE_CUDA_FAIL"] = ""
        driver.fake_cuda_reset()
        alive = driver.fake_cuda_alive()
        if alive != before: print(name, number, "leaks:", alive.decode())
        before = alive
""",
        begin=GPU,
    )
    said, leaks = {}, {}
    for line in printed.splitlines():
        name, number, text = line.split(" ", 2)
        (leaks if text.startswith("leaks") else said)[name, int(number)] = text
    reason = r"(\w+)( .*)? failed: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES \(too many resources requested for launch\)"
    unnoticed = {key for key, text in said.items() if text == "unnoticed"}
    for (name, number), text in said.items():
        if (name, number) not in unnoticed:
            found = re.fullmatch(reason, text)
            assert found and found[1] == name, (name, number, text)
    # What fails while things are taken down is not complained about; it may leave what it was to take down.
    down = {"cuModuleUnload", "cuMemFree_v2", "cuStreamDestroy_v2", "cuGraphExecDestroy", "cuEventDestroy_v2"}
    down |= {"cuGraphDestroy", "cuDevicePrimaryCtxRelease_v2", "cuEventSynchronize", "cuStreamSynchronize"}
    down |= {"cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"}
    assert {name for name, _ in unnoticed} == down
    assert set(leaks) <= unnoticed
    assert len({name for name, _ in said}) > 30
    first = {name: text for (name, number), text in said.items() if number == 1}
    failed = " failed: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (too many resources requested for launch)"
    assert first["cuModuleGetFunction"] == f"cuModuleGetFunction of `m_scale`{failed}"
    assert first["cuFuncSetAttribute"] == f"cuFuncSetAttribute of `m_total` to 60000 bytes of shared memory{failed}"
    assert first["cuLaunchKernel"] == (
        "cuLaunchKernel of `m_scale` in call 0 with grid 4x1x1, block 64x1x1 and 0 bytes of shared memory" + failed
    )
    assert first["cuMemcpyHtoDAsync_v2"] == f"cuMemcpyHtoDAsync_v2 of 1024 bytes of input 0, `x`,{failed}"
    assert first["cuEventElapsedTime"] == f"cuEventElapsedTime of call 0{failed}"


def refused(run, begin: str = BEGIN, script: str = "load(library)", **variables) -> str:
    """The error of `script`, without the library's path."""
    text = "\ntry:\n    " + script + "\nexcept RunError as error: print(str(error).removeprefix(library + ': '))"
    printed, log = run(text, begin, **variables)
    assert log[-1] == "alive: nothing"
    return printed.rstrip("\n")


def test_too_little_memory(run):
    out = "failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"
    assert refused(run, memory="100") == f"cuMemAlloc_v2 for 512 bytes of weights {out}"
    assert refused(run, memory="600") == f"cuMemAlloc_v2 for 2368 bytes of activations {out}"
    assert refused(run, memory="3000") == f"cuMemAlloc_v2 for 3328 bytes of inputs and outputs {out}"


@pytest.mark.parametrize(("capability", "form"), [("8.0", "cubin"), ("8.9", "cubin"), ("9.0", "ptx"), ("12.0", "ptx")])
def test_later_gpus_of_the_same_major_number_run_the_cubin_and_other_later_ones_the_ptx(run, capability, form):
    printed, log = run("with load(library) as m: print(right(m.run({'x': X})))", capability=capability)
    assert printed == "True\n"
    assert [line for line in log if "cuModuleLoadData" in line] == [f"cuModuleLoadData({form})"]


def test_a_cubin_that_the_driver_refuses_is_replaced_by_the_ptx(run):
    printed, log = run("with load(library) as m: print(right(m.run({'x': X})))", capability="8.7", refuses="cubin")
    assert printed == "True\n"
    assert [line for line in log if "Load" in line] == ["cuModuleLoadData(cubin) = 209", "cuModuleLoadData(ptx)"]
    assert refused(run, capability="8.0", refuses="cubin and ptx") == (
        "cuModuleLoadData of the PTX for compute capability 8.0, tried because the driver refused the cubin, failed: "
        "CUDA_ERROR_NO_BINARY_FOR_GPU (no kernel image is available for execution on the device)"
    )


def test_a_gpu_that_is_too_old(run):
    assert refused(run, capability="7.5") == (
        "the kernels of target cuda-test are for compute capability 8.0 and later ones; device 0, Fake 0, has 7.5: "
        "compile for a target that it runs"
    )


@pytest.mark.parametrize(
    ("arch", "ptx", "capability", "kept"),
    [
        ("sm_80", b"", "9.0", "8.0 and later ones of the same major number; device 0, Fake 0, has 9.0"),
        ("sm_90a", b".version 8.0", "10.0", "9.0 alone; device 0, Fake 0, has 10.0"),
    ],
)
def test_code_for_one_architecture_alone(tmp_path, kernels, arch, ptx, capability, kept):
    target = replace(cuda_model.TARGET, tvm={"kind": "cuda", "arch": arch})
    library = cuda_model.build(tmp_path, cuda_model.program(target), ptx=ptx)
    script = BEGIN + "try: load(library)\nexcept RunError as error: print(error)"
    printed = run_python(script, fake_gpu(kernels, capability=capability), library)
    assert printed == (
        f"{library}: the kernels of target cuda-test are for compute capability {kept}: "
        "compile for a target that it runs\n"
    )
    own = f"{arch[3]}.{arch[4]}"
    script = BEGIN + "with load(library) as model: print(right(model.run({'x': X})))"
    assert run_python(script, fake_gpu(kernels, capability=own), library) == "True\n"


def test_no_device(run):
    assert refused(run, devices="0") == "cuInit failed: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)"


def test_the_environment_says_which_device(run):
    printed, log = run(
        "with load(library) as m: print(right(m.run({'x': X})))", devices="2", environment={"NNCC_CUDA_DEVICE": "1"}
    )
    assert printed == "True\n" and "cuDeviceGet(1)" in log
    assert refused(run, devices="2", environment={"NNCC_CUDA_DEVICE": "2"}) == (
        "there is no CUDA device 2, for there are 2; NNCC_CUDA_DEVICE says which to use"
    )


@pytest.mark.parametrize(("name", "most"), [("NNCC_CUDA_DEVICE", 65535), ("NNCC_CUDA_GRAPH", 1)])
def test_words_in_the_environment_that_are_no_numbers(library, monkeypatch, name, most):
    monkeypatch.setenv(name, "yes")
    with pytest.raises(RunError) as caught:
        load(library)
    assert str(caught.value) == f"{library}: {name} is `yes`; expected a whole number from 0 to {most}"


def test_no_driver(library):
    if any(Path(folder, "libcuda.so.1").exists() for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")):
        pytest.skip("this machine has a driver")
    with pytest.raises(RunError) as caught:
        load(library)
    assert str(caught.value) == (
        f"{library}: libcuda.so.1 cannot be opened: libcuda.so.1: cannot open shared object file: "
        "No such file or directory: is the NVIDIA driver installed?"
    )


def test_a_driver_that_is_too_old(library, kernels):
    script = BEGIN + "try: load(library)\nexcept RunError as error: print(str(error).removeprefix(library + ': '))"
    assert run_python(script, fake_gpu(kernels, "-DFAKE_OLD_DRIVER"), library) == (
        "libcuda.so.1, a driver for CUDA 11.2, has no function cuGraphInstantiateWithFlags: "
        "install a newer NVIDIA driver\n"
    )


def test_a_kernel_that_fails_on_the_gpu(library):
    source = cuda_model.SOURCE.replace(
        "__syncthreads();\n  workspace", "if (threadIdx.x) __syncthreads();\n  workspace"
    )
    script = (
        BEGIN + "model = load(library)\n"
        "for _ in range(2):\n"
        "    try: model.run({'x': X})\n"
        "    except RunError as error: print(error)\n"
    )
    assert source != cuda_model.SOURCE
    printed = run_python(script, fake_gpu(emulated(source)), library)
    lost = (
        "failed: CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure): "
        "an earlier kernel did that; compute-sanitizer finds which"
    )
    assert printed.splitlines() == [
        f"cuMemcpyDtoHAsync_v2 of 1024 bytes of output 0, `turned`, {lost}",
        f"cuCtxPushCurrent_v2 {lost}",
    ]


def test_wrong_pointers_and_wrong_calls(run):
    printed, _ = run(
        """
make_current()
x, gpu = GpuArray(X), {name: GpuArray(a) for name, a in expected().items()}
def refuse(*arguments, **words):
    try: model.run(*arguments, **words)
    except RunError as error: print(error)
with load(library) as model:
    refuse({"x": X}, gpu, stream=new_stream())
    refuse({"x": x}, {"turned": X}, stream=3)
    refuse({"x": GpuArray(X[:2])}, {"turned": X[::-1], "copy": X.astype(np.float64), "total": GpuArray(X), "best": X})
    refuse({"x": x}, stream="3")
    pointers = (ctypes.c_void_p * 1)(X.ctypes.data), (ctypes.c_void_p * 3)(*[a.pointer for a in gpu.values()])
    print(model._library.nncc_run_on(model._context, *pointers, None), model._last_error())
    print(model._library.nncc_run_on(None, *pointers, None), model._last_error())
    print(model._library.nncc_profile(model._context, *pointers, None), model._last_error())
    print(model._library.nncc_create(None, 1), model._last_error())
    print(model._library.nncc_create(ctypes.byref(ctypes.c_void_p()), -1), model._last_error())
    print(right(model.run({"x": x})))
""",
        begin=GPU,
    )
    assert printed.splitlines() == [
        "input `x` is in the memory of the processor; with `stream`, all arrays are on the GPU",
        "output `turned` is in the memory of the processor; with `stream`, all arrays are on the GPU",
        "output `total` is missing, expected float32[4] on the GPU",
        "output `copy` is missing, expected float32[4x64] on the GPU",
        "input `x` is float32[2x64], expected float32[4x64]",
        "`'3'` is no stream of CUDA",
        "1 the pointer for input 0, `x`, is memory of the processor; nncc_run_on takes device memory",
        "1 the context is NULL",
        "1 the array for the seconds of each call is NULL",
        "1 the place for the new context is NULL",
        "1 -1 threads asked for; a library for CUDA takes 0 or more, and uses none",
        "True",
    ]


def test_the_runner_for_machines_without_python(library, kernels, tmp_path):
    runner = build_runner(cuda_model.TARGET, tmp_path)
    cuda_model.X.tofile(tmp_path / "x")
    command = [runner, library, "--input", f"x={tmp_path / 'x'}", "--output", f"turned={tmp_path / 'y'}", "--profile"]
    done = subprocess.run(command, env=fake_gpu(kernels), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    turned = np.fromfile(tmp_path / "y", np.float32).reshape(4, 64)
    assert np.array_equal(turned, cuda_model.expected()["turned"])


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(tmp_path, sanitizer):
    """The runtime, the fake driver, the emulator and the kernels, all instrumented, from several threads."""
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g1")
    try:
        program = cuda_model.build_hammer(tmp_path, *flags)
    except cuda_model.NoSanitizer:
        pytest.skip("the compiler has no sanitizers")
    # ThreadSanitizer does not know of fibers; the driver lets one thread at a time launch kernels.
    kernels = emulated(cuda_model.SOURCE, *(() if sanitizer == "thread" else flags))
    gpu = fake_gpu(kernels, *flags)
    done = subprocess.run([program], env=gpu, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space layout is too random for this ThreadSanitizer")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "fine\n")
