"""Attention in one kernel: queries, keys and widths that no tile divides, masks and scales of every form."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net, lowered
from test_schedules import TARGETS

from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.target import resolve
from nncc.tuning.candidates import Kernel
from nncc.tuning.lab import Lab
from nncc.tuning.runners import open_runner
from nncc.tuning.tasks import kernel_tasks

# Leading axes, queries, depth, keys, width of values.
SIZES = [
    ((1,), 1, 8, 1, 16), ((2, 3), 197, 64, 197, 64), ((3,), 5, 7, 17, 32), ((1, 2), 128, 32, 128, 32),
    ((2,), 13, 16, 40, 16), ((1,), 3, 4, 5, 48),
]  # fmt: skip


def attention(net, q, k, v, scale=None, mask=None, scaled="Mul"):
    scores = net.op("MatMul", q, k)
    if scale is not None:
        scores = net.op(scaled, scores, net.constant(np.float32(scale)))
    if mask is not None:
        scores = net.op("Add", *((scores, mask) if scaled == "Mul" else (mask, scores)))
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), v)


def fused(compiled):
    return [origin for origin in compiled.kernels.schedules.values() if origin.startswith("attention")]


@pytest.mark.parametrize("target", TARGETS)
def test_attention_of_awkward_sizes(tmp_path, target):
    net = Net()
    for number, (batch, queries, depth, keys, width) in enumerate(SIZES):
        q, k = net.input(*batch, queries, depth), net.input(*batch, depth, keys)
        v = net.input(*batch, keys, width)
        options = [{}, {"scale": depth**-0.5}, {"scale": depth**0.5, "scaled": "Div"}][number % 3]
        masks = [None, net.input(keys), net.input(1, 1, keys), net.input(queries, keys)]
        net.output(attention(net, q, k, v, mask=masks[number % 4], **options))
    compiled = agrees(net, tmp_path, target)
    assert len(fused(compiled)) == len(SIZES)
    assert not [origin for origin in fused(compiled) if "(plain" in origin]


def test_masks_and_constants(tmp_path):
    """-inf and -1e9 leave keys out; a query without any key is NaN, as in ONNX Runtime."""
    net = Net()

    def masked(*options):
        return attention(net, net.input(2, 3, 6, 8), net.input(2, 3, 8, 19), net.input(2, 3, 19, 16), *options)

    mask = np.zeros((2, 1, 6, 19), np.float32)
    mask[0, :, :, 11:] = -np.inf
    mask[1, :, :4, ::2] = -1e9
    causal = np.where(np.tri(6, 19, dtype=bool), np.float32(0), np.float32(-np.inf))
    net.output(
        masked(0.5, net.constant(mask)),
        masked(3.0, net.constant(causal)),
        masked(None, net.input(2, 1, 1, 19, name="lengths")),
    )
    lengths = np.zeros((2, 1, 1, 19), np.float32)
    lengths[1] = -np.inf
    assert len(fused(agrees(net, tmp_path, inputs={"lengths": lengths}))) == 3


def test_low_scores_are_not_lost_among_the_zeros_of_the_padding(tmp_path):
    net = Net()
    q, k = net.op("Abs", net.input(1, 5, 8)), net.op("Neg", net.op("Abs", net.input(1, 8, 17)))
    net.output(attention(net, q, k, net.input(1, 17, 16), 1e3))
    assert fused(agrees(net, tmp_path, tolerance=1e-3))


@pytest.mark.parametrize("why", ["scores are an output", "odd width", "another axis", "a scale by keys", "two axes"])
def test_what_is_not_fused_is_right(tmp_path, why):
    net = Net()
    q, k, v = net.input(2, 5, 8), net.input(2, 8, 7), net.input(2, 7, 13 if why == "odd width" else 16)
    scores = net.op("MatMul", q, k)
    if why == "a scale by keys":
        scores = net.op("Mul", scores, net.input(7))
    if why == "two axes":
        q, v = net.input(5, 8), net.input(7, 16)
        scores = net.op("MatMul", q, net.input(8, 7))
    weights = net.op("Softmax", scores, axis=1 if why == "another axis" else -1)
    net.output(net.op("MatMul", weights, v), *([scores] if why == "scores are an output" else []))
    assert not fused(agrees(net, tmp_path))


def operands(net, form, tokens=19, heads=3, width=16):
    """q, k and v of all heads from one product, moved about as exporters do; k is transposed."""
    x = net.op("MatMul", net.input(2, tokens, 24), net.weight(24, 3 * heads * width))
    if form == "one transpose for all":
        split = net.op("Reshape", x, net.ints(2, tokens, 3, heads, width))
        moved = net.op("Transpose", split, perm=[2, 0, 3, 1, 4])
        slices = (net.op("Slice", moved, net.ints(i), net.ints(i + 1), net.ints(0)) for i in range(3))
        q, k, v = (net.op("Squeeze", y, net.ints(0)) for y in slices)
        scaled = net.op("Mul", q, net.constant(np.float32(0.5)))
        return scaled, net.op("Mul", net.op("Transpose", k, perm=[0, 1, 3, 2]), net.constant(np.float32(0.5))), v
    columns = [(i * heads * width, (i + 1) * heads * width) for i in range(3)]
    parts = [net.op("Slice", x, net.ints(low), net.ints(high), net.ints(2)) for low, high in columns]
    if form == "a reshape of what was moved":  # which no strides say
        parts = [net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1]), net.ints(2, tokens, -1)) for y in parts]
    split = [net.op("Reshape", y, net.ints(2, tokens, heads, width)) for y in parts]
    orders = [0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]
    if form == "backwards":
        low, high, step = net.ints(-1), net.ints(-100), net.ints(-1)
        split[1] = net.op("Slice", split[1], low, high, net.ints(1), step)
    return tuple(net.op("Transpose", y, perm=order) for y, order in zip(split, orders, strict=True))


@pytest.mark.parametrize(
    "form", ["one transpose for all", "a slice for each", "a reshape of what was moved", "backwards"]
)
def test_heads_are_read_where_they_are(tmp_path, form):
    net = Net()
    q, k, v = operands(net, form)
    mixed = net.op("Transpose", attention(net, q, k, v, 0.25), perm=[0, 2, 1, 3])
    net.output(net.op("Reshape", mixed, net.ints(2, 19, -1)))
    compiled = agrees(net, tmp_path)
    assert len(fused(compiled)) == 1
    if form in ("one transpose for all", "a slice for each"):
        assert len(compiled.program.calls) == 3  # the product, attention, and the heads side by side again


def test_keys_that_lie_in_rows_are_transposed_in_registers(tmp_path):
    net = Net()
    net.output(attention(net, *operands(net, "a slice for each", tokens=35, width=16)))
    compiled = compile_net(net, tmp_path, "x86-64-v4", dump_code=["ll"])
    code = compiled.library.with_suffix(".ll").read_text()
    kernel = code.partition("_attention(")[2].partition("\n}\n")[0]
    assert kernel.count("shufflevector") >= 64 and "scatter" not in kernel  # 16 rows, halved and joined four times


def test_panels_of_keys_that_are_done_together_need_not_divide_them_all(tmp_path):
    net = Net()
    net.output(attention(net, net.input(2, 11, 16), net.input(2, 16, 197), net.input(2, 197, 16)))
    target, templates = resolve("native,num-cores=1"), load_templates()
    (task,) = [task for task in kernel_tasks(lowered(net, tmp_path), templates) if task.text.startswith("attention")]
    assert set(task.options["key panels"]) & {2, 3, 4}

    def kernel(panels):
        choices = Choices({"key panels": panels})
        with target.tvm_target():
            schedule_kernel(task.function, templates, target.hardware, choices)
        assert choices.taken["key panels"] == panels
        return Kernel(task.function, task.constants, choices.taken)

    runner = open_runner("local", target)
    lab = Lab(target, templates, (), runner, 0, seed=0)
    try:
        assert lab.check([kernel(panels) for panels in task.options["key panels"]]) == ""
    finally:
        lab.close()
        runner.close()


def test_operands_that_others_use_too_are_read_once_moved_or_not(tmp_path):
    net = Net()
    q, k, v = operands(net, "a slice for each")
    net.output(attention(net, q, k, v), net.op("Relu", q), k)
    assert len(fused(agrees(net, tmp_path))) == 1
