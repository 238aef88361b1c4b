"""Generated libraries touch no memory but their own: each access of kernels and C is checked by AddressSanitizer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

import sanitizing
from compiled import Net, compile_net
from conformance_cases import chunks
from conformance_runs import Verdict, expectations, run_cases
from sanitizing import missing, open_sanitized, sanitized

from nncc.errors import RunError
from nncc.frontend.samples import fill
from nncc.verify import compare

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

MODEL = Path(__file__).parents[1] / "models" / "fmnist_dsnet.onnx"
CHUNKS = 10
"""Tests that all node cases are shared among."""
_SAMPLE = (
    "test_basic_deform_conv_with_padding",  # once read beside its image
    "test_gridsample_zeros_padding",  # so did this
    "test_lstm_with_peepholes",
    "test_nonmaxsuppression_limit_output_size",
    "test_qlinearmatmul_2D_uint8_float32",
    "test_top_k",
    "test_unique_sorted_with_axis",
)


def _judge(found: list[Verdict]) -> None:
    expected = expectations()
    worse = [
        f"{each.name}: {each.verdict}: {each.text}"
        for each in found
        if each.verdict not in ("passed", expected[each.name].verdict if each.name in expected else "passed")
    ]
    assert not worse, "\n".join(worse)


def test_a_network_in_several_threads_stays_in_its_memory(tmp_path: Path) -> None:
    with sanitized():
        compiled = compile_net(MODEL, tmp_path, threads=2, shape={"input": (1, 1, 28, 28)})
    library = compiled.library
    assert b"__asan_report" in library.read_bytes()
    assert b"__ubsan_handle" in library.read_bytes()
    given = compiled.sample()
    found = compare(compiled.expected(given), open_sanitized(library, threads=2).run(given))
    assert all(each.ok for each in found)


@pytest.mark.parametrize("what", ["buffers", "constants", "outputs"])
def test_an_access_beyond_the_end_is_found(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a library whose memory is made smaller than its kernels were told."""
    net = Net()
    net.output(net.op("MatMul", net.op("MatMul", net.input(3, 16), net.weight(16, 32)), net.weight(32, 48)))
    told = 4 * 3 * 48  # bytes of the output
    original = sanitizing._poisoned

    def smaller(source: str, program: Any, layout: Any) -> str:
        if what == "outputs":
            before, row, after = source.partition(f"outputs_shape_0, {told}, ")
            assert row
            return original(f"{before}outputs_shape_0, {told - 4}, {after}", program, layout)
        spans = [(start, stop - 4) for start, stop in getattr(layout, what)]
        return original(source, program, replace(layout, **{what: spans}))

    monkeypatch.setattr(sanitizing, "_poisoned", smaller)
    with sanitized():
        library = compile_net(net, tmp_path, threads=1, shipped_records=False).library
    opened = open_sanitized(library)
    given = fill(opened.inputs, "random", 0)
    with pytest.raises(RunError, match=r"AddressSanitizer: (heap-buffer-overflow|use-after-poison)"):
        opened.run(given)


def test_a_sample_of_conformance_cases_has_no_finding() -> None:
    _judge(list(run_cases(_SAMPLE, "sanitized")))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(CHUNKS))
def test_no_conformance_case_has_a_finding(part: int) -> None:
    _judge(list(run_cases(chunks(CHUNKS, ("node",))[part], "sanitized")))
