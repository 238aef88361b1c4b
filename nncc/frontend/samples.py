"""Inputs for a run: read from npz or npy, or made up; outputs written as npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nncc.errors import OutputError, RunError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from nncc.ir import TensorSpec

__all__ = ["Fill", "choose_inputs", "fill", "load_arrays", "read_inputs", "write_outputs"]

Fill = Literal["random", "zeros", "ones"]
"""What inputs are made up of."""


def _dtype(word: str) -> np.dtype:
    import numpy as np

    try:
        return np.dtype(word)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, word))


def load_arrays(path: Path) -> dict[str, np.ndarray] | np.ndarray:
    """The arrays of an ``.npz`` by name, or that of an ``.npy``, none of objects.

    Raises whatever numpy, zipfile, zlib, lzma or tokenize raise of a file that is missing or damaged.
    """
    import numpy as np

    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _load(path: Path) -> dict[str, np.ndarray] | np.ndarray:
    try:
        return load_arrays(path)
    except FileNotFoundError:
        raise RunError(f"`{path}` does not exist", "give an .npz file with an array for each input") from None
    except Exception as error:  # of a damaged file, zipfile, zlib, lzma and tokenize raise their own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        hint = "write one with `numpy.savez(path, NAME=array)`; arrays of Python objects are not read"
        raise RunError(f"`{path}` cannot be read as .npz or .npy: {reason}", hint) from error


def _fitted(path: Path, array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    import numpy as np

    wanted = _dtype(spec.dtype)
    if array.dtype != wanted and array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize:
        array = array.view(wanted)  # numpy files keep bfloat16 as plain bytes
    if not spec.admits(array.shape) or array.dtype != wanted:
        shape = "x".join(map(str, array.shape)) or "a scalar"
        expected = "x".join(map(str, spec.shape)) or "a scalar"
        raise RunError(
            f"`{path}`: input `{spec.name}` is {array.dtype} {shape}; the model wants {spec.dtype} {expected}",
            f"convert it first: `array.astype('{spec.dtype}').reshape{spec.shape}`"
            if array.size == np.prod(spec.shape)
            else "the shape is fixed when the model is compiled: choose it with `--shape`",
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def read_inputs(path: str | Path, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """One array for each spec, from an ``.npz`` of arrays by name, or an ``.npy`` where there is one input.

    Shapes and dtypes must be the model's. Raises RunError naming the file, the input and what was expected.
    """
    import numpy as np

    path = Path(path)
    loaded = _load(path)
    names = [spec.name for spec in specs]
    if isinstance(loaded, np.ndarray):
        if len(specs) != 1:
            listed = ", ".join(f"`{n}`" for n in names) or "none"
            raise RunError(f"`{path}` holds one array; the model has {len(specs)} inputs: {listed}", "use an .npz file")
        loaded = {names[0]: loaded}
    elif len(specs) == 1 and list(loaded) == ["arr_0"] and names != ["arr_0"]:
        loaded = {names[0]: loaded["arr_0"]}
    if unknown := [name for name in loaded if name not in names]:
        hint = did_you_mean(unknown[0], names) or "the inputs are: " + ", ".join(f"`{n}`" for n in names)
        raise RunError(f"`{path}`: the model has no input `{unknown[0]}`", hint)
    if missing := [str(spec) for spec in specs if spec.name not in loaded]:
        raise RunError(f"`{path}` lacks: {'; '.join(missing)}", "give an array for every input, by its name")
    return {spec.name: _fitted(path, loaded[spec.name], spec) for spec in specs}


def fill(specs: Sequence[TensorSpec], mode: Fill = "random", seed: int = 0) -> dict[str, np.ndarray]:
    """Made-up inputs, the same for the same seed.

    Random floats are uniform in [-1, 1); 8-bit integers in 0..127; other integers 0 or 1 (valid as an index, a mask or
    a token); booleans either.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    arrays = {}
    for spec in specs:
        dtype = _dtype(spec.dtype)
        if mode == "zeros":
            array = np.zeros(spec.shape, dtype)
        elif mode == "ones":
            array = np.ones(spec.shape, dtype)
        elif spec.dtype in ("int8", "uint8"):
            array = rng.integers(0, 128, spec.shape).astype(dtype)
        elif dtype.kind in "iub":
            array = rng.integers(0, 2, spec.shape).astype(dtype)
        else:
            array = rng.uniform(-1.0, 1.0, spec.shape).astype(dtype)
        arrays[spec.name] = array
    return arrays


def choose_inputs(
    specs: Sequence[TensorSpec], path: Path | None, mode: Fill | None, seed: int
) -> tuple[dict[str, np.ndarray], str]:
    """The inputs of a run, and a word on where they are from.

    They are read from `path` where given; what is not in there is made up if `mode` says how.
    """
    chosen: Fill = mode or "random"
    word = f"random, seed {seed}" if chosen == "random" else chosen
    if path is None:
        return fill(specs, chosen, seed), word
    given = _named_in(path) if mode else None
    rest: list[TensorSpec] = []
    if given is not None and given <= {spec.name for spec in specs}:
        rest = [spec for spec in specs if spec.name not in given]
    arrays = read_inputs(path, [spec for spec in specs if spec not in rest])
    if not rest:
        return arrays, str(path)
    return arrays | fill(rest, chosen, seed), f"{path}; {', '.join(spec.name for spec in rest)} {word}"


def _named_in(path: Path) -> set[str] | None:
    """The names of the arrays in an .npz; None where it is none, which its reader will say."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return None


def write_outputs(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to an ``.npz`` file, exactly at `path`. Raises OutputError."""
    import numpy as np

    path = Path(path)
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    except OSError as error:
        raise OutputError(f"cannot write `{path}`: {error.strerror or error}", "choose another path") from error
