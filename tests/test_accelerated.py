"""Models for an accelerator, from ONNX to the simulator: the bits of the processor's own library, and errors."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from accelerated import residuals, same_integers
from click.testing import CliRunner
from compiled import Compiled, Net, compile_net
from quantized import QuantizedNet, extremes, inputs_of, many_kinds

from nncc.cli import cli
from nncc.emulation import write_runner
from nncc.errors import RunError, ToolError, UsageError
from nncc.execute import describe, open_library
from nncc.resources import runtime_folder
from nncc.runtime.loader import load
from nncc.vta.devices import driver_of
from nncc.vta.machine import Machine
from nncc.vta.program import find_binaries
from nncc.vta.simulator import build_simulator

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="the simulator needs a C++ compiler")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_net(residuals(), tmp_path_factory.mktemp("vta"), "vta")


@pytest.mark.parametrize("make", [residuals, many_kinds, extremes])
def test_the_simulator_computes_what_the_processor_computes(make, tmp_path):
    same_integers(make("int8"), tmp_path, "vta", inputs_of(make))


def test_other_sizes_of_the_machine_give_the_same_bits(tmp_path):
    same_integers(residuals(), tmp_path, "vta,block=32,inp_kib=16,acc_kib=64,wgt_kib=64,bus_bytes=16")


def test_rows_of_a_matrix_are_pixels(tmp_path):
    net = QuantizedNet("int8")
    x = net.quantized(net.input(2, 5, 37), 0.05)
    net.output(net.quantized_matmul(net.quantized_matmul(x, 37, 70), 70, 21))
    compiled = same_integers(net, tmp_path, "vta")
    assert len(compiled.program.streams) == 2


def test_inputs_and_outputs_of_the_model_are_copied_for_the_accelerator(tmp_path):
    net = QuantizedNet("int8")
    grid = net.constant(0.05, np.float32), net.constant(0, np.int8)
    x = net.op("DequantizeLinear", net.input(1, 32, 1, 1, dtype=np.int8), *grid)
    values = net.levels(net.random.integers(-127, 128, (16, 32, 1, 1), np.int8), np.full(16, 0.003))
    net.output(net.op("QuantizeLinear", net.op("Conv", x, values), *grid))
    compiled = same_integers(net, tmp_path, "vta")
    spaces = {
        ref.space for call in compiled.program.calls if call.kernel in compiled.program.streams for ref in call.args
    }
    assert spaces == {"arena", "weights"}


def test_a_model_of_floats_has_no_program_and_still_wants_its_device(tmp_path):
    net = Net()
    net.output(net.conv(net.input(1, 3, 8, 8), 3, 4, (3, 3)))
    compiled = compile_net(net, tmp_path, "vta")
    assert compiled.artifact.description["accelerator"]["programs"] == 0
    sample = compiled.sample()
    for name, array in compiled.expected(sample).items():
        np.testing.assert_allclose(compiled.run(sample)[name], array, rtol=1e-4, atol=1e-5)


def test_layers_in_a_loop_are_a_program_of_its_body(tmp_path):
    numbers = ", ".join(map(str, np.random.default_rng(0).integers(-127, 128, 256).tolist()))
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (int64 n, float[1,16] a) => (float[1,16] x) {{
      yes = Constant <value = bool {{1}}> ()
      x = Loop (n, yes, a) <body = body (int64 i, bool c, float[1,16] p) => (bool d, float[1,16] r) {{
        d = Identity(c)
        s = Constant <value = float {{0.05}}> ()
        z = Constant <value = int8 {{3}}> ()
        t = Constant <value = float {{0.004}}> ()
        o = Constant <value = int8 {{0}}> ()
        w = Constant <value = int8[16,16] {{{numbers}}}> ()
        v = DequantizeLinear(w, t, o)
        q = QuantizeLinear(p, s, z)
        f = DequantizeLinear(q, s, z)
        m = MatMul(f, v)
        k = QuantizeLinear(m, s, z)
        r = DequantizeLinear(k, s, z)
      }}>
    }}"""
    model = onnx.parser.parse_model(text)
    ours, plain = (compile_net(model, tmp_path / name, name) for name in ("vta", "native"))
    assert ours.artifact.description["accelerator"]["programs"] == 1
    given = ours.sample(n=np.array(3, np.int64))
    np.testing.assert_array_equal(ours.run(given)["x"], plain.run(given)["x"])
    opened = open_library(ours.library, device="sim")
    once, thrice = (sum(opened.simulate(given | {"n": np.array(n, np.int64)}).cycles) for n in (1, 3))
    assert thrice == 3 * once > 0


def test_compiling_checks_the_library_on_the_simulator(tmp_path):
    path = residuals().save(tmp_path / "net.onnx")
    done = CliRunner().invoke(cli, ["compile", str(path), "--target", "vta", "-o", str(tmp_path / "out"), "--json"])
    facts = json.loads(done.stdout)
    assert facts["acceleration"] == {"layers": 9, "macs": 1074136, "host_macs": 0, "host_layers": []}
    assert [each["ok"] for each in facts["check"]["outputs"]] == [True, True]
    assert facts["check"]["emulated_by"] == "the simulator"
    shown = CliRunner().invoke(
        cli, ["compile", str(path), "--target", "vta", "-o", str(tmp_path / "out"), "--no-verify"]
    )
    assert "\naccelerator 9 layers, all of the multiply-adds on integers\n" in shown.stdout
    assert f"next: nncc run {tmp_path / 'out' / 'net.so'} --device sim --fill random --print-top 5\n" in shown.stdout


def test_needs_nothing_but_libc(compiled):
    done = subprocess.run(["readelf", "-d", compiled.library], capture_output=True, text=True, check=True)
    needed = {line.split("[")[1].split(".so")[0] for line in done.stdout.splitlines() if "NEEDED" in line}
    assert needed <= {"libc", "libm", "libdl", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64"}


def test_the_library_describes_its_machine_and_programs_without_a_device(compiled):
    about = describe(compiled.library)["accelerator"]
    machine = compiled.program.target.hardware.accelerator
    assert Machine(**about["machine"]) == machine
    assert about["isa_hash"] == machine.isa_hash
    assert about["layers"] == sum(call.kernel in compiled.program.streams for call in compiled.program.calls)
    assert about["kernels"].keys() == compiled.program.streams.keys()
    assert describe(compiled.library)["schedules"].keys() >= compiled.program.streams.keys()


def test_the_programs_in_a_library_can_be_read_again(compiled):
    binaries = find_binaries(compiled.library.read_bytes(), "the library")
    about = describe(compiled.library)["accelerator"]
    assert [binary.machine for binary in binaries] == [compiled.program.target.hardware.accelerator] * about["programs"]
    assert sum(len(binary.instructions) for binary in binaries) == about["instructions"]
    done = CliRunner().invoke(cli, ["vta", "disasm", str(compiled.library)])
    assert done.stdout.lower().count("finish") == about["programs"]


def bench(compiled: Compiled, *words: str) -> str:
    done = CliRunner().invoke(cli, ["bench", str(compiled.library), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_bench_tells_the_cycles_of_each_layer_and_where_they_went(compiled):
    facts = json.loads(bench(compiled, "--device", "sim", "--profile", "--json"))
    assert facts["device"] == "nv1_16x16_inp32_wgt256_acc128_uop16_par32, 100 MHz, memory pynq"
    # Between layers nothing is counted twice, and only the beginnings and ends of programs are no layer's.
    assert (
        0 <= facts["cycles"] - sum(row["cycles"] for row in facts["layers"]) < 100 * facts["counters"]["instructions"]
    )
    assert facts["accelerator_ms"] == pytest.approx(sum(row["cycles"] for row in facts["layers"]) * 1e-5)
    parts = [key for key in facts["counters"] if key.startswith("compute_") and key != "compute_busy"]
    assert sum(facts["counters"][key] for key in parts) == pytest.approx(facts["cycles"], rel=0.02)
    for row in facts["layers"]:
        assert row["gemm"] + row["alu"] <= row["cycles"]


def test_bench_says_so_in_words(compiled):
    text = bench(compiled, "--device", "sim:memory=ideal", "--profile")
    assert text.startswith(
        "net for vta, simulated: nv1_16x16_inp32_wgt256_acc128_uop16_par32, 100 MHz, memory ideal\n\naccelerator  "
    )
    assert " %  products\n" in text
    assert "cycles   share  calls  GEMM   ALU  issue  waiting  memory  schedule" in text


@pytest.mark.skipif(shutil.which("verilator") is None, reason="there is no Verilator")
def test_the_core_computes_what_the_simulator_computes_in_its_cycles(compiled):
    sample = compiled.sample()
    outputs = [open_library(compiled.library, device=device).run(sample) for device in ("sim", "rtl")]
    assert outputs[0].keys() == outputs[1].keys()
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(outputs[1][name], array)
    facts = [json.loads(bench(compiled, "--device", device, "--profile", "--json")) for device in ("sim", "rtl")]
    assert facts[1]["cycles"] == pytest.approx(facts[0]["cycles"], rel=0.005)
    for key in ("gemm_iterations", "alu_iterations", "INP_bytes", "OUT_bytes", "fetch_bytes"):
        assert facts[1]["counters"][key] == facts[0]["counters"][key]


def test_a_driver_in_c_and_the_runner_in_c_are_all_that_a_board_needs(compiled, tmp_path):
    """`nncc vta simulator` stands for the hardware, behind a driver whose memory the host does not see."""
    simulator, driver = tmp_path / "simulator.so", tmp_path / "far.so"
    done = CliRunner().invoke(cli, ["vta", "simulator", "--target", "vta", "-o", str(simulator)])
    assert (done.exit_code, done.stdout) == (0, f"{simulator}\n"), done.output
    source = Path(__file__).parent / "runtime" / "far_driver.c"
    command = ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{runtime_folder()}", "-shared", "-fPIC", str(source), "-o", str(driver), "-ldl"]
    subprocess.run(command, check=True)
    sample = compiled.sample()
    expected = open_library(compiled.library, device="sim").run(sample)
    words: list[object] = []
    for name, array in sample.items():
        array.tofile(tmp_path / f"{name}.in")
        words += ["--input", f"{name}={tmp_path / name}.in"]
    for name in expected:
        words += ["--output", f"{name}={tmp_path / name}.out"]
    runner = write_runner(compiled.library, tmp_path)
    for device in (f"{simulator}:sim", f"{driver}:{simulator}:sim:memory=pynq"):
        asked = [runner, compiled.library, "--device", device, "--repeat", "1", "--profile", "--json", *words]
        ran = subprocess.run(list(map(str, asked)), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        for name, array in expected.items():
            np.testing.assert_array_equal(np.fromfile(tmp_path / f"{name}.out", array.dtype), array.reshape(-1))
        facts = json.loads(ran.stdout)
        assert facts["device"].endswith("100 MHz, memory pynq")
        assert sum(call["cycles"] for call in facts["calls"]) <= facts["counters"]["cycles"] > 0


# ---- errors -----------------------------------------------------------------------------------------------------


def test_a_word_that_names_no_device(compiled):
    with pytest.raises(UsageError) as caught:
        open_library(compiled.library, device="board")
    assert caught.value.message == "there is no device `board`"
    hint = (
        "`sim` simulates the accelerator, `rtl` its core in SystemVerilog; a board has a driver, a shared library: "
        "PATH, or PATH:URI"
    )
    assert caught.value.hint == hint


def test_an_option_that_the_simulator_does_not_have(compiled):
    with pytest.raises(RunError) as caught:
        open_library(compiled.library, device="sim:memry=ideal")
    assert caught.value.message.startswith(
        f"{compiled.library}: the accelerator's driver failed to open `sim:memry=ideal`: "
    )


def test_the_command_line_says_what_to_do_without_a_device(compiled, monkeypatch):
    monkeypatch.delenv("NNCC_ACCELERATOR", raising=False)
    done = CliRunner().invoke(cli, ["run", str(compiled.library)])
    assert done.exit_code == 1
    assert "`nncc run --device sim` simulates one" in " ".join(done.stderr.split())


def test_a_program_for_another_machine_is_refused(compiled):
    other = build_simulator(Machine(wgt_kib=128))
    mine = compiled.program.target.hardware.accelerator
    with pytest.raises(RunError) as caught:
        load(compiled.library, device=f"{other}:sim")
    assert caught.value.message == (
        f"{compiled.library}: the programs of this library are for nv1_16x16_inp32_wgt256_acc128_uop16_par32 "
        f"({mine.isa_hash[:12]}), the device is nv1_16x16_inp32_wgt128_acc128_uop16_par32 "
        f"({Machine(wgt_kib=128).isa_hash[:12]})"
    )


def test_a_simulator_that_cannot_be_compiled_leaves_the_library_unchecked(tmp_path, monkeypatch):
    def fails(machine: Machine) -> Path:
        raise ToolError("the simulator needs a C++ compiler: there is none", "install g++, or `pip install ziglang`")

    monkeypatch.setattr("nncc.vta.simulator.build_simulator", fails)
    net = QuantizedNet("int8")
    net.output(net.quantized_conv(net.quantized(net.input(1, 16, 4, 4), 0.05), 16, 16, (1, 1)))
    path = net.save(tmp_path / "net.onnx")
    done = CliRunner().invoke(cli, ["compile", str(path), "--target", "vta", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0
    said = " ".join(done.stdout.split())
    assert "the simulator needs a C++ compiler: there is none (install g++, or `pip install ziglang`)" in said
    about = describe(tmp_path / "out" / "net.so")
    with pytest.raises(ToolError):
        driver_of("sim", about)


def test_a_library_for_the_processor_alone_takes_no_device(tmp_path):
    net = Net()
    net.output(net.op("Relu", net.input(3)))
    library = compile_net(net, tmp_path).library
    with pytest.raises(RunError) as caught:
        open_library(library, device="sim")
    assert caught.value.message == f"{library} is for native, which has no accelerator: it takes no device"
