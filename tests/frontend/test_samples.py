"""Inputs from files and from nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.errors import OutputError, RunError
from nncc.frontend.samples import fill, read_inputs, write_outputs
from nncc.ir import TensorSpec

X = TensorSpec("x", "float32", (2, 3))
N = TensorSpec("n", "int64", ())


def refused(path, specs, match, hint=""):
    with pytest.raises(RunError, match=match) as caught:
        read_inputs(path, specs)
    assert hint in (caught.value.hint or "")


def test_arrays_are_read_by_name(tmp_path):
    arrays = {"x": np.ones((2, 3), np.float32), "n": np.array(7)}
    np.savez(tmp_path / "in.npz", **arrays)
    read = read_inputs(tmp_path / "in.npz", (X, N))
    assert list(read) == ["x", "n"] and all(np.array_equal(read[k], arrays[k]) for k in arrays)


def test_one_array_is_enough_for_one_input(tmp_path):
    np.save(tmp_path / "in.npy", np.ones((2, 3), np.float32))
    np.savez(tmp_path / "in.npz", np.ones((2, 3), np.float32))
    for name in ("in.npy", "in.npz"):
        assert read_inputs(tmp_path / name, (X,))["x"].shape == (2, 3)
    refused(tmp_path / "in.npy", (X, N), "one array; the model has 2 inputs: `x`, `n`", ".npz")


def test_errors_name_the_file_the_input_and_what_was_expected(tmp_path):
    path = tmp_path / "in.npz"
    refused(path, (X,), "does not exist")
    path.write_bytes(b"not an archive")
    refused(path, (X,), "cannot be read")
    np.savez(path, x=np.ones((2, 3)))
    refused(path, (X,), "input `x` is float64 2x3; the model wants float32 2x3", "astype('float32')")
    np.savez(path, x=np.ones((3, 3), np.float32))
    refused(path, (X,), "input `x` is float32 3x3; the model wants float32 2x3", "--shape")
    np.savez(path, y=np.ones((2, 3), np.float32))
    refused(path, (X,), "no input `y`", "`x`")
    np.savez(path, x=np.ones((2, 3), np.float32))
    refused(path, (X, N), r"lacks: n: int64\[\]")
    np.savez(path, x=np.array([None, {}], object))
    refused(path, (X,), "cannot be read", "Python objects")


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "float64", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]
)
def test_made_up_inputs_have_the_dtype_the_range_and_the_seed(dtype):
    spec = TensorSpec("v", dtype, (50, 3))
    first, again, other = (fill((spec,), "random", seed)["v"] for seed in (1, 1, 2))
    assert first.dtype.name == dtype and first.shape == (50, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    wide = first.astype(np.float64)
    low, high = {"int8": (0, 127), "uint8": (0, 127), "int32": (0, 1), "int64": (0, 1), "bool": (0, 1)}.get(
        dtype, (-1, 1)
    )
    assert low <= wide.min() < wide.max() <= high
    assert not fill((spec,), "zeros")["v"].astype(np.float64).any()
    assert (fill((spec,), "ones")["v"].astype(np.float64) == 1).all()


def test_outputs_are_written_exactly_where_asked(tmp_path):
    arrays = {"a/b": np.arange(3), "file": np.ones((2, 2), np.float32)}
    write_outputs(tmp_path / "out", arrays)
    with np.load(tmp_path / "out") as loaded:
        assert set(loaded.files) == {"a/b", "file"}
        assert np.array_equal(loaded["a/b"], arrays["a/b"])
    with pytest.raises(OutputError, match="cannot write"):
        write_outputs(tmp_path / "none" / "out.npz", arrays)
