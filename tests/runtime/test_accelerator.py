"""accelerator.c: libraries drive an accelerator through the driver's interface, and say what is wrong with one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import build

from nncc.errors import RunError
from nncc.runtime.loader import describe, load

X = {"x": np.arange(16, dtype=np.uint8)}
Y = X["x"] + 2 * np.arange(1, 17, dtype=np.uint8) + np.array([100] + [0] * 15, np.uint8)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """built("fake_driver.c", *flags): a library, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def get(source: str, *flags: str) -> Path:
        key = (source, *flags)
        if key not in made:
            output = tmp_path_factory.mktemp("built") / f"{Path(source).stem}.so"
            made[key] = build(output, (source,), "-shared", "-fPIC", *flags, "-ldl")
        return made[key]

    return get


@pytest.fixture
def model(built) -> Path:
    return built("fake_accelerated.c")


@pytest.fixture
def driver(built) -> Path:
    return built("fake_driver.c")


def refused(model: Path, device: str) -> str:
    with pytest.raises(RunError) as caught:
        load(model, device=device)
    assert caught.value.message.startswith(f"{model}: ")
    return caught.value.message.removeprefix(f"{model}: ")


def test_programs_run_between_the_calls_of_the_host(model, driver):
    with load(model, device=f"{driver}:any") as module:
        for _ in range(2):
            np.testing.assert_array_equal(module.run(X)["y"], Y)
        assert module.device == "adder_16, 50 MHz, memory none"


def test_the_environment_names_the_driver_too(model, driver, monkeypatch):
    monkeypatch.setenv("NNCC_ACCELERATOR", str(driver))
    with load(model) as module:
        np.testing.assert_array_equal(module.run(X)["y"], Y)


def test_counters_are_those_of_one_inference(model, driver):
    with load(model, device=str(driver)) as module:
        assert module.counters() == {}
        module.run(X)
        module.run(X)
        assert module.counters() == {"adds": 3, "programs": 2}


def test_cycles_of_each_layer_become_seconds_at_the_clock(model, driver):
    with load(model, device=str(driver)) as module:
        _, seconds = module.profile(X)
        assert module.cycles() == [0, 100, 200, 0, 100, 0]
        assert seconds[1:3].tolist() == pytest.approx([2e-6, 4e-6])


def test_a_device_that_counts_no_cycles_says_so(model, driver):
    with load(model, device=f"{driver}:blind") as module:
        module.run(X)
        with pytest.raises(RunError) as caught:
            module.cycles()
        assert caught.value.message == "there was no inference yet, or the device does not count cycles"


def test_a_library_is_described_without_a_device(model):
    assert describe(model)["accelerator"] == {"configuration": "adder_16"}


def test_without_a_driver(model, monkeypatch):
    monkeypatch.delenv("NNCC_ACCELERATOR", raising=False)
    assert refused(model, "") == (
        "this library computes on an accelerator (adder_16), and nobody said which: NNCC_ACCELERATOR in the "
        "environment names its driver, a path, then a colon and what to open; `nncc run --device sim` simulates one"
    )


def test_a_driver_that_is_not_there_or_none(model, tmp_path):
    absent = tmp_path / "absent.so"
    assert refused(model, f"{absent}:x") == (
        f"the accelerator's driver cannot be loaded: {absent}: cannot open shared object file: "
        "No such file or directory"
    )
    assert refused(model, str(model)) == (
        f"`{model}` is no driver of an accelerator: it has no nncc_accelerator_driver"
    )
    assert refused(model, "x" * 5000) == "the path of the accelerator's driver has 5000 characters, more than 4095"


def test_a_driver_of_another_interface(model, built):
    other = built("fake_driver.c", "-DFAKE_ABI=9")
    assert refused(model, str(other)) == (
        f"the driver `{other}` speaks version 9 of the interface, this library version 1"
    )


def test_programs_for_another_machine_are_not_submitted(model, driver):
    assert refused(model, f"{driver}:hash=123456789012345") == (
        "the programs of this library are for adder_16 (abcdefabcdef), the device is adder_16 (123456789012)"
    )


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("info", "describe the device"),
        ("alloc", "allocate the arena"),
        ("write", "write the constants"),
    ],
)
def test_a_call_that_fails_is_told_in_the_drivers_words(model, driver, function, what):
    found = refused(model, f"{driver}:fail={function}")
    assert found == f"the accelerator's driver failed to {what}: told to fail in {function}"


def test_a_device_that_cannot_be_opened(model, driver):
    assert refused(model, f"{driver}:fail=open") == (
        "the accelerator's driver failed to open `fail=open`: there is no device `fail=open`"
    )


@pytest.mark.parametrize("function", ["submit", "wait", "read"])
def test_a_program_that_fails_is_named_by_its_first_layer(model, driver, function):
    with load(model, device=f"{driver}:fail={function}") as module, pytest.raises(RunError) as caught:
        module.run(X)
    assert caught.value.message == (
        f"kernel 1 (add_w) failed: the accelerator's driver failed to run a program: told to fail in {function}"
    )


def test_a_library_without_an_accelerator_takes_no_device(built, tmp_path):
    plain = build(tmp_path / "model.so", ("fake_model.c", "fake_kernels.c", "fake_weights.c"), "-shared", "-fPIC")
    with pytest.raises(RunError) as caught:
        load(plain, device="sim")
    assert caught.value.message == f"{plain} is for testboard, which has no accelerator: it takes no device"
    assert caught.value.hint == "leave the device out, or compile the model for a target with an accelerator"
    with load(plain) as module:
        assert (module.device, module.counters()) == ("", {})


# ---- nncc-bench, the runner for boards --------------------------------------------------------------------------


@pytest.fixture
def runner(bench, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(bench()), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    return run


def test_the_runner_takes_a_device(model, driver, runner, tmp_path):
    X["x"].tofile(tmp_path / "x.bin")
    done = runner(model, "--device", f"{driver}:any", "--input", "x=x.bin", "--output", "y=y.bin")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("adder for adder, 1 thread, 10 runs\naccelerator: adder_16, 50 MHz, memory none\n")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y.bin", np.uint8), Y)


def test_the_runner_tells_cycles_and_counters(model, driver, runner):
    done = runner(model, "--device", driver, "--fill", "ones", "--profile", "--json")
    facts = json.loads(done.stdout)
    assert facts["device"] == "adder_16, 50 MHz, memory none"
    assert [call["cycles"] for call in facts["calls"]] == [0, 100, 200, 0, 100, 0]
    assert facts["calls"][2]["mean_us"] == pytest.approx(4.0)
    assert facts["counters"] == {"adds": 3, "programs": 2}
    text = runner(model, "--device", driver, "--fill", "ones", "--profile").stdout
    assert "     GB/s       cycles  call\n" in text and "          200    2 add_w\n" in text
    assert text.endswith("\n           3  adds\n           2  programs\n")
    blind = json.loads(runner(model, "--device", f"{driver}:blind", "--fill", "ones", "--profile", "--json").stdout)
    assert "cycles" not in blind["calls"][1] and blind["counters"]["programs"] == 2


def test_a_driver_in_this_folder_needs_no_path(model, driver, runner, tmp_path):
    (tmp_path / "driver.so").write_bytes(driver.read_bytes())
    assert runner(model, "--device", "driver.so:any", "--fill", "ones").returncode == 0


def test_the_runner_describes_what_a_library_wants(model, runner):
    assert json.loads(runner(model, "--describe").stdout) == describe(model)


def test_the_runner_says_what_is_wrong_with_a_device(model, driver, runner, tmp_path):
    plain = build(tmp_path / "model.so", ("fake_model.c", "fake_kernels.c", "fake_weights.c"), "-shared", "-fPIC")
    cases = {
        (plain, driver): (2, f"--device: {plain} is for testboard, which has no accelerator"),
        (model, ""): (2, "--device wants a driver, a shared library: PATH, or PATH:URI"),
        (model, "absent.so:x"): (
            1,
            "the accelerator's driver cannot be loaded: ./absent.so: cannot open shared object file: "
            "No such file or directory",
        ),
        (model, f"{driver}:fail=open"): (
            1,
            "the accelerator's driver failed to open `fail=open`: there is no device `fail=open`",
        ),
    }
    for (library, device), (status, text) in cases.items():
        done = runner(library, "--device", device, "--fill", "ones")
        assert (done.returncode, done.stderr) == (status, f"nncc-bench: {text}\n")
