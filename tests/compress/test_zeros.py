"""`nncc prune --structure block16x4` and `unstructured`: zeros that kernels skip, or that are not stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from compress_models import Net
from onnx import TensorProto, helper, numpy_helper

import nncc
from nncc.compress.structures import STRUCTURES, structure_of
from nncc.compress.surgeon import Block
from nncc.compress.zero_groups import block_groups, weight_groups
from nncc.layer_time import LayerTimes
from nncc.quant.quantize import shapes_of
from nncc.reports.prune import prune_facts, prune_text
from nncc.target import Hardware


def blocks_of(kernel: np.ndarray) -> np.ndarray:
    """Whether each block of 16 outputs by 4 inputs is not zero: [rows of blocks, blocks of a row]."""
    out, channels, *window = kernel.shape
    padded = np.pad(kernel, ((0, -out % 16), (0, -channels % 4), (0, 0), (0, 0)))
    split = padded.reshape(-1, 16, padded.shape[1] // 4, 4, *window)
    return (split != 0).any(axis=(1, 3)).reshape(len(split), -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two convolutions of 64 channels behind a first one, `m.onnx`, and samples, `c.npz`."""
    folder = tmp_path_factory.mktemp("zeros")
    rng = np.random.default_rng(0)
    shapes = {"w1": (64, 3, 3, 3), "w2": (64, 64, 1, 1), "b2": (64,), "w3": (72, 64, 3, 3), "w4": (72, 40)}
    arrays = {n: rng.standard_normal(s) * (2 / max(1, np.prod(s[1:]))) ** 0.5 for n, s in shapes.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], name="relu1"),
            helper.make_node("Conv", ["b", "w2", "b2"], ["c"], name="point"),
            helper.make_node("Relu", ["c"], ["d"], name="relu2"),
            helper.make_node("Conv", ["d", "w3"], ["e"], name="window", pads=[2] * 4, dilations=[2, 2]),
            helper.make_node("GlobalAveragePool", ["e"], ["f"], name="pool"),
            helper.make_node("Flatten", ["f"], ["g"], name="flatten"),
            helper.make_node("Gemm", ["g", "w4"], ["y"], name="last"),
        ],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 40])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    np.savez(folder / "c.npz", x=rng.standard_normal((24, 3, 6, 6)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def blocks(folder):
    return nncc.prune(folder / "m.onnx", folder / "c.npz", folder / "blocks.onnx", sparsity=0.75, structure="block16x4")


def weights(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_each_row_of_blocks_keeps_as_many_as_the_report_says(blocks):
    arrays = weights(blocks.path)
    kept = {group.name: int(blocks.outcome.keep[group.units].sum()) for group in blocks.outcome.found.groups}
    for name, array in (("point", arrays["w2"]), ("window", arrays["w3"])):
        assert set(blocks_of(array).sum(axis=1)) == {kept[name]}
    assert set(blocks_of(arrays["w4"].T[:, :, None, None]).sum(axis=1)) == {kept["last"]}
    before, after = blocks.outcome.macs
    assert after <= 0.25 * before
    skipped = {name: 1 - kept[name] / whole for name, whole in (("point", 16), ("window", 144), ("last", 18))}
    macs = 36 * (skipped["point"] * 64 * 64 + skipped["window"] * 9 * 64 * 72) + skipped["last"] * 72 * 40
    assert before - after == pytest.approx(macs), "multiplications that are skipped, and no others"


def test_the_record_says_what_was_done(blocks):
    record = {prop.key: prop.value for prop in onnx.load(blocks.path).metadata_props}
    done = json.loads(record["nncc.prune"])
    assert (done["structure"], done["multiple"]) == ("block16x4", None)
    assert done["blocks"]["window"][0] == 144 and "first" not in done["blocks"]


def test_the_report_says_what_zeros_are_good_for(blocks):
    facts = prune_facts(blocks, "x86-64-v3")
    assert facts["structure"]["name"] == "block16x4"
    assert facts["stored_bytes"]["after"] < facts["stored_bytes"]["before"]
    text = prune_text(facts)
    assert "gain             `nncc compile` skips blocks of zeros where that is predicted to be faster\n" in text
    assert "KiB: zeros are in it\nwithout zeros    weights " in text
    assert "\nblocks of each row of blocks, and the error" in text
    assert "\nleft as they were\n" in text and "  first  it reads 3 channels only\n" in text


def test_refitting_loses_less(folder, blocks):
    plain = nncc.prune(
        folder / "m.onnx", folder / "c.npz", folder / "plain.onnx", sparsity=0.75, structure="block16x4", refit=False
    )
    assert blocks.outcome.refitted and not plain.outcome.refitted
    assert 1 - blocks.outcome.agreement["sqnr"] < 0.8 * (1 - plain.outcome.agreement["sqnr"])


def test_the_same_call_gives_the_same_bytes(folder, blocks):
    again = nncc.prune(folder / "m.onnx", folder / "c.npz", folder / "b.onnx", sparsity=0.75, structure="block16x4")
    assert again.path.read_bytes() == blocks.path.read_bytes()


def skips(artifact) -> bool:
    """Whether a convolution skips zeros: that of 3x3 has a fourth of its blocks; if another does, is a matter of the
    compiler's prediction."""
    return any("sparse_conv2d" in schedule for schedule in artifact.description["schedules"].values())


def test_compile_skips_the_blocks(blocks, tmp_path):
    artifact = nncc.compile(blocks.path, "x86-64-v3", tmp_path, shipped_records=False)
    assert skips(artifact)


@pytest.mark.parametrize("reconstruct", [True, False])
def test_blocks_survive_quantization_and_are_skipped_in_int8(folder, blocks, reconstruct, tmp_path):
    made = nncc.quantize(
        blocks.path, folder / "c.npz", tmp_path / "q.onnx", reconstruct=reconstruct, equalize=True, correct_bias=True
    )
    arrays = weights(made.path)
    for name in ("w2", "w3"):
        before = weights(blocks.path)[name]
        integers = next(a for n, a in arrays.items() if a.dtype == np.int8 and a.shape == before.shape)
        assert not integers[before == 0].any()
    artifact = nncc.compile(made.path, "x86-64-v3", tmp_path / "out", shipped_records=False)
    assert skips(artifact)


def test_single_weights_shrink_the_library_and_nothing_else(folder, tmp_path):
    made = nncc.prune(folder / "m.onnx", folder / "c.npz", tmp_path / "u.onnx", sparsity=0.7, structure="unstructured")
    before, after = made.outcome.macs
    assert before == after
    text = prune_text(prune_facts(made, "x86-64-v3"))
    assert "gain             size only: kernels do not skip single zeros; `nncc compile` stores them compressed" in text
    zeros = {name: 1 - np.count_nonzero(array) / array.size for name, array in weights(made.path).items()}
    assert zeros["w2"] > 0.2 and zeros["w3"] > 0.6
    sizes = {}
    for way in ("auto", "off"):
        library = nncc.compile(made.path, "x86-64-v3", tmp_path / way, compress_weights=way, shipped_records=False)
        sizes[way] = library.description["weights_bytes"]
    # a bit for each weight, and 30 % of them, in what the constants take with their padding
    assert sizes["auto"] < (0.7 * 0.5 + 1 / 32 + 0.12) * sizes["off"]
    stored = made.outcome.stored_bytes
    assert stored[1] == pytest.approx(sizes["auto"], rel=0.15), "what `--size` counts is what the library has"


def test_size_is_a_goal(folder, tmp_path):
    given = {"structure": "unstructured", "refit": False}
    made = nncc.prune(folder / "m.onnx", folder / "c.npz", tmp_path / "u.onnx", size="80KB", **given)
    assert 0.9 * 80e3 < made.outcome.stored_bytes[1] <= 80e3


def test_what_stays_dense_says_why():
    net = Net()
    a = net.conv("x", 3, 32, 3)
    b = net.conv(a, 32, 32, 3, group=32)
    c = net.conv(b, 32, 32, 1, group=4)
    d = net.conv(c, 32, 12)
    graph = net.model([net.conv(d, 12, 32)])
    shapes = shapes_of(graph, {"x": np.zeros((1, 3, 4, 4), np.float32)})
    found = block_groups(graph, shapes, Block(16, 4)).found
    assert {group.name: group.reason for group in found.groups} == {
        "conv0": "it reads 3 channels only",
        "conv1": "it is a depthwise convolution",
        "conv2": "it is a grouped convolution",
        "conv3": "it has 12 outputs only",
        "conv4": "it reads 12 channels only",
    }
    found = weight_groups(graph, shapes).found
    assert {group.name: group.reason for group in found.groups} == {
        "conv0": "it has 864 weights only",
        "conv1": "it is a depthwise convolution",
        "conv2": "it is a grouped convolution",
        "conv3": "it has 384 weights only",
        "conv4": "it has 384 weights only",
    }


def test_shared_weights_and_odd_products_stay_dense():
    net = Net()
    a = net.op("MatMul", net.op("MatMul", "x", net.whole("w", 32, 32)), "w")
    b = net.op("Gemm", net.op("Flatten", a), net.whole("v", 32, 64), alpha=0.5)
    graph = net.model([b], x=("N", 1, 32))
    found = block_groups(graph, shapes_of(graph, {"x": np.zeros((1, 1, 32), np.float32)}), Block(16, 4)).found
    assert [group.reason for group in found.groups] == [
        "weights `w` are shared with `matmul1`",
        "weights `w` are shared with `matmul0`",
        "a Gemm of this form is not understood",
    ]


def error(folder, **options):
    with pytest.raises(nncc.NnccError) as caught:
        nncc.prune(folder / "m.onnx", folder / "c.npz", folder / "no.onnx", **options)
    return caught.value.message, caught.value.hint


def test_wrong_words_have_their_errors(folder):
    assert error(folder, sparsity=0.5, structure="pairs") == (
        "structure `pairs` is not known; there is channels, block16x4, unstructured",
        "`block8x4` is a block of 8 outputs by 4 inputs",
    )
    assert error(folder, sparsity=0.5, structure="block5x4") == (
        "structure `block5x4` has blocks of 5 outputs by 4 inputs",
        "outputs are one of 4, 8, 16, 32, inputs one of 1, 2, 4, 8, 16; kernels skip blocks of a vector of outputs by "
        "4 inputs, so `block16x4` fits all targets",
    )
    assert error(folder, latency="1ms", structure="unstructured") == (
        "structure `unstructured` saves no time: kernels do not skip single zeros",
        "give `--size` or `--sparsity`, or choose `--structure channels` or `block16x4`",
    )
    assert error(folder, latency="1ms", structure="block16x2") == (
        "structure `block16x2` saves no time: kernels skip blocks of 4 inputs, and none of 2",
        "give `--size` or `--sparsity`, or choose `--structure channels` or `block16x4`",
    )
    assert error(folder, sparsity=0.5, structure="block16x4", multiple=8) == (
        "`--multiple` is of channels, and structure `block16x4` leaves them all",
        "leave it out",
    )
    assert error(folder, sparsity=0.5, structure="block16x4", least=8) == (
        "`--least` is of channels, and structure `block16x4` leaves them all",
        "leave it out",
    )
    assert error(folder, sparsity=0.5, structure="block16x4", importance="magnitud") == (
        "blocks cannot be ranked by `magnitud`",
        "did you mean `magnitude`?",
    )
    assert error(folder, sparsity=0.5, structure="block16x4", importance="size") == (
        "blocks cannot be ranked by `size`",
        "by `reconstruction` or `activation` or `magnitude`",
    )
    message, hint = error(folder, sparsity=0.99, structure="block16x4", refit=False)
    assert message.startswith("`--sparsity 99.0%` cannot be reached: of the multiplications at most ")
    assert hint == "ask for less; the report of a smaller goal shows which layers are left and why"


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (np.nan, "calibration sample 1 has values for input `x` that are not finite", "leave that sample out"),
        (
            3e38,
            "calibration samples give `point` inputs that are too large, or not finite",
            "leave out the samples that do",
        ),
    ],
)
def test_samples_that_say_nothing_are_refused(folder, value, message, hint):
    samples = [{"x": np.full((1, 3, 6, 6), each, np.float32)} for each in (1, value, 1)]
    with pytest.raises(nncc.NnccError) as caught:
        nncc.prune(folder / "m.onnx", samples, folder / "z.onnx", sparsity=0.5, structure="block16x4")
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_weights_that_are_not_finite_are_refused(folder, structure, tmp_path):
    proto = onnx.load(folder / "m.onnx")
    (tensor,) = (each for each in proto.graph.initializer if each.name == "w2")
    array = np.array(numpy_helper.to_array(tensor))
    array[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, "w2"))
    onnx.save(proto, tmp_path / "nan.onnx")
    with pytest.raises(nncc.NnccError) as caught:
        nncc.prune(tmp_path / "nan.onnx", folder / "c.npz", tmp_path / "z.onnx", sparsity=0.5, structure=structure)
    assert (str(caught.value), caught.value.hint) == (
        "the weights of `point` are not all finite",
        "such a model computes nothing: export it again",
    )


def test_every_structure_says_what_it_is_good_for():
    assert [not each.slow for each in STRUCTURES.values()] == [True, True, False]
    assert structure_of("unstructured").gain.startswith("size only: kernels do not skip single zeros")
    assert structure_of("block8x4").unit == "blocks of each row of blocks"


@pytest.mark.parametrize("product", ["conv", "gemm"])
def test_time_is_predicted_for_the_kernels_that_skip(product):
    """A convolution's and a matrix product's; of blocks that fit no vector of the target there is none."""
    net = Net()
    shape = [64, 1024] if product == "gemm" else [1, 1024, 8, 8]
    net.whole("w", *([1024, 1024] if product == "gemm" else [1024, 1024, 1, 1]))
    graph = net.model([net.op("Gemm" if product == "gemm" else "Conv", "x", "w")], {"x": shape})
    for block, gain in ((Block(16, 4), True), (Block(8, 4), False), (Block(16, 2), False)):
        analysis = block_groups(graph, shapes_of(graph, {"x": np.zeros(shape, np.float32)}), block)
        (group,), (cost,) = analysis.found.prunable(), analysis.costs
        keep = np.zeros(analysis.found.count, bool)
        keep[group.units[: len(group.units) // 4]] = True
        times = LayerTimes(Hardware(vector_bits=512, vector_registers=32, peak_gflops=100.0))
        left = cost.seconds(keep, times) / cost.seconds(keep | True, times)
        assert (left < 0.5) == gain, f"{block}: {left}"
