"""Samples: which arrays are one, which are many, and what is said of those that do not fit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from nncc.errors import DataError, RunError
from nncc.frontend.samples import read_inputs
from nncc.ir import TensorSpec
from nncc.quant.samples import InputSpec, hold_out, input_specs, read_samples

X = InputSpec("x", "float32", (1, 3, 4))
FREE = InputSpec("x", "float32", ("N", 3, 4), batched=True)
HINT = "give an .npz with an array for each input by its name, or a folder of .npz, .npy or image files"
SAVE = "write it with `numpy.savez(path, NAME=array)`"


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("spec", "shape", "count", "each"),
    [
        (X, (1, 3, 4), 1, (1, 3, 4)),
        (X, (3, 4), 1, (1, 3, 4)),
        (X, (6, 3, 4), 6, (1, 3, 4)),
        (X, (6, 1, 3, 4), 6, (1, 3, 4)),
        (FREE, (6, 3, 4), 6, (1, 3, 4)),
        (FREE, (3, 4), 1, (1, 3, 4)),
        (FREE, (6, 2, 3, 4), 6, (2, 3, 4)),
        (InputSpec("x", "float32", (2, 3)), (6, 3), 3, (2, 3)),
        (InputSpec("x", "float32", ("T", 3)), (6, 3), 1, (6, 3)),
        (InputSpec("x", "float32", ()), (), 1, ()),
        (InputSpec("x", "float32", ()), (6,), 6, ()),
        (InputSpec("x", "float32", (1, 3, "W")), (1, 3, 9), 1, (1, 3, 9)),
    ],
)
def test_what_an_array_holds_follows_from_the_shapes(tmp_path, spec, shape, count, each):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    np.savez(tmp_path / "c.npz", x=array)
    samples = read_samples(tmp_path / "c.npz", (spec,))
    assert len(samples) == count
    assert {(type(sample["x"]), sample["x"].shape) for sample in samples} == {(np.ndarray, each)}
    assert np.array_equal(np.stack([sample["x"] for sample in samples]).ravel(), array.ravel())


def test_an_open_leading_dimension_is_the_batch_only_where_all_inputs_share_it():
    def specs(*shapes):
        values = [
            onnx_ir.Value(name=f"i{n}", shape=onnx_ir.Shape(s), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
            for n, s in enumerate(shapes)
        ]
        graph = onnx_ir.Graph(values, [], nodes=[], opset_imports={"": 17})
        return [spec.batched for spec in input_specs(onnx_ir.Model(graph, ir_version=8))]

    assert specs(("N", 3), ("N", 4)) == [True, True]
    assert specs(("N", 3), ()) == [True, False]
    assert specs(("T", 3), (1, 4)) == [False, False]
    assert specs((None, 3)) == [True]


def test_a_folder_is_read_in_the_order_of_names_and_other_files_do_not_count(tmp_path):
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "0.npy", ones(1, 3, 4) * 2)
    np.savez(tmp_path / "a.npz", x=np.stack([ones(3, 4) * 0, ones(3, 4)]))
    (tmp_path / "notes.txt").write_text("labels")
    (tmp_path / ".hidden.npy").write_text("no array")
    samples = read_samples(tmp_path, (X,))
    assert [sample["x"].flat[0] for sample in samples] == [0, 1, 2]
    assert [sample["x"].flat[0] for sample in samples[1:]] == [1, 2]
    assert samples.names()[2] == f"sample 0 of `{tmp_path / 'b' / '0.npy'}`"


def test_files_of_different_sizes_fit_an_open_dimension(tmp_path):
    spec = InputSpec("x", "float32", ("N", 3, "W"), batched=True)
    for width in (5, 7):
        np.savez(tmp_path / f"{width}.npz", x=ones(1, 3, width))
    assert [sample["x"].shape for sample in read_samples(tmp_path, (spec,))] == [(1, 3, 5), (1, 3, 7)]


def test_an_input_that_is_given_once_serves_all_samples(tmp_path):
    np.savez(tmp_path / "c.npz", x=ones(5, 3, 4), rate=np.int64(16000))
    samples = read_samples(tmp_path / "c.npz", (X, InputSpec("rate", "int64", ())))
    assert [int(sample["rate"]) for sample in samples] == [16000] * 5


def test_a_quarter_is_held_out_by_the_seed(tmp_path):
    np.save(tmp_path / "c.npy", np.arange(40, dtype=np.float32).reshape(40, 1) + ones(40, 1))
    samples = read_samples(tmp_path / "c.npy", (InputSpec("x", "float32", (1, 1)),))
    seen, held = ([float(s["x"][0, 0]) for s in part] for part in hold_out(samples, 3))
    assert len(held) == 10 and sorted(seen + held) == list(range(1, 41))
    assert seen == sorted(seen) and held == sorted(held)
    assert held == [float(s["x"][0, 0]) for s in hold_out(samples, 3)[1]]
    assert held != [float(s["x"][0, 0]) for s in hold_out(samples, 4)[1]]
    assert [len(part) for part in hold_out(samples[:7])] == [7, 7]


def write(path, what):
    if isinstance(what, dict):
        np.savez(path, **what)
    elif isinstance(what, np.ndarray):
        np.save(path, what)
    elif isinstance(what, bytes):
        path.write_bytes(what)


TWO = (X, InputSpec("mask", "bool", (1, 3)))


@pytest.mark.parametrize(
    ("file", "what", "specs", "message", "hint"),
    [
        ("c.npz", None, (X,), "`c.npz` does not exist", HINT),
        ("c.txt", b"", (X,), "`c.txt` is neither .npz, .npy, an image nor a folder", HINT),
        ("c.npz", b"no zip", (X,), "`c.npz` cannot be read: it holds no arrays of numpy", SAVE),
        ("c.npz", b"PK\x03\x04", (X,), "`c.npz` cannot be read: File is not a zip file", SAVE),
        (
            "c.npy",
            np.array([{}], object),
            (X,),
            "`c.npy` holds Python objects, which nncc does not read: they can run code",
            "convert them to numbers first, and write them with `numpy.savez`",
        ),
        ("c.npz", {}, (X,), "`c.npz` has no arrays in it", SAVE),
        ("c.npz", {"X1": ones(1, 3, 4)}, (X,), "`c.npz`: the model has no input `X1`", "the inputs are: `x`"),
        (
            "c.npz",
            {"x": ones(1, 3, 4), "masc": ones(1, 3)},
            TWO,
            "`c.npz`: the model has no input `masc`",
            "did you mean `mask`?",
        ),
        (
            "c.npz",
            {"x": ones(1, 3, 4)},
            TWO,
            "`c.npz` lacks: mask: bool[1x3]",
            "give an array for every input, by its name",
        ),
        (
            "c.npy",
            ones(1, 3, 4),
            TWO,
            "`c.npy` holds one array; the model has 2 inputs: `x`, `mask`",
            "give .npz files",
        ),
        (
            "c.npz",
            {"x": ones(1, 3, 4, dtype=np.float64)},
            (X,),
            "`c.npz`: input `x` is float64; the model wants float32",
            "convert it first, with the scale that the model expects: `array.astype('float32')`",
        ),
        (
            "c.npz",
            {"x": ones(1, 4, 3)},
            (X,),
            "`c.npz`: input `x` has the shape 1x4x3; the model wants 1x3x4",
            "one sample has the shape of the input; several lie along a leading axis",
        ),
        (
            "c.npz",
            {"x": ones(5, 3)},
            (InputSpec("x", "float32", (2, 3)),),
            "`c.npz`: input `x` has the shape 5x3; the model wants 2x3",
            "one sample has the shape of the input; several lie along a leading axis",
        ),
        ("c.npz", {"x": ones(0, 3, 4)}, (X,), "`c.npz`: input `x` has nothing in it: its shape is 0x3x4", HINT),
        (
            "c.npz",
            {"x": ones(4, 3, 4), "mask": np.ones((3, 1, 3), bool)},
            TWO,
            "`c.npz` has 4 samples of `x`, but 3 of `mask`",
            "give every input as often, or once for all samples",
        ),
        (
            "c.npz",
            {"x": np.stack([ones(3, 4), np.where(np.eye(3, 4) > 0, np.nan, np.inf).astype(np.float32)])},
            (X,),
            "sample 1 of `c.npz`: input `x` has NaN or infinity in 12 of 12 elements",
            "leave the sample out, or repair it: one such value ruins the ranges of a whole layer",
        ),
    ],
)
def test_errors_name_the_file_the_input_and_what_to_do(tmp_path, monkeypatch, file, what, specs, message, hint):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / file, what)
    with pytest.raises(DataError) as caught:
        read_samples(file, specs)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_empty_folder_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "readme.md").write_text("soon")
    with pytest.raises(DataError) as caught:
        read_samples("s", (X,))
    assert caught.value.message == (
        "the folder `s` has no samples in it: no file ends in .npz, .npy, .png, .jpg, .jpeg, .bmp, .webp"
    )
    assert caught.value.hint == HINT


def damaged(name: str) -> bytes:
    """A file of numpy with one byte changed: of compressed data, of the flag for a password, a bracket of a header."""
    stream = io.BytesIO()
    (np.save if name == "header" else np.savez_compressed)(stream, ones(1, 3, 4))
    data = bytearray(stream.getvalue())
    directory = data.rfind(b"PK\x01\x02")
    start = 30 + data[26] + data[28]  # behind the local header, a name and what is extra
    at = {"data": start, "password": directory + 8, "header": data.find(b")")}[name]
    data[at] = {"data": 0xFF, "password": data[at] | 1, "header": ord(" ")}[name]
    return bytes(data)


@pytest.mark.parametrize("name", ["data", "password", "header"])
def test_a_damaged_file_is_one_error(name: str, tmp_path: Path) -> None:
    """zipfile, zlib and tokenize raise their own; the reason is in their words."""
    file = tmp_path / ("c.npy" if name == "header" else "c.npz")
    file.write_bytes(damaged(name))
    with pytest.raises(DataError, match="cannot be read: ") as caught:
        read_samples(file, (X,))
    assert caught.value.hint == SAVE
    with pytest.raises(RunError, match="cannot be read as"):
        read_inputs(file, (TensorSpec("x", "float32", (1, 3, 4)),))
