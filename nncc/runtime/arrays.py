"""What the inputs and outputs of a library are, and whether arrays can serve as them: words for people if not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.runtime.device_arrays import DeviceArray, device_array

__all__ = ["TensorInfo", "checked_inputs", "placed_outputs"]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: densely packed, row-major; elements of 8 and fewer bits are a byte each (see nncc.h).

    Attributes
    ----------
    name : str
    dtype : str
        numpy's word, or that of ml_dtypes: ``bfloat16``, ``float8_e4m3fn``, ``int4`` ...
    shape : tuple of int
        The largest, where there are open dimensions.
    nbytes : int
        Of that shape.
    dims : tuple of int
        Empty where all sizes are fixed; else by axis the number of the open dimension that its size is, -1 where it is
        fixed or computed from some.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    dims: tuple[int, ...] = ()

    def __str__(self) -> str:
        return _spelled(self.dtype, self.shape)

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """What an array of this tensor has: where numpy lacks the dtype, that of ml_dtypes, else unsigned integers."""
        try:
            return np.dtype(self.dtype)
        except TypeError:
            pass
        try:
            import ml_dtypes

            return np.dtype(getattr(ml_dtypes, self.dtype))
        except (ImportError, AttributeError, TypeError):
            return self.bits_dtype

    @cached_property
    def bits_dtype(self) -> np.dtype[Any]:
        """The unsigned integers that carry the bits of a dtype which numpy lacks, such as uint16 for bfloat16."""
        elements = int(np.prod(self.shape, dtype=np.int64))
        width = self.nbytes // elements if elements else 1
        if width not in (1, 2, 4, 8) or width * elements != self.nbytes:
            raise RunError(f"tensor `{self.name}` has dtype {self.dtype}, which no numpy array can hold")
        return np.dtype(f"uint{8 * width}")

    def empty(self) -> np.ndarray:
        """An array for it at a multiple of 64 bytes, as kernels find what other kernels have written."""
        memory = np.empty(self.nbytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + self.nbytes].view(self.numpy_dtype).reshape(self.shape)

    def problem(self, array: np.ndarray | DeviceArray) -> str | None:
        """Why `array` cannot serve as this tensor, e.g. ``float64[3], expected float32[4]``; None if it can."""
        own = self.numpy_dtype.isbuiltin == 1
        known = self.dtype if isinstance(array, DeviceArray) else self.numpy_dtype
        fits = array.dtype == known or (not own and array.dtype == self.bits_dtype)
        if fits and array.shape == self.shape:
            return None
        return f"{_spelled(str(array.dtype), array.shape)}, expected {self}"


def checked_inputs(
    tensors: Sequence[TensorInfo], inputs: Mapping[str, Any], on_gpu: bool = False, stream: int | None = None
) -> list[np.ndarray | DeviceArray]:
    """The inputs in the order of `tensors` and contiguous.

    `on_gpu` says whether the library computes on a GPU, and takes arrays there; with a `stream` it takes no others.
    Raises one RunError with everything that is wrong.
    """
    arrays: list[np.ndarray | DeviceArray] = []
    problems = []
    for tensor in tensors:
        if tensor.name not in inputs:
            problems.append(f"input `{tensor.name}` is missing, expected {tensor}")
            continue
        try:
            array = _memory(inputs[tensor.name], on_gpu, stream)
        except RunError as error:
            problems.append(f"input `{tensor.name}` {error}")
            continue
        problem = tensor.problem(array)
        if problem:
            problems.append(f"input `{tensor.name}` is {problem}")
        dense = isinstance(array, DeviceArray) or array.flags.c_contiguous
        arrays.append(array if dense else np.ascontiguousarray(array))
    problems += _strangers("input", tensors, inputs)
    if problems:
        raise RunError("\n".join(problems))
    return arrays


def placed_outputs(
    tensors: Sequence[TensorInfo], outputs: Mapping[str, Any], on_gpu: bool = False, stream: int | None = None
) -> tuple[list[Any], list[np.ndarray | DeviceArray]]:
    """The outputs in order, those of the caller or fresh ones of numpy: as the caller knows them, and as memory.

    `on_gpu`, `stream` and errors as for `checked_inputs`.
    """
    results: list[Any] = []
    memory: list[np.ndarray | DeviceArray] = []
    problems = []
    for tensor in tensors:
        if tensor.name not in outputs:
            if stream is not None:
                problems.append(f"output `{tensor.name}` is missing, expected {tensor} on the GPU")
            results.append(np.empty(tensor.shape, tensor.numpy_dtype))
            memory.append(results[-1])
            continue
        value = outputs[tensor.name]
        try:
            array = _memory(value, on_gpu, stream)
        except RunError as error:
            problems.append(f"output `{tensor.name}` {error}")
            continue
        problem = tensor.problem(array)
        if problem:
            problems.append(f"output `{tensor.name}` is {problem}")
        elif isinstance(array, np.ndarray) and array is not value:
            problems.append(f"output `{tensor.name}` is neither an array of numpy nor one on a GPU")
        elif isinstance(array, np.ndarray) and not array.flags.c_contiguous:
            problems.append(f"output `{tensor.name}` is not contiguous")
        elif isinstance(array, np.ndarray) and not array.flags.writeable:
            problems.append(f"output `{tensor.name}` cannot be written to")
        results.append(value)
        memory.append(array)
    problems += _strangers("output", tensors, outputs)
    if problems:
        raise RunError("\n".join(problems))
    return results, memory


def _memory(value: Any, on_gpu: bool, stream: int | None) -> np.ndarray | DeviceArray:
    """`value` as memory; RunError, which goes on "input `x` ...", if it cannot be used with this library."""
    array = device_array(value, stream)
    if array is not None:
        if not on_gpu:
            raise RunError("is in the memory of a GPU; this library computes on the processor")
        return array
    if stream is not None:
        raise RunError("is in the memory of the processor; with `stream`, all arrays are on the GPU")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise RunError(f"is no array: {error}") from error


def _strangers(role: str, tensors: Sequence[TensorInfo], given: Mapping[str, Any]) -> list[str]:
    known = {tensor.name for tensor in tensors}
    strangers = [name for name in given if name not in known]
    if not strangers:
        return []
    expected = ", ".join(f"`{tensor.name}`" for tensor in tensors) or "none"
    return [f"there is no {role} `{name}`; the model's are {expected}" for name in strangers]


def _spelled(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{'x'.join(map(str, shape))}]"
