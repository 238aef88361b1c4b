"""Inputs that decide shapes (axes, pads, sizes given as inputs) become constants: ``--bind NAME=values``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError, did_you_mean
from nncc.frontend.tensors import LARGEST
from nncc.passes.bodies import captured_values, subgraphs

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["DECIDING", "bind_hint", "bind_inputs", "deciding_inputs"]

DECIDING: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "If": (0,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""By operator, the operands whose values decide a shape, or the form of the computation itself."""


def bind_inputs(graph: onnx_ir.Model, bind: Mapping[str, Any]) -> None:
    """Let the named inputs be constants, in place.

    A value is an array (or what numpy makes one of), or text: ``0,1``, ``true``, nothing at all, ``@FILE.npy``. It has
    the type of the input and fits its shape, or ModelError says so.
    """
    import onnx_ir

    main = graph.graph
    inputs = {str(value.name): value for value in main.inputs}
    for name, given in bind.items():
        if name not in inputs:
            hint = did_you_mean(name, inputs) or "the inputs are: " + ", ".join(f"`{n}`" for n in inputs)
            raise ModelError(f"`--bind {name}=...` names no input of the model", hint)
        value = inputs[name]
        array = _array(value, given)
        value.const_value = onnx_ir.tensor(array, dtype=value.dtype, name=name)
        value.shape = onnx_ir.Shape(array.shape)
        main.inputs.remove(value)
        main.register_initializer(value)


def _sizes(shape: Sequence[object]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _array(value: onnx_ir.Value, given: Any) -> np.ndarray:
    """What the input is bound to, in its type and shape."""
    import numpy as np

    assert value.dtype is not None
    what, dtype = f"`--bind {value.name}=...`", value.dtype.numpy()
    declared = None if value.shape is None else [d if isinstance(d, int) else None for d in value.shape]
    if isinstance(given, str) and given.startswith("@"):
        given = _read(Path(given[1:]), what)
    elif isinstance(given, str):
        given = _parsed(given, what, declared)
    array = np.asarray(given)
    if array.size == 0:
        array = array.astype(dtype)
    if array.dtype.kind == "O":
        raise ModelError(f"{what} has values that are none of {dtype}", f"the input is of {dtype}")
    if array.dtype.kind not in "biuf" and array.dtype != dtype:
        raise ModelError(f"{what} is of {array.dtype}; the input is of {dtype}")
    with np.errstate(all="ignore"):
        fitted = array.astype(dtype)
    is_real = dtype.kind not in "biu"
    if array.dtype != dtype and (
        (array.dtype.kind == "f" and not is_real) or (not is_real and not np.array_equal(fitted, array))
    ):
        raise ModelError(f"{what} has values that are none of {dtype}", f"the input is of {dtype}")
    if declared is not None:
        fits = len(declared) == array.ndim and all(
            d is None or d == size for d, size in zip(declared, array.shape, strict=True)
        )
        if not fits:
            words = _sizes(["?" if d is None else d for d in declared])
            raise ModelError(f"{what} has the shape {_sizes(array.shape)}; the input has {words}")
    return fitted


def _read(path: Path, what: str) -> np.ndarray:
    from nncc.frontend.samples import load_arrays

    try:
        loaded = load_arrays(path)
    except Exception as error:  # of a damaged file, zipfile, zlib, lzma and tokenize raise their own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ModelError(f"{what}: `{path}` cannot be read as .npy: {reason}", "write it with `numpy.save`") from error
    if isinstance(loaded, dict):
        raise ModelError(f"{what}: `{path}` holds several arrays", "write one with `numpy.save`")
    return loaded


def _parsed(text: str, what: str, declared: Sequence[int | None] | None) -> np.ndarray:
    """``0,1`` as an array of the declared rank."""
    import numpy as np

    words = [word.strip() for word in text.strip().strip("[]()").split(",") if word.strip()]
    if all(word in ("true", "false") for word in words) and words:
        numbers = np.array([word == "true" for word in words])
    else:
        try:
            numbers = np.array([int(word) for word in words])
        except (ValueError, OverflowError):
            try:
                numbers = np.array([float(word) for word in words])
            except ValueError:
                raise ModelError(
                    f"{what}: `{text}` is no list of numbers",
                    "for example `--bind axes=0,1`, or `--bind axes=@FILE.npy`",
                ) from None
    if declared is None or len(declared) == 1:
        return numbers
    sizes = [d for d in declared if d is not None]
    if len(sizes) != len(declared) or prod(sizes) != numbers.size or prod(sizes) > LARGEST:
        return numbers  # the caller says what does not fit
    return numbers.reshape(sizes)


def _sources(value: onnx_ir.Value, seen: set[onnx_ir.Value]) -> set[onnx_ir.Value]:
    """The inputs of the model that `value` is computed from, but not those of which it takes the shape only.

    What is in `seen` has been followed before; it is added to.
    """
    found, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is None:
            found.add(value)
        elif node.op_type not in ("Shape", "Size"):
            waiting += [operand for operand in node.inputs if operand is not None]
            waiting += captured_values(list(subgraphs(node)))
    return found


def deciding_inputs(graph: onnx_ir.Model) -> tuple[str, ...]:
    """The inputs, in the model's order, that operands of `DECIDING` are computed from and that could be bound."""
    import onnx_ir

    main = graph.graph
    found: set[onnx_ir.Value] = set()
    seen: set[onnx_ir.Value] = set()
    for node in onnx_ir.traversal.RecursiveGraphIterator(main):
        for at in DECIDING.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ():
            operand = node.inputs[at] if at < len(node.inputs) else None
            if operand is not None:
                found |= _sources(operand, seen)
    return tuple(str(value.name) for value in main.inputs if value in found)


def bind_hint(graph: onnx_ir.Model, otherwise: str | None) -> str | None:
    """How to make constants of the inputs that decide a shape; `otherwise` where there is none."""
    names = deciding_inputs(graph)
    if not names:
        return otherwise
    flags = " ".join(f"--bind {name}=..." for name in names)
    it = "it is" if len(names) == 1 else "they are"
    return f"fix it with `{flags}`, if {it} the same in every run"
