"""loader.py: arrays in, arrays out; words for people when something does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
from conftest import HERE

from nncc.errors import RunError
from nncc.runtime.loader import TensorInfo, load

X = np.arange(32, dtype=np.float32).reshape(4, 8)
Y = X * (X + 0.5)
MODE = np.zeros(1, np.int32)
INPUTS = {"x": X, "mode": MODE}
INPUTS_EXPECTED = "input `x` is missing, expected float32[4x8]\ninput `mode` is missing, expected int32[1]"


@pytest.fixture
def loaded(model):
    with load(model()) as module:
        yield module


def message(call, *arguments) -> str:
    with pytest.raises(RunError) as caught:
        call(*arguments)
    return str(caught.value)


def test_run_returns_outputs_by_name(loaded):
    results = loaded.run(INPUTS)
    assert list(results) == ["y", "counts"]
    assert np.array_equal(results["y"], Y)
    assert results["counts"].dtype == np.int64


def test_outputs_of_two_runs_are_different_arrays(loaded):
    first = loaded.run(INPUTS)["y"]
    loaded.run({"x": X * 0, "mode": MODE})
    assert np.array_equal(first, Y)


def test_arrays_of_any_strides_and_alignment_are_taken(loaded):
    strided = np.asfortranarray(X)
    shifted = np.frombuffer(b"." + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 8)
    assert not strided.flags.c_contiguous and not shifted.flags.aligned
    for array in (strided, shifted, X[::-1][::-1]):
        assert np.array_equal(loaded.run({"x": array, "mode": MODE})["y"], Y)


@pytest.mark.parametrize(
    ("inputs", "problems"),
    [
        ({"x": X.astype(np.float64), "mode": MODE}, "input `x` is float64[4x8], expected float32[4x8]"),
        ({"x": X[:2], "mode": MODE}, "input `x` is float32[2x8], expected float32[4x8]"),
        ({"x": X.astype(">f4"), "mode": MODE}, "input `x` is >f4[4x8], expected float32[4x8]"),
        ({"x": X, "mode": np.int32(0)}, "input `mode` is int32[], expected int32[1]"),
        ({}, INPUTS_EXPECTED),
        (
            {"X": X, "mode": MODE.astype(np.int64)},
            "input `x` is missing, expected float32[4x8]\n"
            "input `mode` is int64[1], expected int32[1]\n"
            "there is no input `X`; the model's are `x`, `mode`",
        ),
    ],
)
def test_all_that_is_wrong_with_the_inputs_is_said_at_once(loaded, inputs, problems):
    for call in (loaded.run, loaded.profile, loaded.benchmark, partial(loaded.profile_rounds, rounds=1)):
        assert message(call, inputs) == problems


def test_outputs_go_where_they_are_to(loaded):
    y = np.zeros((4, 8), np.float32)
    results = loaded.run(INPUTS, {"y": y})
    assert results["y"] is y and np.array_equal(y, Y) and results["counts"].dtype == np.int64
    assert len(loaded.benchmark(INPUTS, repeat=2, outputs={"y": y})) == 2


def test_all_that_is_wrong_with_the_places_of_outputs_is_said_at_once(loaded):
    fixed = np.zeros(2, np.int64)
    fixed.flags.writeable = False
    assert message(loaded.run, INPUTS, {"y": np.asfortranarray(X), "counts": fixed, "z": X}).splitlines() == [
        "output `y` is not contiguous",
        "output `counts` cannot be written to",
        "there is no output `z`; the model's are `y`, `counts`",
    ]
    assert message(loaded.run, INPUTS, {"y": X[:2], "counts": [0, 0]}).splitlines() == [
        "output `y` is float32[2x8], expected float32[4x8]",
        "output `counts` is neither an array of numpy nor one on a GPU",
    ]


def test_profile_gives_seconds_of_each_call(loaded):
    results, seconds = loaded.profile(INPUTS)
    assert np.array_equal(results["y"], Y)
    assert seconds.shape == (3,) and (seconds >= 0).all() and seconds.sum() > 0


def test_benchmark_gives_seconds_of_each_run(loaded):
    seconds = loaded.benchmark(INPUTS, repeat=7, warmup=2)
    assert len(seconds) == 7 and min(seconds) > 0


def test_rounds_give_seconds_of_each_call_in_each_and_end_in_time(loaded):
    seconds = loaded.profile_rounds(INPUTS, rounds=7)
    assert seconds.shape == (7, 3) and (seconds >= 0).all() and (seconds.sum(axis=1) > 0).all()
    assert loaded.profile_rounds(INPUTS, rounds=7, seconds=0.0).shape == (3, 3)
    assert loaded.profile_rounds(INPUTS, rounds=2, seconds=0.0, warmup=0).shape == (2, 3)


def test_a_module_describes_itself(loaded, model, bench):
    assert (loaded.name, loaded.target) == ("fake", "testboard")
    assert loaded.inputs == (TensorInfo("x", "float32", (4, 8), 128), TensorInfo("mode", "int32", (1,), 4))
    printed = subprocess.run([bench(), model(), "--describe"], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == loaded.description


def test_modules_run_at_once_in_several_threads(model):
    """A run of mode 7 takes its time, and ctypes releases the GIL: the others come through meanwhile."""
    finished = []
    with load(model()) as slow, load(model()) as quick:
        thread = threading.Thread(target=lambda: finished.append(slow.run({"x": X, "mode": np.array([7], np.int32)})))
        thread.start()
        for _ in range(20):
            quick.run(INPUTS)
        assert not finished
        thread.join()
    assert finished


def test_a_closed_module_says_so(model):
    module = load(model())
    description = module.description
    module.close()
    module.close()
    assert message(module.run, INPUTS) == f"{model()}: the module is closed"
    assert module.description == description


@pytest.mark.parametrize("with_ml_dtypes", [False, True])
def test_bfloat16_is_ml_dtypes_or_uint16(model, with_ml_dtypes, monkeypatch):
    library = model('-DFAKE_X_TYPE="bfloat16"')
    bits = np.zeros((4, 8), np.uint16)
    tensor = TensorInfo("x", "bfloat16", (4, 8), 64)
    if with_ml_dtypes:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        assert tensor.problem(bits.view(ml_dtypes.bfloat16)) is None
    else:
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert tensor.problem(bits) is None
    assert tensor.problem(bits.astype(np.int16)) == "int16[4x8], expected bfloat16[4x8]"
    with load(library) as module:
        assert str(module.inputs[0]) == "bfloat16[4x8]"


# -- the calls of TensorFlow Lite


def test_interpreter_calls(loaded):
    loaded.allocate_tensors()
    (x, mode), (y, counts) = loaded.get_input_details(), loaded.get_output_details()
    assert [d["index"] for d in (x, mode, y, counts)] == [0, 1, 2, 3]
    assert (x["name"], x["shape"].tolist(), x["shape_signature"].tolist()) == ("x", [4, 8], [4, 8])
    assert (x["dtype"], mode["dtype"], y["quantization"]) == (np.float32, np.int32, (0.0, 0))
    assert sorted(y["quantization_parameters"]) == ["quantized_dimension", "scales", "zero_points"]
    loaded.set_tensor(x["index"], X)
    loaded.invoke()
    result = loaded.get_tensor(y["index"])
    assert np.array_equal(result, Y)
    assert np.array_equal(loaded.get_tensor(x["index"]), X)
    result[:] = 0
    assert np.array_equal(loaded.get_tensor(y["index"]), Y), "get_tensor returns a copy"


def test_interpreter_calls_refuse_what_does_not_fit(loaded):
    assert message(loaded.set_tensor, 0, X[0]) == "input `x` is float32[8], expected float32[4x8]"
    assert message(loaded.set_tensor, 2, X) == "there is no input 2; inputs are 0 to 1"
    assert message(loaded.get_tensor, 4) == "there is no tensor 4; tensors are 0 to 3"
    loaded.set_tensor(1, np.array([6], np.int32))
    assert message(loaded.invoke) == 'kernel 1 (fake_"behave") failed: it gave no reason'


# -- what cannot be loaded


def test_a_missing_file(tmp_path):
    path = tmp_path / "no.so"
    assert message(load, path) == f"{path} does not exist"


@pytest.mark.parametrize("contents", [b"", b"\x7fELF", b"MZ", b"hello, world" * 20])
def test_a_file_that_is_no_library(tmp_path, contents):
    path = tmp_path / "text.so"
    path.write_bytes(contents)
    assert message(load, path) == f"{path} is not a shared library"


def test_a_folder(tmp_path):
    assert message(load, tmp_path) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("size", [2000, 9000])
def test_a_library_that_was_copied_in_part(model, tmp_path, size):
    """Left to dlopen, it ends the process with SIGBUS."""
    path = tmp_path / "cut.so"
    path.write_bytes(model().read_bytes()[:size])
    assert message(load, path).startswith(f"{path} is cut short: it has {size} bytes of at least ")


def test_a_library_that_needs_another_that_is_not_there(tmp_path):
    (tmp_path / "gone.c").write_text("int gone(void) { return 0; }\n")
    (tmp_path / "user.c").write_text("int gone(void); int user(void) { return gone(); }\n")
    gone, user = tmp_path / "libgone.so", tmp_path / "user.so"
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "gone.c", "-o", gone, "-Wl,-soname,libgone.so"], check=True)
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "user.c", gone, "-o", user], check=True)
    reason = "libgone.so: cannot open shared object file: No such file or directory"
    assert message(load, user) == f"{user} cannot be loaded: {reason}"


def test_a_library_of_someone_else(tmp_path):
    (tmp_path / "other.c").write_text("int answer(void) { return 42; }\n")
    path = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", path], check=True)
    assert message(load, path) == f"{path} is not a library compiled by nncc: it has no function nncc_describe"


def test_another_version_of_the_interface(model):
    path = model("-DFAKE_ABI=7")
    assert message(load, path) == f"{path} speaks version 7 of the interface, this loader version 4"


@pytest.mark.parametrize(
    ("compiler", "machine"),
    [("aarch64-linux-gnu-gcc", "aarch64"), ("arm-linux-gnueabihf-gcc", "armv7l"), ("riscv64-linux-gnu-gcc", "riscv64")],
)
def test_a_library_for_another_machine(model, compiler, machine, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = model(cc=compiler)
    with pytest.raises(RunError) as caught:
        load(path)
    assert str(caught.value) == f"{path} is compiled for {machine} (testboard); this machine is x86_64"
    assert caught.value.hint == (
        "run it with `nncc run`, which uses an emulator where one is installed, or copy it to the board"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="says the same of the other system")
@pytest.mark.parametrize(
    ("head", "system"),
    [
        (b"\xcf\xfa\xed\xfe\x0c\0\0\1", "aarch64 macOS"),
        (b"MZ" + b"\0" * 58 + b"\x40\0\0\0" + b"PE\0\0\x64\x86", "x86_64 Windows"),
    ],
)
def test_a_library_for_another_system(tmp_path, head, system, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = tmp_path / "model.lib"
    path.write_bytes(head + b"\0" * 100 + b"nncc-target:laptop\0")
    assert message(load, path) == f"{path} is compiled for {system} (laptop); this machine is x86_64 Linux"


def test_a_failing_create_gives_its_reason(model):
    path = model('-DFAKE_FEATURES="antigravity"')
    assert message(load, path).startswith(f"{path}: the kernels of target testboard need antigravity, ")


def test_a_rebuilt_library_at_the_same_path_is_loaded_anew(model, tmp_path):
    path = tmp_path / "model.so"
    for arena in (192, 256):
        shutil.copy(model(f"-DFAKE_ARENA={arena}"), tmp_path / "new.so")
        (tmp_path / "new.so").replace(path)
        with load(path) as module:
            assert module.description["arena_bytes"] == arena


def test_the_loader_needs_numpy_only(model):
    """Also the package around it may import nothing heavy."""
    program = (
        "import sys\n"
        "for name in ('tvm', 'tvm_ffi', 'onnx', 'onnx_ir', 'onnxruntime', 'onnxscript', 'click', 'rich', 'psutil',"
        " 'ml_dtypes'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from nncc.runtime.loader import load\n"
        "inputs = {'x': np.ones((4, 8), np.float32), 'mode': np.zeros(1, np.int32)}\n"
        "with load(sys.argv[1]) as model: print(model.run(inputs)['y'][0, 1])\n"
        "print(sorted(m for m in sys.modules if m.startswith('nncc')))\n"
    )
    command = [sys.executable, "-c", program, str(model())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1.5"
