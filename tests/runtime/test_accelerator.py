"""accelerator.c: libraries drive an accelerator through the driver's interface, and say what is wrong with one."""

from __future__ import annotations

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
