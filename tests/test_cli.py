"""The command line as its users meet it: words in, text or JSON out, and an exit status that says whose turn it is."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import nncc
from nncc.cli import cli, compile_command
from nncc.cli.errors import FORMER_OPTIONS
from nncc.config import Config
from nncc.doctor import Row
from nncc.ir import TensorSpec
from nncc.pipeline import STAGES, stages
from nncc.reports import duration, table

SHAPE = ("--shape", "image=2x3x8x8")
ALL_STAGES = [stage.name for stage in STAGES]
STAGE_NAMES = [stage.name for stage in stages(Config())]
OPEN_STAGE_NAMES = [stage.name for stage in stages(Config(range={"N": (1, 2)}))]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The command line in this process and in an empty folder; checks the exit status."""
    monkeypatch.chdir(tmp_path)

    def call(*words, status=0):
        result = CliRunner().invoke(cli, [str(word) for word in words])
        assert result.exit_code == status, result.stdout + result.stderr
        return result

    return call


# ---- help and words ---------------------------------------------------------------------------------------------


def test_every_option_of_a_compilation_is_a_flag_explained_where_it_is_declared(call):
    flags = {parameter.name for parameter in compile_command.params}
    assert {field.name for field in dataclasses.fields(Config)} <= flags
    text = " ".join(call("compile", "--help").stdout.split())
    assert "Check the library against ONNX Runtime, here or in an emulator." in text
    assert "Tuning records to take decisions from: a folder, or a place such as `s3://bucket/nncc`" in text
    for parameter in compile_command.params[1:]:
        assert parameter.help, parameter.name


def test_help_names_the_stages_of_the_pipeline(call):
    text = " ".join(call("compile", "--help").stdout.split())
    assert f" Stages: {', '.join(ALL_STAGES)}." in text


def test_without_words_help_is_an_error(call):
    result = call(status=2)
    assert result.stdout == ""
    assert result.stderr == call("--help").stdout
    assert "compile   ONNX model to shared library.\n" in result.stderr
    assert "...\n" not in result.stderr.partition("Commands:")[2]  # no short help is cut


def test_version(call):
    assert call("--version").stdout == f"nncc {nncc.__version__}\n"


def test_the_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "nncc", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nncc {nncc.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["compil"], "nncc has no command `compil`", "did you mean `nncc compile`?"),
        (
            ["xyzzy"],
            "nncc has no command `xyzzy`",
            "there are: compile, check, quantize, prune, distill, compare, tune, run, bench, show, records, vta, "
            "targets, doctor",
        ),
        (["compile"], "missing argument `MODEL`", "`nncc compile --help` shows what it takes"),
        (["compile", "m.onnx", "--emitt", "so"], "there is no option `--emitt`", "did you mean `--emit`?"),
        (["compile", "m.onnx", "--emit", "exe"], "`--emit exe` is none of so, a, o", None),
        (["compile", "m.onnx", "--dump-code", "relay"], "`--dump-code relay` is none of asm, ll, tir, cu, ptx", None),
        (
            ["compile", "m.onnx", "--shape", "1x3x8x8"],
            "`--shape 1x3x8x8` is not NAME=SIZExSIZE...",
            "for example `--shape input=1x3x224x224`",
        ),
        (
            ["compile", "m.onnx", "--input-shapes", "a:[1,3] b[2]"],
            "`--input-shapes`: `b[2]` does not begin with NAME:[SIZE,...]",
            'for example `--input-shapes "a:[1,3,224,224] b:[1]"`',
        ),
        (
            ["compile", "m.onnx", "--until", "lunch"],
            "unknown stage `lunch`",
            "the stages are import, quantize, simplify, specialize, lower, schedule, flatten, build",
        ),
        (["compile", "m.onnx", "--threads", "0"], "--threads must be at least 1, not 0", None),
        (
            ["compile", "m.onnx", "--name", "../up"],
            "the name '../up' cannot be a file's",
            "choose another with `--name`",
        ),
        (["compile", "m.onnx", "--executor", "aot"], "there is no option `--executor`", FORMER_OPTIONS["--executor"]),
        (["compile", "m.onnx", "-O", "3"], "there is no option `-O`", FORMER_OPTIONS["-O"]),
    ],
)
def test_words_that_are_off_exit_with_2(call, words, message, hint):
    assert call(*words, status=2).stderr == f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else "")


# ---- compile ----------------------------------------------------------------------------------------------------


def test_compile_tells_target_stages_sizes_check_and_what_to_do_next(call, tiny, tmp_path):
    result = call("compile", tiny, *SHAPE)
    assert result.stderr == ""
    head, stages, sizes, check, following = result.stdout.split("\n\n")
    assert head.startswith("target   native: ")
    assert [line.split()[0] for line in stages.splitlines()] == [*STAGE_NAMES, "check", "in"]
    assert [line.split()[0] for line in sizes.splitlines()] == ["library", "weights", "code", "arena"]
    assert "tiny-native/tiny.so" in sizes
    assert check.startswith("checked against ONNX Runtime on random inputs\n  y  float32  ")
    assert following == "next: nncc run tiny-native/tiny.so --fill random --print-top 5\n"
    assert sorted(os.listdir(tmp_path / "tiny-native")) == ["tiny.h", "tiny.json", "tiny.so"]


def test_compile_in_json(call, tiny, tmp_path):
    result = call("compile", tiny, *SHAPE, "--json", "-o", "out", "--module-name", "other", "--threads", "1")
    facts = json.loads(result.stdout)
    assert result.stderr == ""
    assert [stage["name"] for stage in facts["stages"]] == STAGE_NAMES
    assert facts["library"] == os.path.join("out", "other.so")
    assert facts["name"] == "other"
    assert facts["target"]["cores"] == 1
    assert facts["sizes"]["library_bytes"] == (tmp_path / "out" / "other.so").stat().st_size
    assert facts["sizes"]["library_bytes"] == facts["sizes"]["weights_bytes"] + facts["sizes"]["code_bytes"]
    (output,) = facts["check"]["outputs"]
    assert output["name"] == "y" and output["ok"] and output["relative_error"] <= output["tolerance"]


def test_shapes_in_the_words_of_tvmc(call, tiny):
    shapes = "image:[4,3,8,8] offset:[5]"
    text = call("compile", tiny, "--input-shapes", shapes, "--until", "import").stdout
    assert text.endswith("\nstopped after import; nothing was built\n")
    shown = call("show", tiny, "--input-shapes", shapes).stdout
    assert shown == call("show", tiny, "--shape", "image=4x3x8x8").stdout
    assert "image: float32[4x3x8x8]" in shown


def test_a_library_for_a_range_of_sizes_tells_what_others_tell(call, tiny):
    result = call("compile", tiny, "--range", "N=1..3", "--buckets", "2", "--threads", "1")
    _, stages, _, check, _ = result.stdout.split("\n\n")
    assert [line.split()[0] for line in stages.splitlines()] == [*OPEN_STAGE_NAMES, "check", "in"]
    assert check.count("y  float32  ") == 3, "all sizes, the bucket among them"


def test_stopping_early_leaves_no_folder(call, tiny, tmp_path):
    call("compile", tiny, *SHAPE, "--until", "flatten")
    assert os.listdir(tmp_path) == []


def test_stages_are_saved(call, tiny, tmp_path):
    assert call("compile", tiny, *SHAPE, "--save-stages", "s", "--no-verify").stdout.count("the stages are in s\n") == 1
    names = ["0-import.onnx", "1-simplify.onnx", "2-specialize.txt", "3-lower.txt", "4-schedule.txt", "5-flatten.txt"]
    assert sorted(os.listdir(tmp_path / "s")) == names
    for name in names[:2]:
        onnx.checker.check_model(str(tmp_path / "s" / name))
    assert "program tiny for native" in (tmp_path / "s" / names[5]).read_text()


def test_everything_that_can_be_made(call, tiny, tmp_path):
    words = ("--emit", "so,a", "--output-format", "o", "--dump-code", "asm,ll,tir", "--no-verify")
    facts = json.loads(call("compile", tiny, *SHAPE, *words, "--json").stdout)
    made = {"libtiny.a", "tiny.asm", "tiny.h", "tiny.json", "tiny.ll", "tiny.o", "tiny.so", "tiny.tir"}
    assert set(os.listdir(tmp_path / "tiny-native")) == made
    assert {os.path.basename(path) for path in facts["extras"]} == made - {"tiny.h", "tiny.json", "tiny.so"}
    assert facts["check"] == {"done": False, "reason": "--no-verify", "emulated_by": "", "seconds": 0.0, "outputs": []}


def test_a_target_that_cannot_run_here_is_compiled_and_not_checked(call, tiny, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no emulator; zig is a Python package
    text = call("compile", tiny, *SHAPE, "--target", "rpi4").stdout
    line = (
        "not checked against ONNX Runtime: this machine cannot run target `rpi4`: there is no `qemu-aarch64` "
        "(`apt install qemu-user libc6-arm64-cross`, or run it on a machine of its own)\n"
    )
    assert line in text
    assert text.endswith("next: nncc bench tiny-rpi4/tiny.so --runner tiny-rpi4   # a bench program for the board\n")


def test_a_library_that_computes_something_else_is_a_defect_and_stays(call, tiny, tmp_path, monkeypatch):
    def wrong(self, inputs):
        return {"y": np.zeros((2, 5), np.float32)}

    monkeypatch.setattr("nncc.execute.OpenLibrary.run", wrong)
    stderr = call("compile", tiny, *SHAPE, status=70).stderr
    assert stderr == (
        "error: build: `tiny-native/tiny.so` computes something else than ONNX Runtime:\n"
        "  `y` float32: differs (relative error 1, at most 0.0001)\n"
        "\n"
        "This is a defect of nncc, not a mistake of yours.\n"
        "\n"
        "hint: please report this, with the model; `--no-verify` compiles without the check; "
        "NNCC_TRACEBACK=1 shows the whole traceback\n"
    )
    assert (tmp_path / "tiny-native" / "tiny.so").exists()


def test_python_verifies_too(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("nncc.execute.OpenLibrary.run", lambda self, inputs: {"y": np.zeros((2, 5), np.float32)})
    with pytest.raises(nncc.NnccError, match="computes something else than ONNX Runtime"):
        nncc.compile(tiny, output=tmp_path / "out", shape={"image": (2, 3, 8, 8)})


# ---- run --------------------------------------------------------------------------------------------------------


def test_run_says_what_came_out(call, library):
    lines = call("run", library, "--fill-mode", "ones", "--print-top", "2").stdout.splitlines()
    inputs = {"image": np.ones((2, 3, 8, 8), np.float32), "offset": np.ones(5, np.float32)}
    expected = nncc.load(library).run(inputs)["y"]
    assert lines[0] == "tiny for native; inputs: ones"
    assert lines[2].split() == ["output", "type", "min", "max", "mean"]
    assert lines[3].split()[:2] == ["y", "float32[2x5]"]
    assert [float(word) for word in lines[3].split()[2:]] == pytest.approx(
        [expected.min(), expected.max(), expected.mean(dtype=np.float64)], rel=1e-5
    )
    assert lines[5] == "largest of `y`, first row"
    assert lines[6].split() == ["index", "value"]
    assert [int(line.split()[0]) for line in lines[7:]] == np.argsort(-expected[0])[:2].tolist()


def test_arrays_in_and_arrays_out(call, library, tmp_path):
    rng = np.random.default_rng(1)
    inputs = {"image": rng.standard_normal((2, 3, 8, 8), np.float32), "offset": rng.standard_normal(5, np.float32)}
    np.savez(tmp_path / "in.npz", **inputs)
    text = call("run", library, "--inputs", "in.npz", "--outputs", "out.npz").stdout
    assert text.endswith("\nwritten to out.npz\n")
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs.files == ["y"]
        np.testing.assert_array_equal(outputs["y"], nncc.load(library).run(inputs)["y"])


def test_what_a_file_lacks_is_filled_if_asked(call, library, tmp_path):
    np.savez(tmp_path / "in.npz", offset=np.ones(5, np.float32))
    result = json.loads(call("run", library, "-i", "in.npz", "--fill", "zeros", "--json").stdout)
    assert result["inputs"] == "in.npz; image zeros"
    assert result["outputs"] == [
        {"name": "y", "dtype": "float32", "shape": [2, 5], "min": 1.0, "max": 1.0, "mean": 1.0}
    ]
    stderr = call("run", library, "-i", "in.npz", status=1).stderr
    hint = "give an array for every input, by its name"
    assert stderr == f"error: `in.npz` lacks: {TensorSpec('image', 'float32', (2, 3, 8, 8))}\n\nhint: {hint}\n"


def test_the_seed_decides_the_random_inputs(call, library):
    runs = [call("run", library, "--seed", seed, "--json").stdout for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_run_and_time(call, library):
    facts = json.loads(call("run", library, "--print-time", "--repeat", "4", "--json").stdout)
    assert len(facts["time"]["times_ms"]) == 4
    assert "p50" in call("run", library, "--print-time", "--repeat", "4").stdout


# ---- bench ------------------------------------------------------------------------------------------------------


def test_bench_in_json(call, library, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", "cache")
    facts = json.loads(call("bench", library, "--threads", "2", "--repeat", "20", "--profile", "--json").stdout)
    assert (facts["name"], facts["threads"], facts["repeat"]) == ("tiny", 2, 20)
    assert 0 < facts["min_ms"] <= facts["p50_ms"] <= facts["p90_ms"]
    assert facts["load_ms"] > 0 and facts["create_ms"] > 0
    assert sum(kernel["share"] for kernel in facts["kernels"]) == pytest.approx(1)
    schedules = json.loads(library.with_suffix(".json").read_text())["schedules"]
    assert {kernel["name"]: kernel["schedule"] for kernel in facts["kernels"]}.items() >= schedules.items()
    assert all(kernel["gbps"] > 0 and kernel["roofline"] > 0 for kernel in facts["kernels"])
    assert facts["roofline"]["gflops"] > 0 and facts["roofline"]["memory_gbps"] > 0


def test_memory_is_the_model_s_and_not_python_s(call, library):
    facts = json.loads(call("bench", library, "--repeat", "200000", "--json").stdout)
    assert 0 < facts["peak_bytes"] < 4 * 2**20  # numpy alone has more, and the list of times too


def test_bench_as_text(call, library, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", "cache")
    text = call("bench", library, "--repeat", "5", "--profile").stdout
    head, times, roofline, kernels = text.split("\n\n")
    assert head == "tiny for native, 1 thread, 5 runs"
    assert [line.split()[0] for line in times.splitlines()][:6] == ["p50", "p90", "min", "mean", "load", "create"]
    assert re.fullmatch(r"roofline  \d+ GFLOP/s, \d+ GB/s from memory \(1 thread, measured\)", roofline)
    columns = ["time", "share", "calls", "GFLOP/s", "GB/s", "roofline", "schedule", "kernel"]
    assert kernels.splitlines()[0].split() == columns


def test_the_runner_is_a_program_for_the_target(call, library, tmp_path):
    call("bench", library, "--runner", "board")
    program = tmp_path / "board" / "nncc-bench"
    done = subprocess.run([program, library, "--repeat", "2", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["name"] == "tiny"


# ---- show, targets, doctor --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("import", ["Conv", "Relu", "Gemm"]),
        ("simplify", ["Conv", "Relu"]),
        ("specialize", ["@R.function", "def main"]),
        ("lower", ["T.prim_func"]),
        ("schedule", ["T.vectorized"]),
        ("flatten", ["program tiny for native", "input  0 image", "weights+0"]),
    ],
)
def test_a_model_is_shown_after_any_stage(call, tiny, stage, words):
    text = call("show", tiny, *SHAPE, "--stage", stage).stdout
    assert [word for word in words if word not in text] == []


def test_a_model_with_open_dimensions_is_shown_at_guessed_sizes(call, tiny):
    result = call("show", tiny)
    assert result.stdout == call("show", tiny, "--shape", "image=1x3x8x8").stdout
    assert result.stderr == "`image` is Nx3x8x8; shown as 1x3x8x8: `--shape image=1x3x8x8`\n"


def test_a_library_is_shown_too(call, library):
    text = call("show", library).stdout
    assert "input     image: float32[2x3x8x8]\n" in text
    assert json.loads(call("show", library, "--json").stdout)["name"] == "tiny"


def test_targets(call):
    lines = call("targets").stdout.splitlines()
    assert lines[0].split()[:4] == ["name", "processor", "vector", "cores"]
    names = [line.split()[0] for line in lines[1:-2]]
    assert {"native", "rpi4", "x86-64-v3"} <= set(names)
    assert [each["name"] for each in json.loads(call("targets", "--json").stdout)] == names


def test_a_target_in_full(call):
    text = call("targets", "rpi4").stdout
    assert text.startswith("rpi4: Raspberry Pi 4B")
    assert "  mcpu       cortex-a72\n" in text
    assert "  l2        1024 KiB\n" in text


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_the_doctor_fails_where_nncc_cannot_work(call, monkeypatch, status, code):
    rows = [Row("python", "ok", "3.x"), Row("zig", status, "a detail", "a hint"), Row("target rpi4", "ok", "links")]
    monkeypatch.setattr("nncc.doctor.diagnose", lambda: rows)
    text = call("doctor", status=code).stdout
    assert f"{status:<4}  zig     a detail\n" in text
    assert ("      a hint\n" in text) == (status != "ok")
    assert json.loads(call("doctor", "--json", status=code).stdout)[1]["status"] == status


def test_the_doctor_looks_at_this_machine(call):
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code in (0, 1)
    assert result.stdout.splitlines()[0].split()[1] == "python"


# ---- defects and interruptions ----------------------------------------------------------------------------------


def test_what_no_one_foresaw_names_the_stage_and_is_no_bare_traceback(call, tiny, tmp_path, monkeypatch):
    def broken(*anything):
        raise KeyError("left hand")

    monkeypatch.delenv("NNCC_TRACEBACK", raising=False)
    monkeypatch.setattr("nncc.codegen.lower.lower", broken)
    expected = (
        "error: lower: KeyError: 'left hand'\n"
        "\n"
        "This is a defect of nncc, not a mistake of yours.\n"
        "\n"
        "hint: please report this, with the command and the model; NNCC_TRACEBACK=1 shows the whole traceback\n"
    )
    assert call("compile", tiny, *SHAPE, status=70).stderr == expected
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("NNCC_TRACEBACK", "1")
    stderr = call("compile", tiny, *SHAPE, status=70).stderr
    assert stderr.endswith(expected)
    assert "Traceback (most recent call last)" in stderr and "in broken" in stderr


def test_a_defect_in_json(call, tiny, monkeypatch):
    monkeypatch.setattr("nncc.passes.simplify.simplify", lambda model: 1 / 0)
    result = call("compile", tiny, *SHAPE, "--json", status=70)
    answer = json.loads(result.stdout)
    assert answer["error"].startswith("simplify: ZeroDivisionError: division by zero\n")
    assert "NNCC_TRACEBACK=1" in answer["hint"]


def test_an_interruption_exits_with_130_and_leaves_nothing(call, tiny, tmp_path, monkeypatch):
    def interrupted(*anything):
        raise KeyboardInterrupt

    monkeypatch.setattr("nncc.codegen.flatten.flatten", interrupted)
    assert call("compile", tiny, *SHAPE, status=130).stderr.strip() == "interrupted"
    assert os.listdir(tmp_path) == []


def test_chatter_of_other_tools_does_not_reach_the_terminal(capfd):
    from nncc.reports.console import quiet

    with quiet() as stream:
        os.write(1, b"chatter\n")
        os.write(2, b"chatter\n")
        print("progress", file=stream, flush=True)
    print("result")
    captured = capfd.readouterr()
    assert "chatter" not in captured.out + captured.err
    assert captured.out == "result\n"


# ---- text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 us"),
        (1.234e-6, "1.23 us"),
        (999.4e-6, "999 us"),
        (999.6e-6, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (1.5, "1.50 s"),
        (99.9, "99.9 s"),
        (125, "2 min 5 s"),
    ],
)
def test_durations_have_three_digits_that_count(seconds, text):
    assert duration(seconds) == text


def test_columns_are_aligned_and_lines_end_clean():
    assert table([["a", "1"], ["bcd", "22", "x"]], "<>", "  ") == "  a     1\n  bcd  22  x\n"
