"""Libraries with open dimensions compute, at every size of their range, what ONNX Runtime computes."""

from __future__ import annotations

import ctypes
import json
import mmap
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled import ROUNDING, Net
from tiny_model import tiny_model

import nncc
from nncc.errors import ModelError, RunError, UsageError
from nncc.execute import open_library


@pytest.fixture(scope="module")
def batches(tmp_path_factory) -> tuple[Path, Path]:
    """The small CNN for batches of 1 to 16, with buckets, and its model."""
    folder = tmp_path_factory.mktemp("batches")
    onnx.save(tiny_model(), folder / "tiny.onnx")
    made = nncc.compile(
        folder / "tiny.onnx",
        output=folder / "out",
        range={"N": (1, 16)},
        buckets={"N": (4,)},
        threads=2,
        verify=False,
        shipped_records=False,
    )
    return made.library, folder / "tiny.onnx"


@pytest.fixture(scope="module")
def widths(tmp_path_factory) -> tuple[Path, Path]:
    """Convolution and pool with strides, attention over what is left of the width, and its model."""
    net = Net()
    x = net.input(1, 3, 8, "W", name="x")
    y = net.op("Relu", net.conv(x, 3, 8, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]))
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("ReduceMean", y, axes=[2], keepdims=0)
    rows = net.op("Transpose", y, perm=[0, 2, 1])
    scores = net.op("Softmax", net.op("MatMul", rows, y), axis=-1)
    net.output(net.op("MatMul", net.op("MatMul", scores, rows), net.weight(8, 5)))
    folder = tmp_path_factory.mktemp("widths")
    onnx.save(net.model(), folder / "widths.onnx")
    made = nncc.compile(
        folder / "widths.onnx",
        output=folder / "out",
        range={"W": (5, 70)},
        threads=2,
        verify=False,
        shipped_records=False,
    )
    return made.library, folder / "widths.onnx"


def differs(model: Path, library: nncc.runtime.loader.Module, inputs: dict[str, np.ndarray]) -> float:
    """The largest difference from ONNX Runtime's output, relative to its largest element."""
    (found,) = library.run(inputs).values()
    (expected,) = onnxruntime.InferenceSession(str(model)).run(None, inputs)
    assert found.shape == expected.shape
    return float(abs(found - expected).max() / abs(expected).max())


def images(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    return {
        "image": random.standard_normal((count, 3, 8, 8), np.float32),
        "offset": random.standard_normal(5, np.float32),
    }


def test_every_batch_is_right(batches):
    """A convolution and a product: each rounds once."""
    library, model = batches
    with nncc.load(library, threads=2) as module:
        assert [(dim.name, dim.low, dim.high) for dim in module.dims] == [("N", 1, 16)]
        assert all(differs(model, module, images(count)) < 2 * ROUNDING for count in (*range(1, 17), 4, 1))


def test_every_width_is_right(widths):
    """Eight operators, each of which rounds; sizes are divided by strides, pooled away, and rows and columns."""
    library, model = widths
    random = np.random.default_rng(0)
    with nncc.load(library, threads=2) as module:
        for width in (*range(5, 71), 5):
            x = {"x": random.standard_normal((1, 3, 8, width), np.float32)}
            assert differs(model, module, x) < 8 * ROUNDING, width


def test_equal_constants_of_variants_are_there_once(batches):
    library, _ = batches
    with nncc.load(library) as module:
        assert module.description["variants"] == [[4], [0]]
        matrix, kernel = 4 * 8 * 8 * 5 * 4, 4 * 3 * 9 * 4
        assert module.description["weights_bytes"] < 2 * (matrix + kernel)


def test_other_sizes_are_refused(batches):
    library, _ = batches
    with nncc.load(library) as module, pytest.raises(RunError) as caught:
        module.run(images(17))
    assert caught.value.message == "`N` is 17 in input `image`, expected 1 to 16"
    with pytest.raises(RunError) as caught:
        open_library(library).run(images(17))
    assert caught.value.message == "`N` is 17 in input `image`, expected 1 to 16"
    with pytest.raises(RunError) as caught:
        open_library(library).inputs_at({"M": 3})
    assert caught.value.message == f"{library} has no open dimension `M`"


def test_the_c_interface_checks_sizes_and_tells_shapes(batches):
    library = ctypes.CDLL(str(batches[0]))
    library.nncc_last_error.restype = ctypes.c_char_p
    context, shape = ctypes.c_void_p(), (ctypes.c_int64 * 4)()
    assert library.nncc_create(ctypes.byref(context), 1) == 0
    assert library.nncc_output_shape(context, 0, shape) == 0 and list(shape)[:2] == [16, 5], "at first the highest"
    assert library.nncc_resize(context, (ctypes.c_int64 * 1)(0)) == 1
    assert library.nncc_last_error() == b"the size 0 of `N` is outside of its range, 1 to 16"
    assert library.nncc_output_shape(context, 0, shape) == 0 and list(shape)[:2] == [16, 5], "the old ones stay"
    assert library.nncc_resize(context, (ctypes.c_int64 * 1)(3)) == 0
    assert library.nncc_output_shape(context, 0, shape) == 0 and list(shape)[:2] == [3, 5]
    assert library.nncc_input_shape(context, 0, shape) == 0 and list(shape) == [3, 3, 8, 8]
    assert library.nncc_output_shape(context, 1, shape) == 1
    assert library.nncc_last_error() == b"there is no output 1; there are 1"
    library.nncc_destroy(context)


def at_the_end_of_a_page(array: np.ndarray) -> tuple[mmap.mmap, np.ndarray]:
    """A copy whose last byte is the last before memory that nobody may touch."""
    page = mmap.PAGESIZE
    pages = -(-array.nbytes // page) + 1
    memory = mmap.mmap(-1, pages * page)
    whole = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None)
    address = whole.ctypes.data + (pages - 1) * page
    assert libc.mprotect(ctypes.c_void_p(address), page, 0) == 0
    start = (pages - 1) * page - array.nbytes
    copy = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return memory, copy


@pytest.mark.parametrize("width", [5, 6, 17, 33, 64, 69])
def test_nothing_beyond_inputs_and_outputs_is_touched(widths, width):
    """A page that may not be touched behind each: an access would end this process."""
    library, _ = widths
    x = np.random.default_rng(0).standard_normal((1, 3, 8, width), np.float32)
    with nncc.load(library, threads=1) as module:
        (expected,) = module.run({"x": x}).values()
        _, copy = at_the_end_of_a_page(x)
        _, place = at_the_end_of_a_page(expected)
        place.fill(0)
        module.run({"x": copy}, {module.outputs[0].name: place})
        assert np.array_equal(place, expected)


def test_several_contexts_run_at_several_sizes_at_once(widths):
    library, _ = widths
    random = np.random.default_rng(0)
    inputs = [random.standard_normal((1, 3, 8, width), np.float32) for width in (5, 31, 64, 70)]
    with nncc.load(library) as module:
        expected = [next(iter(module.run({"x": x}).values())) for x in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        with nncc.load(library, threads=2) as module:
            for _ in range(20):
                (found,) = module.run({"x": inputs[number]}).values()
                if not np.array_equal(found, expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_calls_of_tensorflow_lite_resize(batches):
    library, model = batches
    given = images(3)
    with nncc.load(library) as module:
        assert module.get_input_details()[0]["shape_signature"].tolist() == [-1, 3, 8, 8]
        module.resize_tensor_input(0, [3, 3, 8, 8])
        module.allocate_tensors()
        module.set_tensor(0, given["image"])
        module.set_tensor(1, given["offset"])
        module.invoke()
        (expected,) = onnxruntime.InferenceSession(str(model)).run(None, given)
        assert np.allclose(module.get_tensor(2), expected, atol=2 * ROUNDING * abs(expected).max())


def test_without_a_general_form_only_buckets_run(tmp_path):
    onnx.save(tiny_model(), tmp_path / "tiny.onnx")
    options = {"range": {"N": (1, 16)}, "general": False, "verify": False, "threads": 1}
    made = nncc.compile(tmp_path / "tiny.onnx", output=tmp_path / "out", buckets={"N": (2, 3)}, **options)
    with nncc.load(made.library) as module:
        assert differs(tmp_path / "tiny.onnx", module, images(2)) < 2 * ROUNDING
        with pytest.raises(RunError) as caught:
            module.run(images(4))
    assert caught.value.message == "this library was compiled for some sizes only, and 4 of `N` is none"


def test_gpus_and_quantizing_are_refused(tmp_path):
    onnx.save(tiny_model(), tmp_path / "tiny.onnx")
    with pytest.raises(UsageError) as caught:
        nncc.compile(tmp_path / "tiny.onnx", target="cuda-sm80", range={"N": (1, 16)}, until="generalize")
    assert caught.value.message == "`--range`: libraries for `cuda-sm80` take fixed sizes only"
    with pytest.raises(UsageError) as caught:
        nncc.compile(tmp_path / "tiny.onnx", range={"N": (1, 16)}, quantize=tmp_path, until="generalize")
    assert caught.value.message == "`--quantize` needs fixed sizes"
    with pytest.raises(UsageError) as caught:
        nncc.compile(tmp_path / "tiny.onnx", buckets={"N": (1,)})
    assert caught.value.message == "`--buckets` are sizes of open dimensions"


def test_a_static_size_that_a_sample_has_too_is_not_taken_for_open(tmp_path):
    """The largest sample of a batch of up to 16 is 64, and so are rows and columns here."""
    net = Net()
    x = net.input("N", 64, name="x")
    net.output(net.op("Softmax", net.op("MatMul", x, net.weight(64, 64)), axis=-1))
    onnx.save(net.model(), tmp_path / "wide.onnx")
    opened = nncc.compile(tmp_path / "wide.onnx", range={"N": (1, 16)}, until="generalize")
    assert [sample.clear for sample in opened.samples] == [True, True, True, True, False]
    assert "softmax" in opened.general.kernels.module.script(), "rows of fixed length have their template"


def test_a_model_that_is_another_at_other_sizes_is_refused(tmp_path):
    """The reshape takes a number of rows that depends on whether the size is even."""
    net = Net()
    x = net.input("N", 12, name="x")
    size = net.op("Gather", net.op("Shape", x), net.ints(0))
    odd = net.op("Mod", size, net.ints(2))
    net.output(net.op("Slice", x, net.ints(0), net.op("Add", odd, net.ints(1)), net.ints(1)))
    onnx.save(net.model(), tmp_path / "odd.onnx")
    with pytest.raises(ModelError) as caught:
        nncc.compile(tmp_path / "odd.onnx", range={"N": (1, 100)}, until="generalize")
    assert caught.value.message.endswith(
        "depends on the open dimensions in no simple way: a size is 2 at 99, 1 at 98, 1 at 88, 2 at 63, 1 at 100"
    )
    assert caught.value.hint == "compile for some sizes only: `--buckets`, and `--no-general`"


def test_a_lock_holds_the_decisions_of_all_forms(tmp_path):
    onnx.save(tiny_model(), tmp_path / "tiny.onnx")
    lock = tmp_path / "lock.json"
    options = {"range": {"N": (1, 16)}, "buckets": {"N": (4,)}, "verify": False, "threads": 1, "lock": lock}
    first = nncc.compile(tmp_path / "tiny.onnx", output=tmp_path / "first", **options)
    tiles = [each for each in json.loads(lock.read_text())["decisions"] if "tile" in each["taken"]]
    assert any("dim_0" in each["text"] for each in tiles), "the general form's"
    assert any("dim_0" not in each["text"] for each in tiles), "the bucket's"
    second = nncc.compile(tmp_path / "tiny.onnx", output=tmp_path / "second", **options)
    assert second.library.read_bytes() == first.library.read_bytes()


def test_weights_that_all_forms_have_are_stored_once(tmp_path):
    """The general form takes them as the bucket has them, in panels of as many vectors, where it costs little."""
    net = Net()
    x = net.input("N", 64, name="x")
    net.output(net.op("MatMul", net.op("Relu", net.op("MatMul", x, net.weight(64, 512))), net.weight(512, 96)))
    onnx.save(net.model(), tmp_path / "wide.onnx")
    made = nncc.compile(
        tmp_path / "wide.onnx",
        output=tmp_path / "out",
        range={"N": (2, 200)},
        buckets={"N": (128,)},
        threads=1,
        verify=False,
        shipped_records=False,
    )
    tiles = {name: word.rpartition("x")[2] for name, word in made.description["schedules"].items()}
    assert all(tiles[f"at_128_{name}"] == tiles[name] for name in tiles if f"at_128_{name}" in tiles)
    with nncc.load(made.library, threads=1) as module:
        assert module.description["weights_bytes"] == (64 * 512 + 512 * 96) * 4
        random = np.random.default_rng(0)
        for rows in (2, 77, 128, 200):
            assert (
                differs(tmp_path / "wide.onnx", module, {"x": random.standard_normal((rows, 64), np.float32)})
                < ROUNDING
            )


def test_one_algorithm_for_all_batches(tmp_path):
    """How Winograd's convolution is best cut depends on the batch: it is cut as for one image."""
    net = Net()
    x = net.input("N", 64, 28, 28, name="x")
    net.output(net.op("Relu", net.conv(x, 64, 64, (3, 3), pads=[1, 1, 1, 1])))
    onnx.save(net.model(), tmp_path / "batches.onnx")
    options = {"range": {"N": (1, 4)}, "threads": 1, "verify": False, "shipped_records": False}
    made = nncc.compile(tmp_path / "batches.onnx", output=tmp_path / "out", target="x86-64-v3", **options)
    assert any("winograd" in way for way in made.description["schedules"].values())
    with nncc.load(made.library, threads=1) as module:
        for count in range(1, 5):
            x = {"x": np.random.default_rng(count).standard_normal((count, 64, 28, 28), np.float32)}
            assert differs(tmp_path / "batches.onnx", module, x) < 2 * ROUNDING, count


def test_a_tile_that_cannot_be_lowered_gives_way_to_another(tmp_path):
    """Three rows of open width are one: nine columns of it at a time are too much for TVM's compaction of buffers."""
    net = Net()
    net.output(net.op("Relu", net.conv(net.input(1, 192, 3, "W", name="x"), 192, 384, (1, 1))))
    onnx.save(net.model(), tmp_path / "rows.onnx")
    options = {"range": {"W": (8, 160)}, "threads": 1, "verify": False, "shipped_records": False}
    made = nncc.compile(tmp_path / "rows.onnx", output=tmp_path / "out", target="x86-64-v3", **options)
    (way,) = [word for name, word in made.description["schedules"].items() if "conv2d" in name]
    assert way.startswith("conv2d tile")
    with nncc.load(made.library, threads=1) as module:
        for width in (8, 9, 31, 100, 160):
            x = {"x": np.random.default_rng(width).standard_normal((1, 192, 3, width), np.float32)}
            assert differs(tmp_path / "rows.onnx", module, x) < 2 * ROUNDING, width
