"""Samples for calibration and comparison: a file, or a folder of arrays or of images, one mapping of inputs a sample.

What an array holds follows from its shape and from the input's. With an input ``1x49x10``, an array of ``1x49x10`` or
``49x10`` is one sample, one of ``150x49x10`` or ``150x1x49x10`` is 150. An open leading dimension which all inputs
share is the batch: each row is a sample of batch 1. Other open dimensions may differ from file to file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import DataError, did_you_mean
from nncc.frontend.samples import load_arrays
from nncc.quant.images import IMAGE_SUFFIXES, Preprocessing, read_image

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["InputSpec", "Samples", "hold_out", "input_specs", "read_samples"]

_ARRAY_SUFFIXES = (".npz", ".npy")


@dataclass(frozen=True)
class InputSpec:
    """Name, dtype (numpy's word, or ``bfloat16``) and shape of an input; open dimensions are words, ``?`` nameless."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    batched: bool = False
    """Whether the leading dimension is open, and the batch."""

    def fits(self, shape: Sequence[int], skip: int = 0) -> bool:
        """Whether `shape` is this one's, without its first `skip` dimensions."""
        own = self.shape[skip:]
        return len(shape) == len(own) and all(
            size == n if isinstance(n, int) else size > 0 for size, n in zip(shape, own, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{_times(self.shape)}]"


def _times(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))


def input_specs(graph: onnx_ir.Model) -> tuple[InputSpec, ...]:
    """What a checked graph takes. An open leading dimension is the batch where all inputs (scalars aside) begin with
    it."""
    found = []
    for value in graph.graph.inputs:
        dims = value.shape if value.shape is not None else ()
        words = tuple(d if isinstance(d, int) and d > 0 else str(getattr(d, "value", None) or "?") for d in dims)
        assert value.dtype is not None
        found.append(InputSpec(str(value.name), value.dtype.numpy().name, words))
    leading = {spec.shape[0] for spec in found if spec.shape}
    batch = leading.pop() if len(leading) == 1 else 0
    if isinstance(batch, int):
        return tuple(found)
    return tuple(InputSpec(spec.name, spec.dtype, spec.shape, bool(spec.shape)) for spec in found)


class Samples(Sequence[Mapping[str, "np.ndarray"]]):
    """Samples in the order of their files' names and of their rows. Files are read when they are needed, and the last
    one is kept."""

    def __init__(self, path: Path, rows: Sequence[tuple[Path, int]], specs: Sequence[InputSpec], how: Preprocessing):
        self.path = path
        self._rows = tuple(rows)
        self._specs = tuple(specs)
        self._how = how
        self._open: tuple[Path, list[dict[str, np.ndarray]]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        if isinstance(at, slice):
            return Samples(self.path, self._rows[at], self._specs, self._how)
        file, row = self._rows[at]
        if self._open is None or self._open[0] != file:
            self._open = file, _read(file, self._specs, self._how)
        return self._open[1][row]

    def chosen(self, indices: Sequence[int]) -> Samples:
        """The samples at these places, in this order."""
        return Samples(self.path, [self._rows[at] for at in indices], self._specs, self._how)

    def names(self) -> list[str]:
        """The file and the row of each sample, for messages."""
        return [f"sample {row} of `{file}`" for file, row in self._rows]


def read_samples(path: str | Path, specs: Sequence[InputSpec], how: Preprocessing | None = None) -> Samples:
    """The samples in `path`: an ``.npz`` of arrays by name, an ``.npy`` for a single input, an image, or a folder of
    such, with its subfolders; other files in a folder do not count.

    Everything is read and checked once: names, dtypes, shapes, and that floats are finite. `how` says what images
    become. Raises DataError that names the file, the sample and the input.
    """
    path, how = Path(path), how or Preprocessing()
    rows: list[tuple[Path, int]] = []
    for file in _files(path):
        rows += [(file, row) for row in range(len(_read(file, specs, how)))]
    return Samples(path, rows, specs, how)


def hold_out(
    samples: Sequence[Mapping[str, np.ndarray]], seed: int = 0
) -> tuple[Sequence[Mapping[str, np.ndarray]], Sequence[Mapping[str, np.ndarray]]]:
    """Samples for the statistics, and a quarter (at most 200), held out, to judge by; the same for the same seed.

    Fewer than 8 samples serve both ends.
    """
    import numpy as np

    count = len(samples)
    if count < 8:
        return samples, samples
    held = set(np.random.default_rng(seed).permutation(count)[: min(200, count // 4)].tolist())
    parts = [at for at in range(count) if at not in held], sorted(held)
    if isinstance(samples, Samples):
        return samples.chosen(parts[0]), samples.chosen(parts[1])
    return [samples[at] for at in parts[0]], [samples[at] for at in parts[1]]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.exists() and path.suffix.lower() not in (*_ARRAY_SUFFIXES, *IMAGE_SUFFIXES):
            raise DataError(f"`{path}` is neither .npz, .npy, an image nor a folder", _HINT)
        return [path]
    known = (*_ARRAY_SUFFIXES, *IMAGE_SUFFIXES)
    files = [file for file in _walk(path) if file.suffix.lower() in known]
    if not files:
        raise DataError(f"the folder `{path}` has no samples in it: no file ends in {', '.join(known)}", _HINT)
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


_HINT = "give an .npz with an array for each input by its name, or a folder of .npz, .npy or image files"


def _walk(folder: Path) -> Iterator[Path]:
    """Files of the folder and its subfolders; hidden ones, and links to folders, are passed by."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"the folder `{folder}` cannot be read: {error.strerror or error}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        elif entry.is_file():
            yield entry


def _read(file: Path, specs: Sequence[InputSpec], how: Preprocessing) -> list[dict[str, np.ndarray]]:
    """The samples of one file, checked."""
    if file.suffix.lower() in IMAGE_SUFFIXES:
        if len(specs) != 1:
            raise DataError(f"`{file}` is an image; the model has {_inputs(specs)}", "give .npz files instead")
        arrays = {specs[0].name: read_image(file, specs[0].shape, specs[0].dtype, how)}
    else:
        arrays = _named(file, _load(file), specs)
    columns: dict[str, list[np.ndarray]] = {}
    for spec in specs:
        columns[spec.name] = _rows_of(file, arrays[spec.name], spec)
        _check_finite(file, columns[spec.name], spec)
    counts = {name: len(rows) for name, rows in columns.items()}
    most = max(counts.values(), default=0)
    uneven = [name for name, count in counts.items() if count not in (1, most)]
    if uneven:
        first = next(name for name, count in counts.items() if count == most)
        raise DataError(
            f"`{file}` has {most} samples of `{first}`, but {counts[uneven[0]]} of `{uneven[0]}`",
            "give every input as often, or once for all samples",
        )
    return [{name: rows[at if len(rows) > 1 else 0] for name, rows in columns.items()} for at in range(most)]


def _inputs(specs: Sequence[InputSpec]) -> str:
    return f"{len(specs)} inputs: " + (", ".join(f"`{spec.name}`" for spec in specs) or "none")


def _load(file: Path) -> dict[str, np.ndarray] | np.ndarray:
    try:
        return load_arrays(file)
    except FileNotFoundError:
        raise DataError(f"`{file}` does not exist", _HINT) from None
    except Exception as error:  # of a damaged file, zipfile, zlib, lzma and tokenize raise their own
        if "Object arrays" in str(error):
            hint = "convert them to numbers first, and write them with `numpy.savez`"
            raise DataError(
                f"`{file}` holds Python objects, which nncc does not read: they can run code", hint
            ) from error
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or "there is not enough memory"
        reason = "it holds no arrays of numpy" if "allow_pickle" in reason else reason
        raise DataError(
            f"`{file}` cannot be read: {reason}", "write it with `numpy.savez(path, NAME=array)`"
        ) from error


def _named(file: Path, loaded: dict[str, np.ndarray] | np.ndarray, specs: Sequence[InputSpec]) -> dict[str, np.ndarray]:
    """One array for each input, and no other."""
    import numpy as np

    names = [spec.name for spec in specs]
    if isinstance(loaded, np.ndarray) or (len(specs) == 1 and list(loaded) == ["arr_0"]):
        if len(specs) != 1:
            raise DataError(f"`{file}` holds one array; the model has {_inputs(specs)}", "give .npz files")
        return {names[0]: loaded if isinstance(loaded, np.ndarray) else loaded["arr_0"]}
    if not loaded:
        raise DataError(f"`{file}` has no arrays in it", "write it with `numpy.savez(path, NAME=array)`")
    if unknown := [name for name in loaded if name not in names]:
        hint = did_you_mean(unknown[0], names) or "the inputs are: " + ", ".join(f"`{name}`" for name in names)
        raise DataError(f"`{file}`: the model has no input `{unknown[0]}`", hint)
    if missing := [str(spec) for spec in specs if spec.name not in loaded]:
        raise DataError(f"`{file}` lacks: {'; '.join(missing)}", "give an array for every input, by its name")
    return loaded


def _rows_of(file: Path, array: np.ndarray, spec: InputSpec) -> list[np.ndarray]:
    """The samples in one array, each with the rank of the input."""
    import numpy as np

    wanted = _numpy_dtype(spec.dtype)
    if array.dtype != wanted and array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize:
        array = array.view(wanted)  # numpy files keep bfloat16 as plain bytes
    if array.dtype != wanted:
        raise DataError(
            f"`{file}`: input `{spec.name}` is {array.dtype}; the model wants {spec.dtype}",
            f"convert it first, with the scale that the model expects: `array.astype('{spec.dtype}')`",
        )
    if not array.size:
        raise DataError(f"`{file}`: input `{spec.name}` has nothing in it: its shape is {_times(array.shape)}", _HINT)
    array, rank = np.ascontiguousarray(array).reshape(array.shape), len(spec.shape)
    lead = spec.shape[0] if spec.shape else None
    step = lead if isinstance(lead, int) else 1
    if array.ndim == rank + 1 and spec.fits(array.shape[1:]):
        return [np.asarray(row) for row in array]  # those of a scalar input would be no arrays
    if array.ndim == rank - 1 and (spec.batched or lead == 1) and spec.fits(array.shape, skip=1):
        return [array[np.newaxis]]
    if array.ndim == rank and spec.fits(array.shape) and not spec.batched:
        return [array]
    cut = spec.batched or isinstance(lead, int)
    if cut and array.ndim == rank and spec.fits(array.shape[1:], skip=1) and len(array) % step == 0:
        return [array[at : at + step] for at in range(0, len(array), step)]
    raise DataError(
        f"`{file}`: input `{spec.name}` has the shape {_times(array.shape) or 'of a scalar'}; the model wants "
        f"{_times(spec.shape) or 'a scalar'}",
        "one sample has the shape of the input; several lie along a leading axis",
    )


def _numpy_dtype(word: str) -> np.dtype:
    import numpy as np

    try:
        return np.dtype(word)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, word))


def _check_finite(file: Path, rows: Sequence[np.ndarray], spec: InputSpec) -> None:
    import numpy as np

    if not spec.dtype.startswith(("float", "bfloat")):
        return
    for at, row in enumerate(rows):
        bad = int(np.size(row) - np.isfinite(row.astype(np.float32)).sum())
        if bad:
            raise DataError(
                f"sample {at} of `{file}`: input `{spec.name}` has NaN or infinity in {bad} of {row.size} elements",
                "leave the sample out, or repair it: one such value ruins the ranges of a whole layer",
            )
