"""Loops on GPUs of what has no template: elementwise operators, reductions, pools, moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import ROUNDING, Net, compile_net
from emulated import Emulated, emulate, needs_compiler

from nncc.config import Config
from nncc.errors import ModelError
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.pipeline import plan, run
from nncc.tuning.tasks import kernel_functions, kernel_hash

CASES: dict[str, Callable[[Net], str]] = {
    "one element": lambda net: net.op("Exp", net.input(1)),
    "an odd number of elements": lambda net: net.op("Tanh", net.input(3, 7, 11)),
    "whole vectors": lambda net: net.op("Relu", net.op("Add", net.input(2, 64, 32), net.input(32))),
    "sum of rows": lambda net: net.op("ReduceSum", net.input(6, 200), net.ints(1), keepdims=0),
    "sum of columns": lambda net: net.op("ReduceSum", net.input(200, 6), net.ints(0), keepdims=0),
    "sum of all": lambda net: net.op("ReduceSum", net.input(9, 31), keepdims=0),
    "mean of images": lambda net: net.op("GlobalAveragePool", net.input(2, 5, 7, 7)),
    "mean of large images": lambda net: net.op("GlobalAveragePool", net.input(1, 3, 40, 40)),
    "maximum of rows": lambda net: net.op("ReduceMax", net.input(3, 1000), axes=[1], keepdims=0),
    "maximum pool": lambda net: net.op(
        "MaxPool", net.input(1, 3, 15, 15), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "average pool": lambda net: net.op(
        "AveragePool", net.input(1, 3, 8, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0
    ),
    "transposition": lambda net: net.op("Transpose", net.input(5, 6, 7), perm=[2, 0, 1]),
    "concatenation": lambda net: net.op("Concat", net.input(2, 3, 5), net.input(2, 4, 5), axis=1),
    "slice": lambda net: net.op("Slice", net.input(4, 9), net.ints(1), net.ints(8), net.ints(1), net.ints(2)),
    "softmax over the first axis": lambda net: net.op("Softmax", net.input(40, 3), axis=0),
    "resize": lambda net: net.op("Resize", net.input(1, 2, 5, 5), "", "", net.ints(1, 2, 10, 10), mode="nearest"),
    "index of the maximum": lambda net: net.op("Cast", net.op("ArgMax", net.input(3, 40), axis=1), to=1),
    "transposed convolution": lambda net: net.op(
        "ConvTranspose", net.input(1, 3, 5, 5), net.weight(3, 2, 2, 2), strides=[2, 2]
    ),
}


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net = Net()
    names = {case: make(net) for case, make in CASES.items()}
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("loops"))


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_without_a_template_agrees(case: str, loops: tuple[dict[str, str], Emulated]) -> None:
    names, emulated = loops
    assert emulated.error(names[case]) <= ROUNDING


@needs_compiler
def test_nothing_is_left_to_one_thread(loops: tuple[dict[str, str], Emulated]) -> None:
    """Nor to TVM's fallback."""
    _, emulated = loops
    assert "dlight" not in emulated.kernels.schedules.values()
    for launches in emulated.program.launches.values():
        assert all(launch.block[0] >= 32 for launch in launches)


@needs_compiler
def test_a_row_shared_by_threads_ends_where_it_ends(tmp_path: Any) -> None:
    """1,000 steps are no multiple of any number of threads: what lies behind the last one is not added."""
    net = Net()
    net.output(net.op("ReduceSum", net.input(3, 1000, name="x"), net.ints(1)))
    ones = np.ones((3, 1000), np.float32)
    assert emulate(net, tmp_path, x=ones).found[net.outputs[0]].tolist() == [[1000.0]] * 3


def test_sorting_is_refused(tmp_path: Any) -> None:
    net = Net()
    values, _ = net.op("TopK", net.input(4, 20), net.ints(3), outputs=2)
    net.output(values)
    with pytest.raises(ModelError) as error:
        compile_net(net, tmp_path, "cuda-sm80", until="schedule")
    assert str(error.value) == "the model uses `topk`, which cannot be compiled yet"


def test_loops_of_one_thread_are_refused(tmp_path: Any) -> None:
    net = Net()
    places = net.constant(np.array([[1], [3]], np.int64))
    net.output(net.op("ScatterND", net.input(6, 4), places, net.input(2, 4)))
    with pytest.raises(ModelError) as error:
        compile_net(net, tmp_path, "cuda-sm80", until="schedule")
    assert str(error.value) == "the kernel `scatter_nd` is code for processors, which GPUs cannot run"
    assert error.value.hint == (
        "compile the model for a processor, or remove the operator: "
        "`nncc show MODEL.onnx --stage simplify` shows the graph"
    )


PROCESSORS = "is code for processors, which GPUs cannot run"


@pytest.mark.parametrize(
    ("operator", "words"),
    {
        "LSTM": "the model has recurrent layers, which cannot be compiled for `cuda-sm80` yet",
        "NonZero": f"the kernel `select` (NonZero, Unique, Compress or NonMaxSuppression) {PROCESSORS}",
        "CumSum": f"the kernel `scan` (CumSum, CumProd or Multinomial) {PROCESSORS}",
        "Det": f"the kernel `det` (Det) {PROCESSORS}",
    }.items(),
)
def test_what_only_processors_run_is_refused_by_its_name(operator: str, words: str, tmp_path: Any) -> None:
    net = Net()
    x = net.input(4, 3, 3)
    more = {
        "LSTM": (net.weight(1, 8, 3), net.weight(1, 8, 2)),
        "CumSum": (net.constant(np.int64(1)),),
    }.get(operator, ())
    made = net.op(operator, x, *more, **({"hidden_size": 2} if operator == "LSTM" else {}))
    net.output(made)
    with pytest.raises(ModelError) as error:
        compile_net(net, tmp_path, "cuda-sm80", until="schedule")
    assert str(error.value) == words


def test_our_own_code_is_refused() -> None:
    from nncc.compat import tirx
    from nncc.gpu.templates import refuse_own_code

    function = tirx.PrimFunc([], tirx.Evaluate(0)).with_attr("global_symbol", "sort")
    with pytest.raises(ModelError) as error:
        refuse_own_code(function)
    assert str(error.value) == "the kernel `sort` is code for processors, which GPUs cannot run"
    assert error.value.hint == (
        "compile the model for a processor, or remove the operator: "
        "`nncc show MODEL.onnx --stage simplify` shows the graph"
    )


@needs_compiler
def test_a_reduction_and_what_follows_are_one_launch(tmp_path: Any) -> None:
    net = Net()
    mean = net.op("GlobalAveragePool", net.input(1, 24, 9, 9))
    net.output(net.op("Relu", mean))
    emulated = emulate(net, tmp_path)
    assert [len(launches) for launches in emulated.program.launches.values()] == [1]
    assert emulated.error(net.outputs[0]) <= ROUNDING


@needs_compiler
def test_whole_pieces_are_written_where_they_belong(tmp_path: Any) -> None:
    net = Net()
    x = net.input(1, 3, 6, 6)
    pieces = [net.op("Relu", net.conv(x, 3, channels, (3, 3), pads=[1, 1, 1, 1])) for channels in (4, 8)]
    net.output(net.op("Relu", net.conv(net.op("Concat", *pieces, axis=1), 12, 5, (1, 1))))
    emulated = emulate(net, tmp_path)
    assert len(emulated.program.calls) == 3
    assert emulated.error(net.outputs[0]) <= ROUNDING


def test_scheduling_leaves_the_function_as_it_was(tmp_path: Path) -> None:
    """Tuning schedules one function many times."""
    net = Net()
    net.output(net.op("Softmax", net.op("Concat", net.input(2, 3), net.input(2, 5), axis=1), axis=1))
    kernels = run(plan(net.save(tmp_path / "net.onnx"), Config(target="cuda-sm80", until="lower", verify=False)))
    templates, hardware = load_templates(), kernels.target.hardware
    with kernels.target.tvm_target():
        for function in kernel_functions(kernels).values():
            before = kernel_hash(function)
            words = [schedule_kernel(function, templates, hardware)[1] for _ in range(3)]
            assert len(set(words)) == 1 and kernel_hash(function) == before
