"""The calls of TensorFlow Lite's ``Interpreter``, for programs that were written for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.runtime.arrays import TensorInfo
from nncc.runtime.context import Context, pointers
from nncc.runtime.sizes import sizes_of

__all__ = ["Interpreter"]


class Interpreter(Context):
    """A context that has its inputs and outputs itself; their indices are inputs first, then outputs."""

    def __init__(self, path: str | os.PathLike[str], threads: int | None = 1, device: str = "") -> None:
        super().__init__(path, threads, device)
        self._buffers: list[np.ndarray] = []
        self._placed = self.inputs

    def allocate_tensors(self) -> None:
        """Allocate what `set_tensor` and `get_tensor` copy to and from; inputs that are never set are zero."""
        self._live()
        if not self._buffers:
            taken, made = self._resize(self._sizes) if self.dims else (self.inputs, self.outputs)
            self._placed = taken
            self._buffers = [np.zeros(t.shape, t.numpy_dtype) for t in (*taken, *made)]

    def get_input_details(self) -> list[dict[str, Any]]:
        """One dict an input, with the keys of ``tf.lite.Interpreter.get_input_details``."""
        return [_details(tensor, index) for index, tensor in enumerate(self.inputs)]

    def get_output_details(self) -> list[dict[str, Any]]:
        """One dict an output, with the keys of ``tf.lite.Interpreter.get_output_details``."""
        return [_details(tensor, index) for index, tensor in enumerate(self.outputs, len(self.inputs))]

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int]) -> None:
        """Choose the sizes of the open dimensions that an input has; `allocate_tensors` comes afterwards.

        RunError if there is no such input, or it cannot have this shape.
        """
        if not 0 <= input_index < len(self.inputs):
            raise RunError(f"there is no input {input_index}; inputs are 0 to {len(self.inputs) - 1}")
        tensor = self.inputs[input_index]
        fixed = [size for n, size in zip(tensor.dims or (-1,) * len(tensor.shape), tensor.shape, strict=True) if n < 0]
        given = [int(size) for size in tensor_size]
        kept = [size for n, size in zip(tensor.dims or (-1,) * len(given), given, strict=False) if n < 0]
        if len(given) != len(tensor.shape) or kept != fixed:
            raise RunError(
                f"input `{tensor.name}` cannot have the shape {'x'.join(map(str, given))}, expected {tensor}"
            )
        if self.dims:
            named = {tensor.name: np.broadcast_to(np.int8(0), given)}
            self._sizes = sizes_of(self.inputs, self.dims, named, self._sizes)
        self._buffers = []

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """Copy `value` into an input. RunError if there is no such input, or its dtype or shape differs."""
        if not 0 <= tensor_index < len(self.inputs):
            raise RunError(f"there is no input {tensor_index}; inputs are 0 to {len(self.inputs) - 1}")
        self.allocate_tensors()
        tensor, array = self._placed[tensor_index], np.asarray(value)
        problem = tensor.problem(array)
        if problem:
            raise RunError(f"input `{tensor.name}` is {problem}")
        buffer = self._buffers[tensor_index]
        buffer[...] = array.view(buffer.dtype)

    def invoke(self) -> None:
        """Run on what `set_tensor` was given; RunError if a kernel fails."""
        self.allocate_tensors()
        count = len(self.inputs)
        self._run(pointers(self._buffers[:count]), pointers(self._buffers[count:]))

    def get_tensor(self, tensor_index: int) -> np.ndarray:
        """A copy of an input or output; RunError if there is none of this index."""
        count = len(self.inputs) + len(self.outputs)
        if not 0 <= tensor_index < count:
            raise RunError(f"there is no tensor {tensor_index}; tensors are 0 to {count - 1}")
        self.allocate_tensors()
        number = tensor_index - len(self.inputs)
        if number >= 0 and any(dim.from_data for dim in self.dims):
            return self._selected(number, self._buffers[tensor_index]).copy()
        return self._buffers[tensor_index].copy()


def _details(tensor: TensorInfo, index: int) -> dict[str, Any]:
    dims = tensor.dims or (-1,) * len(tensor.shape)
    nothing = {"scales": np.array([], np.float32), "zero_points": np.array([], np.int32), "quantized_dimension": 0}
    return {
        "name": tensor.name,
        "index": index,
        "shape": np.array(tensor.shape, np.int32),
        "shape_signature": np.array(
            [-1 if n >= 0 else size for n, size in zip(dims, tensor.shape, strict=True)], np.int32
        ),
        "dtype": tensor.numpy_dtype.type,
        "quantization": (0.0, 0),
        "quantization_parameters": nothing,
        "sparsity_parameters": {},
    }
