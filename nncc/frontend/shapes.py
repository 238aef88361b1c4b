"""Fixing the dimensions of inputs that a model leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["fix_shapes", "open_dimensions", "suggest"]


def _words(shape: onnx_ir.Shape) -> list[int | str]:
    """Each dimension as a number, a symbol, or ``?``. Old exporters write 0 or -1 for an open one."""
    words: list[int | str] = []
    for dim in shape:
        if isinstance(dim, int):
            words.append(dim if dim > 0 else "?")
        else:
            words.append(str(dim.value) if dim.value is not None else "?")
    return words


def _show(words: Sequence[int | str]) -> str:
    return "x".join(str(w) if isinstance(w, int) else f"`{w}`" for w in words)


def suggest(words: Sequence[int | str]) -> str:
    """A shape to try, as `--shape` takes it: 1 for an open leading (batch) dimension, 224 for an open image side, 128
    for a length."""
    return "x".join(map(str, _guess(words)))


def _guess(words: Sequence[int | str]) -> list[int]:
    return [
        w if isinstance(w, int) else 1 if at == 0 else 224 if len(words) >= 4 else 128 for at, w in enumerate(words)
    ]


def open_dimensions(
    graph: onnx_ir.Model, shape: Mapping[str, Sequence[int]]
) -> dict[str, tuple[tuple[int | str, ...], tuple[int, ...]]]:
    """By input with open dimensions, but without those that have no shape at all: its dimensions as numbers, symbols
    or ``?``, and the sizes of `shape`, or guessed ones, of which a symbol has the same everywhere."""
    found: dict[str, tuple[tuple[int | str, ...], tuple[int, ...]]] = {}
    symbols: dict[str, int] = {}
    inputs = [value for value in graph.graph.inputs if value.shape is not None]
    for value in sorted(inputs, key=lambda value: value.name not in shape):  # what is given says what symbols are
        assert value.shape is not None
        words = _words(value.shape)
        if all(isinstance(word, int) for word in words):
            continue
        sizes = list(shape.get(str(value.name), ())) or _guess([symbols.get(str(w), w) for w in words])
        for word, size in zip(words, sizes, strict=False):
            if isinstance(word, str) and word != "?":
                symbols.setdefault(word, size)
        found[str(value.name)] = tuple(words), tuple(sizes)
    return {str(value.name): found[str(value.name)] for value in inputs if str(value.name) in found}


def _given(value: onnx_ir.Value, sizes: Sequence[int]) -> list[int]:
    """The sizes a user gave for one input, checked against what the model says; 0 where that says 0."""
    sizes = [int(size) for size in sizes]
    text = "x".join(map(str, sizes))
    empty = [d == 0 for d in value.shape] if value.shape is not None and len(value.shape) == len(sizes) else ()
    if any(size < 0 or (size == 0 and not any(empty[at : at + 1])) for at, size in enumerate(sizes)):
        raise ModelError(
            f"`--shape {value.name}={text}` has a dimension that is not positive", "every one must be 1 or more"
        )
    if value.shape is None:
        return sizes
    words = _words(value.shape)
    if len(sizes) != len(words):
        raise ModelError(
            f"`--shape {value.name}={text}` has {len(sizes)} dimensions; the input has {len(words)}: {_show(words)}",
            f"for example `--shape {value.name}={suggest(words)}`",
        )
    if any(isinstance(w, int) and w != size for w, size in zip(words, sizes, strict=True)):
        raise ModelError(
            f"`--shape {value.name}={text}` contradicts the model, where it is {_show(words)}",
            "only dimensions that are not numbers can be chosen; export the model again for another size",
        )
    return sizes


def fix_shapes(graph: onnx_ir.Model, shape: Mapping[str, Sequence[int]]) -> None:
    """Set every input's shape to numbers, in place, and forget shapes that were derived from the open ones.

    A symbol (``batch``) that one given shape fixes is fixed in every input. Raises ModelError that lists all open
    dimensions at once.
    """
    import onnx_ir

    main = graph.graph
    inputs = {str(value.name): value for value in main.inputs}
    for name in shape:
        if name not in inputs:
            hint = did_you_mean(name, inputs) or "the inputs are: " + ", ".join(f"`{n}`" for n in inputs)
            raise ModelError(f"`--shape {name}=...` names no input of the model", hint)
    fixed = {name: _given(inputs[name], sizes) for name, sizes in shape.items()}
    symbols: dict[str, tuple[int, str]] = {}
    for name, sizes in fixed.items():
        named = inputs[name].shape
        for word, size in zip(_words(named) if named is not None else (), sizes, strict=False):
            if isinstance(word, str) and word != "?":
                before, where = symbols.setdefault(word, (size, name))
                if before != size:
                    raise ModelError(
                        f"`--shape` gives the dimension `{word}` two sizes: {before} in `{where}`, {size} in `{name}`",
                        "a dimension of one name has one size",
                    )
    still_open: list[tuple[str, list[int | str] | None]] = []
    for name, value in inputs.items():
        if name in fixed:
            continue
        if value.shape is None:
            still_open.append((name, None))
            continue
        words = [symbols[w][0] if isinstance(w, str) and w in symbols else w for w in _words(value.shape)]
        if all(isinstance(w, int) for w in words):
            fixed[name] = [int(w) for w in words]
        else:
            still_open.append((name, words))
    if still_open:
        raise _open_error(still_open)
    for name, sizes in fixed.items():
        inputs[name].shape = onnx_ir.Shape(sizes)
    for node in onnx_ir.traversal.RecursiveGraphIterator(main):
        for value in node.outputs:
            if node.domain in ("", "ai.onnx") or (value.shape is not None and not value.shape.is_static()):
                value.shape = None


def _open_error(still_open: Sequence[tuple[str, list[int | str] | None]]) -> ModelError:
    parts, flags, batch_only = [], [], True
    for name, words in still_open:
        if words is None:
            parts.append(f"`{name}` has no shape at all")
            flags.append(f"--shape {name}=...")
            batch_only = False
            continue
        count = sum(isinstance(w, str) for w in words)
        leading = count == 1 and isinstance(words[0], str)
        batch_only = batch_only and leading
        what = (
            "a dynamic leading (batch) dimension"
            if leading
            else "a dynamic dimension"
            if count == 1
            else "dynamic dimensions"
        )
        parts.append(f"`{name}` has {what}: {_show(words)}")
        flags.append(f"--shape {name}={suggest(words)}")
    hint = f"fix it with `{' '.join(flags)}`" if len(flags) == 1 else f"fix them with `{' '.join(flags)}`"
    if batch_only:
        hint += " for a batch of one"
    return ModelError("; ".join(parts), hint)
