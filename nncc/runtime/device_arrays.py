"""Arrays in the memory of a GPU, whoever made them: by DLPack, else by Numba's CUDA array interface.

Only pointers are read: neither needs the library that made the array, nor CUDA.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.errors import RunError

__all__ = ["DeviceArray", "device_array", "stream_handle"]

_ON_HOST = (1, 3)
"""kDLCPU and kDLCUDAHost of dlpack.h."""
_ON_CUDA = (2, 13)
"""kDLCUDA and kDLCUDAManaged."""
_DEVICES = {4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 14: "oneAPI", 15: "WebGPU", 16: "Hexagon"}
_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
_LEGACY_STREAM = 1
"""CU_STREAM_LEGACY, and DLPack's word for it."""


class _DLTensor(ctypes.Structure):
    """`DLTensor` of dlpack.h, which `DLManagedTensor` begins with."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class DeviceArray:
    """A dense array in the memory of a GPU."""

    pointer: int
    dtype: str
    """numpy's word, or ``bfloat16``."""
    shape: tuple[int, ...]
    device: int
    """The GPU's number; -1 where the array does not say."""
    owner: Any
    """What keeps the memory."""


def device_array(value: Any, stream: int | None = None) -> DeviceArray | None:
    """`value` as an array on a GPU, ready for what comes in `stream`; None if it is in the memory of the processor.

    `stream` is a handle of CUDA; None stands for the legacy default stream, which comes before all that blocking
    streams do later. Raises RunError with a text that goes on "input `x` ...": the array is not contiguous, is on
    something that is no GPU of CUDA, or cannot be had.
    """
    if isinstance(value, np.ndarray):
        return None
    wanted = stream or _LEGACY_STREAM
    if hasattr(value, "__dlpack_device__"):
        kind, number = value.__dlpack_device__()
        if int(kind) in _ON_HOST:
            return None
        if int(kind) not in _ON_CUDA:
            where = _DEVICES.get(int(kind), f"kind {int(kind)}")
            raise RunError(f"is on a device of {where}; expected one of CUDA, or numpy")
        return _from_dlpack(value, int(number), wanted)
    if hasattr(value, "__cuda_array_interface__"):
        return _from_interface(value, wanted)
    return None


def stream_handle(stream: Any) -> int:
    """The CUstream of a number or of a stream of cuda.core, torch or cupy; RunError if `stream` is none of these."""
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    if isinstance(stream, int):
        return stream
    raise RunError(f"`{stream!r}` is no stream of CUDA", "give its handle, a number")


def _from_dlpack(value: Any, number: int, stream: int) -> DeviceArray:
    try:
        capsule = value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"cannot be had by DLPack: {error}") from error
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = get_pointer(capsule, b"dltensor")  # not renamed: who made it frees it, when the capsule goes
    tensor = ctypes.cast(address, ctypes.POINTER(_DLTensor)).contents
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    if tensor.lanes != 1:
        raise RunError(f"has elements of {tensor.lanes} numbers; expected one")
    if strides is not None:
        _check_dense(shape, strides, 1)
    word = _CODES.get(tensor.code, f"kind{tensor.code}_")
    dtype = word if word == "bool" else f"{word}{tensor.bits}"
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, dtype, shape, number, (value, capsule))


def _from_interface(value: Any, stream: int) -> DeviceArray:
    interface = value.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    shape = tuple(interface["shape"])
    if interface.get("strides") is not None:
        _check_dense(shape, tuple(interface["strides"]), dtype.itemsize)
    if interface.get("stream") not in (None, _LEGACY_STREAM, stream):
        raise RunError("comes from another stream", "synchronize that stream, or run in it: `stream=`")
    return DeviceArray(interface["data"][0], str(dtype), shape, -1, value)


def _check_dense(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> None:
    """RunError unless `strides` are those of rows one after the other; those of a single step do not matter."""
    if 0 in shape:
        return
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            raise RunError("is not contiguous, and memory of a GPU is not copied", "make it contiguous")
        step *= size
