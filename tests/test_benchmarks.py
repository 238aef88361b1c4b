"""The measuring programs: their tables come from their rows, their errors say what to do, and who fails is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import accuracy
import agreement
import bench
import count
import numpy as np
import onnx
import pytest
import sparse
import stretches
import tables
from compile_cost import NotCompiled, compile_model
from models import chosen, models
from peers import CONTESTANTS, check
from quantized_nets import QuantizedNet

import nncc
from nncc.kernels.skipping import density
from nncc.verify import reference

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("speed", "times", "compile", "tuning", "counts", "accuracy", "gpu", "sparse", "agreement")
KNOWN = "speed, times, compile, tuning, counts, accuracy, gpu, sparse, agreement"
PLACES = "".join(f"{tables.START.format(name)}\nold\n{tables.END}\n" for name in TABLES)


def row(model: str = "small", **other: object) -> dict:
    return {
        "model": model,
        "threads": 1,
        "processor": "A Processor",
        "isa": "",
        "unlimited": [],
        "target": "native",
        "milliseconds": {"nncc": 2.0, "ort": 3.0, "ov": 2.5},
        "ratios": {"ort": [1.4, 1.5, 1.6], "ov": [1.2, 1.25, 1.3]},
        "compile": {"seconds": 2.31, "peak_mib": 309, "library_bytes": 3 * 2**19},
        **other,
    }


def tuned(model: str, **other: object) -> dict:
    return {
        "model": model,
        "processor": "A Processor",
        "target": "native",
        "threads": 1,
        "budget": "10m",
        "trials": 900,
        "milliseconds": {"default": 2.0, "tuned": 1.6},
        "ratio": [0.79, 0.8, 0.81],
        "roofline": 0.934,
        **other,
    }


def counted(model: str, **counts: int) -> dict:
    return {"model": model, "cpu": "cortex-a72", "counts": dict.fromkeys(count.COUNTERS, 0) | counts}


# ---- tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_of_a_page_are_made_from_the_results(name):
    page = (ROOT / name).read_text()
    assert tables.with_tables(page) == page


def test_a_table_has_a_line_for_the_newest_row_of_each_model():
    rows = [row(milliseconds={"nncc": 9.0}, ratios={}), row(), row("large", milliseconds={"nncc": 4.0}, ratios={})]
    assert tables.times(rows) == (
        "A Processor, 1 thread, float32, milliseconds (median):\n"
        "\n"
        "| model | nncc | ort | ov | best peer / nncc |\n"
        "|---|---:|---:|---:|---:|\n"
        "| small | 2 | 3 | 2.5 | 1.25 |\n"
        "| large | 4 |  |  |  |\n"
        "| geometric mean |  |  |  | 1.25 |\n"
        "\n"
    )


def test_threads_and_instruction_sets_have_tables_of_their_own():
    limited = row(isa="avx2", target="x86-64-v3", unlimited=["ort"])
    text = tables.times([row(threads=2), limited, row()])
    titles = [line for line in text.splitlines() if line.endswith("(median):")]
    assert titles == [
        "A Processor, 1 thread, float32, milliseconds (median):",
        "A Processor, 2 threads, float32, milliseconds (median):",
        "A Processor, AVX2 code (x86-64-v3), 1 thread, float32, milliseconds (median):",
    ]
    last = text.partition(titles[2])[2]
    assert "| model | nncc | ort \\* | ov | best peer / nncc |\n" in last
    assert "\n\\* has no switch for its instruction set: it may use all that the processor has.\n" in last
    assert "\\*" not in text.partition(titles[2])[0]


def test_the_summary_has_a_column_for_each_way_to_run_and_peers_that_keep_to_its_instructions():
    limited = row(isa="avx2", target="x86-64-v3", unlimited=["ov"])
    alone = row(threads=2, isa="avx2", target="x86-64-v3", unlimited=["ov", "ort"])
    assert tables.speed([row("large", ratios={"ort": [3.0, 5.0, 6.0]}), row(), limited, alone]) == (
        "1. A Processor, 1 thread, float32\n"
        "2. A Processor, AVX2 code (x86-64-v3), 1 thread, float32\n"
        "\n"
        "| best peer / nncc | 1 | 2 |\n"
        "|---|---:|---:|\n"
        "| large | 5.00 |  |\n"
        "| small | 1.25 | 1.50 |\n"
        "| geometric mean | 2.50 | 1.50 |\n"
        "\n"
    )


def test_rows_of_before_there_were_limits_and_costs_still_count():
    old = {name: value for name, value in row().items() if name not in ("isa", "unlimited", "compile")}
    assert tables.times([old]) == tables.times([row()])
    assert tables.compile_cost([old]) == ""


def test_what_compiling_takes_is_told_for_one_thread():
    assert tables.compile_cost([row(), row("large", threads=2)]) == (
        "Compile time, memory, size. A Processor, 1 thread:\n"
        "\n"
        "| model | seconds | peak memory, MiB | library, MiB |\n"
        "|---|---:|---:|---:|\n"
        "| small | 2.3 | 309 | 1.50 |\n"
        "\n"
    )


def test_counts_stand_beside_those_of_mnn_where_there_are_some():
    mnn = models()["resnet18"]["mnn_arm64_millions"]
    rows = [
        counted("resnet18", instructions=2 * mnn["instructions"] * 10**6, fmla=mnn["instructions"] * 10**6),
        counted("tiny", instructions=1_000_000, fmla=640_000),
    ]
    head, _, first, second = tables.counts(rows).splitlines()[2:6]
    assert head == "| model | instructions | FMLA | share | MNN | MNN's FMLA | MNN / nncc |"
    twice, once = 2 * mnn["instructions"], mnn["instructions"]
    assert first == f"| resnet18 | {twice:.1f} | {once:.1f} | 50 % | {once} | {mnn['fmla']} | 0.50 |"
    assert second == "| tiny | 1.0 | 0.6 | 64 % |  |  |  |"


def test_misses_of_caches_are_told_where_they_were_counted():
    cached = counted("a", instructions=10**6, fmla=10**5, accesses=9, l1_misses=20_000, l2_misses=10_000)
    head, _, first, second = tables.counts([cached, counted("b", instructions=10**6)]).splitlines()[2:6]
    assert head == "| model | instructions | FMLA | share | L1 misses | L2 misses | MNN | MNN's FMLA | MNN / nncc |"
    assert first == "| a | 1.0 | 0.1 | 10 % | 0.02 | 0.01 |  |  |  |"
    assert second == "| b | 1.0 | 0.0 | 0 % |  |  |  |  |  |"


def test_what_tuning_found_is_told_with_its_confidence():
    rows = [
        tuned("small"),
        tuned("none", ratio=None, roofline=None),
        tuned("other", target="x86-64-v3", threads=2, trials=7),
    ]
    assert tables.tuning(rows) == (
        "A Processor, 1 thread, float32, milliseconds (median):\n"
        "\n"
        "| model | no records | tuned | gain (95 %) | budget | trials | of the roofline |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n"
        "| small | 2 | 1.6 | 25.0 % (23.5 to 26.6) | 10m | 900 | 93 % |\n"
        "| none | 2 | 1.6 | none | 10m | 900 |  |\n"
        "\n"
        "A Processor, x86-64-v3, 2 threads, float32, milliseconds (median):\n"
        "\n"
        "| model | no records | tuned | gain (95 %) | budget | trials | of the roofline |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n"
        "| other | 2 | 1.6 | 25.0 % (23.5 to 26.6) | 10m | 7 | 93 % |\n"
        "\n"
    )


def test_quantized_models_have_a_table_of_their_own_with_the_gain_over_float():
    times = {"milliseconds": {"nncc": 1.0, "nncc-float": 3.0, "ort": 1.5}}
    ratios = {"ratios": {"nncc-float": [2.9, 3.0, 3.1], "ort": [1.4, 1.5, 1.6]}}
    assert tables.times([row(), row(precision="int8", **times, **ratios)]).endswith(
        "A Processor, 1 thread, int8, milliseconds (median):\n"
        "\n"
        "| model | nncc | ort | best peer / nncc | nncc float32 / nncc |\n"
        "|---|---:|---:|---:|---:|\n"
        "| small | 1 | 1.5 | 1.50 | 3.00 |\n"
        "| geometric mean |  |  | 1.50 | 3.00 |\n"
        "\n"
    )
    assert bench.file_name(row(precision="int8")) == "A-Processor-1-int8.jsonl"
    assert tables.compile_cost([row(precision="int8")]) == ""


def test_the_table_of_accuracy_has_the_newest_row_of_each_set():
    old = {
        "model": "net", "set": "a", "metric": "top1", "samples": 7, "scores": {"float32": 0.5, "int8": 0.25},
        "int8_macs": 0.5, "bytes": [300, 100],
    }  # fmt: skip
    new = old | {"scores": {"float32": 0.5, "int8": 0.49, "compiled": 0.48}, "int8_macs": 1.0}
    assert tables.accuracy([old, new]).splitlines()[2:] == [
        "| net | 7 | top1 | 0.5000 | 0.4900 | 0.4800 | 100 % | 3.0 times smaller |"
    ]
    assert tables.accuracy([old]).splitlines()[2:] == [
        "| net | 7 | top1 | 0.5000 | 0.2500 |  | 50 % | 3.0 times smaller |"
    ]


def skipped(model: str, **other: object) -> dict:
    return {
        "model": model,
        "processor": "A Processor",
        "target": "native",
        "ways": {"dense": "winograd", "direct": "conv2d", "0.5": "winograd", "0.7": "sparse_conv2d"},
        "milliseconds": {"dense": 1.5, "direct": 2.4, "0.5": 1.5, "0.7": 0.8},
        "ratios": {"0.5": [0.99, 1.0, 1.01], "0.7": [1.85, 1.875, 1.9]},
        "whole_ratios": {"0.5": [0.99, 1.0, 1.01], "0.7": [1.7, 1.75, 1.8]},
        **other,
    }


def test_the_table_of_zeros_says_where_they_are_not_skipped():
    old = skipped("3x3", milliseconds={"dense": 9.0, "0.5": 9.0, "0.7": 9.0})
    lines = tables.sparse([old, skipped("3x3"), skipped("1x1", target="board")]).splitlines()
    assert lines[0].startswith("A Processor, 1 thread: dense kernel")
    assert lines[2:5] == [
        "| layer | dense | ms | 50 % zeros | 70 % zeros | 70 %, whole | 70 %, over direct |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| 3x3 | winograd | 1.5 | dense | 1.88 (1.85-1.90) | 1.75 | 3.00 |",
    ]
    assert lines[6].startswith("A Processor, board code, 1 thread")


def test_the_table_of_a_gpu_names_the_best_peer():
    row = {
        "model": "net",
        "gpu": "A GPU, driver 1.2",
        "target": "cuda",
        "milliseconds": {"nncc": 0.5, "torch": 1.0, "tensorrt": 0.75},
        "ratios": {"torch": [1.9, 2.0, 2.1], "tensorrt": [1.4, 1.5, 1.6]},
        "library_bytes": 3 << 20,
    }
    lines = tables.gpu([row | {"milliseconds": {"nncc": 9.0}, "ratios": {}}, row]).splitlines()
    assert lines[0].startswith("A GPU, driver 1.2, cuda, float32, milliseconds")
    assert lines[2:6] == [
        "| model | nncc | torch | tensorrt | best peer / nncc | library, MiB |",
        "|---|---:|---:|---:|---:|---:|",
        "| net | 0.500 | 1.000 | 0.750 | 1.50 | 3.0 |",
        "| geometric mean |  |  |  | 1.50 |  |",
    ]


def compared(model: str, **other: object) -> dict:
    none = {"differing": 0, "elements": 8000, "most": 0.0, "in_steps": True}
    return {
        "model": model,
        "form": "QDQ, uint8",
        "random": 5,
        "real": 10,
        "default": none,
        "plain": none | {"differing": 1234, "most": 1.0000001},
        "between": none | {"in_steps": False, "differing": 9, "most": 0.0021},
        "real_inputs": True,
        "shaken": none | {"differing": 5, "most": 2.0},
        "alone": {
            "tensors": 3,
            "elements": 9000,
            "differing": 2,
            "most": 1,
            "from_tie": 1e-6,
            "scales": 0,
            "outputs": 0,
        },
        "processor": "A Processor",
        "target": "native",
        **other,
    }


def test_the_table_of_agreement_tells_steps_and_how_many_elements_differ():
    rows = [compared("a"), compared("b", real=0, target="board"), compared("a", form="QDQ, int8", by="a tool")]
    assert tables.agreement(rows).splitlines()[:5] == [
        "A Processor, steps of the output's scale at most (elements that differ):",
        "",
        "| model | quantized as | runs | elements | nncc from ONNX Runtime | nncc from it without optimizations"
        " | it from itself without those | it from itself, inputs one step of float32 larger"
        " | nncc from it, each rounding alone |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| a | QDQ, int8, by a tool | 5 random, 10 real | 8,000 | 0 | 1 (1,234) | 2.1e-03 of the largest"
        " | 2 (5) | 1 (2 of 9,000) |",
    ]
    assert tables.agreement([compared("c", real_inputs=False)]).endswith(
        "2.1e-03 of the largest |  | 1 (2 of 9,000) |\n\n"
    )
    assert "| QDQ, uint8; ONNX Runtime takes int8 as it is |" in tables.agreement([compared("d", int8=True)])
    assert "A Processor, board code, steps" in tables.agreement(rows)
    assert "| b | QDQ, uint8 | 5 random | 8,000 |" in tables.agreement(rows)


def test_differences_are_counted_in_steps_and_nan_is_infinitely_far():
    scales = {"y": 0.5, "z": None}
    one = {"y": np.float32([0, 1, 2, 3]), "z": np.float32([4, 2]), "other": np.float32([1])}
    two = {"y": np.float32([0, 1.5, 2, 2]), "z": np.float32([4, 2]), "other": np.float32([2])}
    assert agreement.difference({"y": one["y"]}, two, scales) == agreement.Difference(2, 4, 2.0)
    both = agreement.difference(one, two, scales)
    assert both == agreement.Difference(2, 6, 2.0, in_steps=False)
    assert agreement.difference({"y": one["y"]}, {"y": np.float32([0, np.nan, 2, 3])}, scales).most == np.inf


def quantized_by(form: str) -> onnx.ModelProto:
    """A product with two scales for its weights, or in integers' operator or dynamically with one."""
    net = QuantizedNet()
    x, weight = net.input(3, 4), net.integers(4, 2, dtype=np.int8)
    if form == "dynamic":
        q, scale, zero = net.op("DynamicQuantizeLinear", x, outputs=3)
        sums = net.op("MatMulInteger", q, weight, zero)
        net.result(net.op("Mul", net.op("Cast", sums, to=1), scale), np.float32)
        return net.model()
    kind = np.int8 if form == "operators" else np.uint8
    grid, result = net.parameters(0.02, 3, kind), net.parameters(0.3, 5, kind)
    q = net.op("QuantizeLinear", x, *grid)
    if form == "operators":
        y = net.op("QLinearMatMul", q, *grid, weight, *net.parameters(0.01, 0, np.int8), *result)
    else:
        steps, zeros = net.constant(np.float32([0.01, 0.02])), net.constant(np.zeros(2, np.int8))
        real = net.op("DequantizeLinear", weight, steps, zeros, axis=1)
        y = net.op("QuantizeLinear", net.op("MatMul", net.op("DequantizeLinear", q, *grid), real), *result)
    net.result(net.op("DequantizeLinear", y, *result), np.float32)
    return net.model()


def test_how_a_model_is_quantized_is_seen_in_its_graph():
    assert agreement.form(quantized_by("QDQ")) == "QDQ, uint8, a scale for each channel of weights"
    operators = "operators on integers, int8, a scale for each tensor of weights"
    assert agreement.form(quantized_by("operators")) == operators
    assert agreement.form(quantized_by("dynamic")) == "ranges at run time, uint8"


def test_a_compiled_model_is_compared_on_random_and_on_real_inputs(tmp_path):
    model = quantized_by("QDQ")
    onnx.save(model, tmp_path / "small.onnx")
    (name,) = (value.name for value in model.graph.input)
    np.savez(tmp_path / "x.npz", **{name: np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)})
    row, lines = agreement.measure(tmp_path / "small.onnx", tmp_path, "native", 3, [tmp_path / "x.npz"], {})
    assert (row["model"], row["random"], row["real"], row["default"]["elements"]) == ("small", 3, 2, 5 * 6)
    assert row["default"] == row["plain"] == row["between"] == row["shaken"]
    assert row["default"]["in_steps"] and row["default"]["differing"] == 0
    assert json.loads(json.dumps(row)) == row
    assert "| small | QDQ, uint8" in tables.agreement([row])
    assert (row["alone"]["tensors"], row["alone"]["elements"], row["alone"]["differing"]) == (2, 5 * (12 + 6), 0)
    assert lines == []


def ways_to_run(*, wrong: str = "", by: int = 0) -> list:
    """Of models: by ONNX Runtime, three times; the last adds `by` to the first element of an output."""

    def runtime(model: onnx.ModelProto) -> stretches.Run:
        return partial(agreement.outputs_of, agreement.session(model.SerializeToString(), optimize=False))

    def shifted(model: onnx.ModelProto) -> stretches.Run:
        def run(feed: stretches.Arrays) -> stretches.Arrays:
            found = {name: array.copy() for name, array in runtime(model)(feed).items()}
            if wrong:
                found[wrong].reshape(-1)[0] += by
            return found

        return run

    return [runtime, runtime, shifted]


@pytest.mark.parametrize("form", ["QDQ", "operators", "dynamic"])
def test_of_stretches_between_roundings_the_one_that_differs_is_found(form):
    model = quantized_by(form)
    (entry,) = (value.name for value in model.graph.input)
    feeds = [{entry: np.random.default_rng(seed).uniform(-1, 1, (3, 4)).astype(np.float32)} for seed in range(2)]
    nodes = stretches.rounded(model)
    total, lines = stretches.compare(model, feeds, *ways_to_run())
    sizes = {"QDQ": 12 + 6, "operators": 12 + 6, "dynamic": 12}
    assert (total, lines) == (stretches.Stretches(tensors=len(nodes), elements=2 * sizes[form]), [])
    for node in nodes:
        name = node.output[0]
        total, lines = stretches.compare(model, feeds, *ways_to_run(wrong=name, by=3))
        assert (total.differing, total.most) == (2, 3)
        assert lines == [f"{name}: 2 of {2 * (12 if node is nodes[0] else 6)}, at most 3"]


def test_how_far_numbers_are_from_a_tie_is_told_of_those_that_are_one_step_away():
    net = QuantizedNet()
    x = net.input(4)
    q = net.op("QuantizeLinear", x, *net.parameters(0.5, 3, np.uint8))
    net.result(q, np.uint8)
    feeds = [{x: np.float32([0.5 * 7.4, 0.5 * 2.5, 1, 0])}]
    total, _ = stretches.compare(net.model(), feeds, *ways_to_run(wrong=q, by=1))
    assert (total.differing, total.most, round(total.from_tie, 6)) == (1, 1, 0.1)


def test_layers_have_as_many_blocks_in_each_row_and_are_measured(tmp_path):
    layer = sparse.Layer(1, 32, 5, quantized=True)
    found = density(layer.weights(0.5), sparse.OUTPUTS)
    assert found == 0.5
    row = sparse.measured(layer, "native", 1)
    assert row["ways"] == {"dense": "conv2d", **{str(s): "sparse_conv2d" for s in sparse.SPARSITIES}}
    assert tables.sparse([row]).count("1x1, 32 channels, 5x5 pixels, int8") == 1


def test_direct_convolutions_are_compiled_without_winograds(tmp_path):
    layer = sparse.Layer(3, 64, 16)
    only = [ROOT / "benchmarks" / "direct_only.py"]
    assert sparse.compiled(layer, 0.0, "native", tmp_path / "winograd")[1] == "winograd"
    assert sparse.compiled(layer, 0.0, "native", tmp_path / "direct", only)[1] == "conv2d"


def test_the_tolerance_of_a_quantized_model_is_of_its_mean_square():
    expected = [np.array([1.0, -1.0, 1.0, -1.0])]
    check([expected[0] + np.array([1.0, 0, 0, 0]) * 0.5], expected, "int8")
    with pytest.raises(ValueError, match="is not among its outputs"):
        check([expected[0] * 0.5], expected, "int8")
    with pytest.raises(ValueError, match="is not among its outputs"):
        check([expected[0] + 0.1], expected)


def test_without_results_the_tables_are_empty(tmp_path):
    assert tables.with_tables(PLACES, tmp_path) == PLACES.replace("old\n", "")
    assert tables.with_tables(PLACES, tmp_path / "none") == PLACES.replace("old\n", "")


def test_each_table_comes_from_its_files(tmp_path):
    (tmp_path / "A-Processor-1.jsonl").write_text(json.dumps(row()) + "\n")
    (tmp_path / tables.COUNTS).write_text(json.dumps(counted("tiny", instructions=10**6)) + "\n")
    (tmp_path / tables.TUNING).write_text(json.dumps(tuned("small")) + "\n")
    text = tables.with_tables(PLACES, tmp_path)
    assert [name in text for name in ("milliseconds", "Compile time", "budget", "cortex-a72")] == [True] * 4
    assert tables.with_tables(text, tmp_path) == text


def test_a_line_that_is_no_row_is_named(tmp_path):
    for line in ("{", "[]", "{}"):
        (tmp_path / "x.jsonl").write_text(f"{json.dumps(row())}\n{line}\n")
        with pytest.raises(ValueError) as caught:
            tables.rows(tmp_path / "x.jsonl")
        assert str(caught.value) == "x.jsonl, line 2 is not a row of results: delete it"


def test_a_readme_with_a_place_for_no_table_is_refused(tmp_path):
    assert tables.with_tables("# nncc\n", tmp_path) == "# nncc\n"
    for name, end in (("time", tables.END), ("times", "")):
        start = f"<!-- table: {name} -->"
        with pytest.raises(ValueError) as caught:
            tables.with_tables(f"{start}\nold\n{end}", tmp_path)
        rest = f"and no `<!-- end of table -->` behind it, or not one of the tables {KNOWN}"
        assert str(caught.value) == f"there is `{start}`, {rest}"


# ---- words ------------------------------------------------------------------------------------------------------


def said_of(parser, words: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].partition("error: ")[2]


def test_a_peer_may_have_a_python_of_its_own(tmp_path, capsys):
    words = bench.parser().parse_args(["--python", f"iree={sys.executable}", "--python", f"ncnn={sys.executable}"])
    assert dict(words.python) == {"iree": sys.executable, "ncnn": sys.executable}
    for wrong in ("iree", "tvm=/bin/sh", "nncc=/bin/sh"):
        said = said_of(bench.parser(), ["--python", wrong], capsys)
        assert said == f"argument --python: `{wrong}` is not PEER=PATH with one of {', '.join(bench.PEERS)}"
    said = said_of(bench.parser(), ["--python", f"iree={tmp_path / 'none'}"], capsys)
    hint = "create the virtual environment that peers.py describes"
    assert said == f"argument --python: there is no {tmp_path / 'none'}: {hint}"


def test_a_plugin_may_have_options(tmp_path, capsys):
    (tmp_path / "p.so").touch()
    words = count.parser().parse_args(["--plugin", f"{tmp_path / 'p.so'},cache=on"])
    assert words.plugin == f"{(tmp_path / 'p.so').resolve()},cache=on"
    said = said_of(count.parser(), ["--plugin", str(tmp_path / "none.so")], capsys)
    assert said == f"argument --plugin: there is no {tmp_path / 'none.so'}: compile a counting plugin for qemu first"


def test_models_are_chosen_by_name(tmp_path):
    (tmp_path / "resnet18.onnx").touch()
    files, missing = chosen(["resnet18", "resnet50"], tmp_path)
    assert files == {"resnet18": tmp_path / "resnet18.onnx"}
    assert missing == [f"resnet50: {tmp_path / 'resnet50.onnx'} is not there: left out"]
    with pytest.raises(ValueError) as caught:
        chosen(["resnet19"], tmp_path)
    assert str(caught.value) == f"there is no model `resnet19` in benchmarks/models.toml; it has {', '.join(models())}"


def test_the_file_of_a_row_is_named_after_what_it_ran_on():
    assert bench.file_name(row()) == "A-Processor-1.jsonl"
    assert bench.file_name(row(isa="avx2", threads=2, processor="X(R) AVX-512")) == "X-R-AVX-512-2-avx2.jsonl"


def test_every_limit_has_a_target():
    assert {isa for each in CONTESTANTS.values() for isa in each.limits} == set(bench.ISAS)


# ---- contestants ------------------------------------------------------------------------------------------------


def test_a_contestant_needs_numpy_and_nothing_of_nncc():
    program = "import sys, peers; print(*{'nncc', 'onnx', 'tvm', 'onnxruntime'} & set(sys.modules))"
    path = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks")}
    done = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True)
    alone = subprocess.run([sys.executable, "peers.py"], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
    assert "main() missing 7 required positional arguments" in alone.stderr


WORDS = ("1", "", "float32")
"""Threads, instruction set and precision, as peers.py takes them."""


@pytest.fixture
def work(tiny, tmp_path) -> Path:
    """A folder as bench.py makes it for a model."""
    from nncc.frontend.onnx import import_onnx
    from nncc.frontend.proto import save

    save(import_onnx(tiny, shape={"image": (2, 3, 8, 8)}), tmp_path / "fixed.onnx")
    inputs = {"image": np.ones((2, 3, 8, 8), np.float32), "offset": np.ones(5, np.float32)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    np.savez(tmp_path / "expected.npz", **reference(tmp_path / "fixed.onnx", inputs))
    return tmp_path


def test_a_contestant_runs_when_it_is_its_turn(work, library):
    for who, file in (("onnxruntime", work / "fixed.onnx"), ("nncc", library)):
        with bench.Running(who, sys.executable, bench.PROGRAM, file, work, WORDS, {}) as running:
            times = running.turn(3)
        assert len(times) == 3 and all(seconds > 0 for seconds in times)


def test_a_contestant_that_cannot_load_a_model_says_why_in_one_line(work):
    (work / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(bench.Failed) as caught:
        bench.Running("onnxruntime", sys.executable, bench.PROGRAM, work / "broken.onnx", work, WORDS, {})
    assert "broken.onnx failed" in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith(" (exit status 1)")


def test_a_contestant_that_computes_something_else_is_refused(work):
    np.savez(work / "expected.npz", y=np.full((2, 5), 1e9, np.float32))
    with pytest.raises(bench.Failed) as caught:
        bench.Running("onnxruntime", sys.executable, bench.PROGRAM, work / "fixed.onnx", work, WORDS, {})
    assert str(caught.value).startswith("ValueError: output 0, with values up to 1e+09, is not among its outputs: ")


def test_outputs_are_compared_whatever_their_order_and_axes():
    first, second = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.ones(4, np.float32)
    check([second.reshape(1, 4), first[0] + 1e-4], [first, second])
    with pytest.raises(ValueError) as caught:
        check([second + 0.5], [second])
    words = "output 0, with values up to 1, is not among its outputs: "
    assert str(caught.value) == words + "the nearest is 0.5 away"
    with pytest.raises(ValueError) as caught:
        check([first], [second])
    assert str(caught.value) == words + "none has its size"
    with pytest.raises(ValueError):
        check([second * np.nan], [second])


def test_who_fails_on_the_way_is_taken_out(capsys):
    class Steady:
        def turn(self, number: int) -> list[float]:
            return [0.1] * number

    class Fragile(Steady):
        turns = 0

        def turn(self, number: int) -> list[float]:
            self.turns += 1
            if self.turns == 3:
                raise bench.Failed("it fell over (exit status 1)")
            return super().turn(number)

    running = {"nncc": Steady(), "ov": Fragile()}
    rounds = bench.take_turns(running, 3, "small")
    assert list(running) == ["nncc"]
    assert [set(times) for times in rounds] == [{"nncc", "ov"}, {"nncc"}, {"nncc"}]
    assert capsys.readouterr().err == "small: ov is left out: it fell over (exit status 1)\n"


# ---- what compiling takes, and what running does ----------------------------------------------------------------


def test_what_compiling_takes_is_that_of_the_compiler(tiny, tmp_path):
    library, cost = compile_model(tiny, "native", tmp_path / "out", {"image": (2, 3, 8, 8)}, threads=1)
    assert cost["library_bytes"] == library.stat().st_size
    assert cost["seconds"] > 0.1
    assert 50 < cost["peak_mib"] < 5000  # Python with TVM is some 200


def test_the_memory_of_who_measures_is_not_counted():
    command = [sys.executable, str(ROOT / "benchmarks" / "compile_cost.py"), sys.executable, "-c", "print('x')"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took = json.loads(done.stdout)
    assert took["said"] == "x\n"
    assert took["peak_mib"] < 60  # a bare Python is some 10; this process has TVM loaded


def test_a_model_that_nncc_refuses_is_told_in_its_words(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(NotCompiled) as caught:
        compile_model(tmp_path / "x.onnx", "native", tmp_path / "out", {}, threads=1)
    with pytest.raises(nncc.NnccError) as words:
        nncc.compile(tmp_path / "x.onnx", output=tmp_path / "out")
    assert words.value.message in str(caught.value)


LINE = "instructions 222281880 fmla 112019424 dot 0 load_store 61612512 accesses 0 l1_misses 0 l2_misses 0"


def test_the_counters_are_those_of_the_plugins_last_line():
    found = count.counters(f"min_ms 3.1\n{LINE.replace('222', '1')}\n{LINE}\npeak_rss_kib 4\n")
    assert found["instructions"] == 222281880
    assert found["load_store"] == 61612512
    assert set(found) == set(count.COUNTERS)


def test_a_plugin_that_counts_something_else_is_told():
    hint = "count.py says what it should print"
    with pytest.raises(count.NotCounted) as caught:
        count.counters("nothing\n")
    assert str(caught.value) == f"the plugin printed no line `instructions N fmla N ...`; {hint}"
    with pytest.raises(count.NotCounted) as caught:
        count.counters("instructions 3 fmla 4 dot 0 load_store 5\n")
    assert str(caught.value) == f"the plugin's line has no accesses, l1_misses, l2_misses; {hint}"


def test_a_run_that_fails_is_told():
    assert count.run([sys.executable, "-c", f"import sys; print({LINE!r}, file=sys.stderr)"])["dot"] == 0
    with pytest.raises(count.NotCounted) as caught:
        count.run([sys.executable, "-c", "import sys; sys.exit('no such processor')"])
    assert str(caught.value) == f"{sys.executable} ended with exit status 1: no such processor"


# ---- accuracy ---------------------------------------------------------------------------------------------------


def test_accuracy_is_that_of_the_files_and_of_the_library():
    random = np.random.default_rng(0)
    path = ROOT / "tests" / "models" / "fmnist_dsnet.onnx"
    samples = [{"input": random.standard_normal((1, 1, 28, 28)).astype(np.float32)} for _ in range(12)]
    asked = []

    def score(name, predict):
        asked.append([int(predict(sample)[0].argmax()) for sample in samples[8:]])
        return {"top1": float(np.mean(np.equal(asked[-1], asked[0]))), "n": 4}

    sets = SimpleNamespace(SETS={"s": SimpleNamespace(model=str(path))}, calibration=lambda _: samples[:8], score=score)
    row = accuracy.measure("s", sets)
    assert len(asked) == 3
    assert row["scores"]["float32"] == 1.0 and set(row["scores"]) == {"float32", "int8", "compiled"}
    assert (row["set"], row["samples"], row["calibration"], row["int8_macs"]) == ("s", 4, 8, 1.0)
    assert row["bytes"][0] > 0


def test_images_are_made_up_where_a_set_has_none():
    one, again = accuracy.images("x", size=160), accuracy.images("x", size=160)
    assert len(one) == accuracy.IMAGES and one[0]["x"].shape == (1, 3, 160, 160)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(one, again, strict=True))
    assert max(float(abs(sample["x"]).max()) for sample in one) <= 1
