"""Which dimensions of a model's inputs are open, what they are called, and the sizes that are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from nncc.errors import ModelError, UsageError, did_you_mean
from nncc.ir import Dim

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["OpenInputs", "bucket_points", "checked_points", "open_inputs", "sample_points"]


@dataclass(frozen=True)
class OpenInputs:
    """The open dimensions of a model, and the shape of each input in terms of them."""

    dims: tuple[Dim, ...]
    shapes: Mapping[str, tuple[int | str, ...]]

    def at(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The static shapes at these sizes."""
        return {
            name: tuple(size if isinstance(size, int) else sizes[size] for size in shape)
            for name, shape in self.shapes.items()
        }


def open_inputs(
    graph: onnx_ir.Model, shape: Mapping[str, Sequence[int | str]], ranges: Mapping[str, Sequence[int]]
) -> OpenInputs:
    """Names and numbers of all inputs' dimensions: those of `shape` before the model's own.

    Raises ModelError where a dimension has neither a size nor a range, UsageError where a range is none, or is of a
    dimension that no input has.
    """
    inputs = {str(value.name): value for value in graph.graph.inputs}
    for name in shape:
        if name not in inputs:
            hint = did_you_mean(name, inputs) or "the inputs are: " + ", ".join(f"`{n}`" for n in inputs)
            raise ModelError(f"`--shape {name}=...` names no input of the model", hint)
    own: dict[str, list[int | str]] = {}
    meaning: dict[str, int | str] = {}
    for name, value in inputs.items():
        given = list(shape.get(name, ()))
        words = _words(value) if value.shape is not None else list(given)
        if given and len(given) != len(words):
            raise ModelError(f"`--shape {name}={_text(given)}` has {len(given)} dimensions; the input has {len(words)}")
        for at, (word, wanted) in enumerate(zip(words, given, strict=False)):
            if isinstance(word, int) and wanted != word:
                raise ModelError(
                    f"`--shape {name}={_text(given)}` contradicts the model, where dimension {at} is {word}",
                    "only dimensions that are not numbers can be chosen",
                )
            if isinstance(word, str) and word != "?" and meaning.setdefault(word, wanted) != wanted:
                raise ModelError(f"`--shape` gives the dimension `{word}` two sizes: {meaning[word]} and {wanted}")
        own[name] = [*given] if given else words
    found: dict[str, None] = {}
    shapes: dict[str, tuple[int | str, ...]] = {}
    for name, words in own.items():
        resolved = tuple(meaning.get(word, word) if isinstance(word, str) else word for word in words)
        for at, word in enumerate(resolved):
            if isinstance(word, str) and word not in ranges:
                what = f"`{word}`" if word != "?" else "without a name"
                raise ModelError(
                    f"dimension {at} of input `{name}`, {what}, has neither a size nor a range",
                    f"give it a range, `--range NAME=1..16`, or a size, with `--shape {name}=...`",
                )
            if isinstance(word, str):
                found[word] = None
        shapes[name] = resolved
    for name in ranges:
        if name not in found:
            hint = did_you_mean(name, found) or "open are: " + (", ".join(f"`{n}`" for n in found) or "none")
            raise UsageError(f"`--range {name}=...`: no input has an open dimension of this name", hint)
    return OpenInputs(tuple(_dim(name, ranges[name]) for name in found), shapes)


def _words(value: onnx_ir.Value) -> list[int | str]:
    assert value.shape is not None
    words: list[int | str] = []
    for dim in value.shape:
        if isinstance(dim, int):
            words.append(dim if dim > 0 else "?")
        else:
            words.append(str(dim.value) if dim.value is not None else "?")
    return words


def _text(words: Sequence[int | str]) -> str:
    return "x".join(map(str, words))


def _dim(name: str, bounds: Sequence[int]) -> Dim:
    low, high = bounds
    if not 1 <= low < high:
        raise UsageError(f"`--range {name}={low}..{high}`: a range begins at 1 or more, and ends higher")
    return Dim(name, low, high)


def bucket_points(dims: Sequence[Dim], buckets: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """The sizes that get a pipeline of their own: all combinations of what each dimension's buckets are.

    A dimension without buckets has none but its highest, unless none has any. Raises UsageError.
    """
    if not buckets:
        return []
    names = [dim.name for dim in dims]
    if "" in buckets:
        if len(dims) != 1:
            raise UsageError(
                f"`--buckets` does not say of which dimension: {', '.join(f'`{n}`' for n in names)}",
                f"for example `--buckets {names[0]}:{dims[0].low},{dims[0].high}`",
            )
        buckets = {names[0]: buckets[""]}
    for name, sizes in buckets.items():
        dim = next((dim for dim in dims if dim.name == name), None)
        if dim is None:
            raise UsageError(f"`--buckets {name}:...`: there is no open dimension `{name}`", did_you_mean(name, names))
        for size in sizes:
            if not dim.low <= size <= dim.high:
                raise UsageError(f"the bucket {size} of `{name}` is outside of its range {dim.low}..{dim.high}")
    points: list[dict[str, int]] = [{}]
    for dim in dims:
        sizes = sorted(set(buckets.get(dim.name, (dim.high,))))
        points = [point | {dim.name: size} for point in points for size in sizes]
    if len(points) > _MOST_BUCKETS:
        raise UsageError(f"there are {len(points)} combinations of buckets; nncc takes {_MOST_BUCKETS}")
    return points


def checked_points(
    dims: Sequence[Dim], buckets: Mapping[str, Sequence[int]], general: bool, seed: int
) -> list[dict[str, int]]:
    """The sizes that a library is checked at: the ends of the ranges, some between, and some of its buckets."""
    found = bucket_points(dims, buckets)[:_CHECKED]
    if general:
        random = Random(seed)
        found += [{dim.name: end for dim, end in zip(dims, ends, strict=True)} for ends in _ends(dims)]
        found += [{dim.name: random.randint(dim.low, dim.high) for dim in dims} for _ in range(_CHECKED)]
    return list({tuple(point.items()): point for point in found}.values())


def _ends(dims: Sequence[Dim]) -> list[tuple[int, ...]]:
    """All lowest, the next ones, all highest; of several dimensions, also one low and the others high."""
    low, high = tuple(dim.low for dim in dims), tuple(dim.high for dim in dims)
    mixed = [(*high[:at], low[at], *high[at + 1 :]) for at in range(len(dims))] if len(dims) > 1 else []
    return [low, tuple(size + 1 for size in low), high, *mixed]


_CHECKED = 4
_MOST_BUCKETS = 64
_WIDE = 64
"""A range that ends here or higher has its samples inside of it, else beyond: models may have tables that long."""
_SPREAD = ((1, 1, 0), (1, 1, -1), (1, 1, -2), (5, 8, 1), (7, 8, 1))
"""Of the highest size: a part, and more."""


def sample_points(dims: Sequence[Dim]) -> list[dict[str, int]]:
    """Sizes to make a general form of: neither 1, which axes are dropped for, nor alike.

    Odd ones and multiples of many numbers, so that whatever is done for the one or the other alone shows. The last has
    the largest sizes. Of several dimensions, one moves at a time, then some together.
    """
    tops = [dim.high if dim.high >= _WIDE else _WIDE for dim in dims]
    sizes = []
    for at, top in enumerate(tops):
        shifted = top - 4 * tops[:at].count(top)  # two dimensions of one size would be taken for one
        sizes.append(list(dict.fromkeys(max(3, shifted * part // whole + more) for part, whole, more in _SPREAD)))
    names = [dim.name for dim in dims]
    base = [own[1] for own in sizes]
    points = [dict(zip(names, base, strict=True))]
    for at, own in enumerate(sizes):
        points += [points[0] | {names[at]: size} for size in own if size != base[at]]
    if len(dims) > 1:
        for number in (2, 3):
            points.append({name: own[number % len(own)] for name, own in zip(names, sizes, strict=True)})
        points.append({name: own[0] for name, own in zip(names, sizes, strict=True)})
    else:
        points.sort(key=lambda point: (point[names[0]] == sizes[0][0], -point[names[0]]))
    return list({tuple(point.items()): point for point in points}.values())
