"""Arrays in the memory of the fake GPU, as libraries such as cupy would make them; used in processes of fake_cuda."""

from __future__ import annotations

import ctypes

import numpy as np

driver = ctypes.CDLL("libcuda.so.1")
driver.fake_cuda_alive.restype = ctypes.c_char_p


def call(name: str, *arguments: object) -> None:
    failed = getattr(driver, name)(*arguments)
    if failed:
        raise RuntimeError(f"{name} failed: {failed}")


def make_current(ordinal: int = 0) -> ctypes.c_void_p:
    """The primary context of a device, current in this thread."""
    context = ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 10 + ordinal)
    call("cuCtxPushCurrent_v2", context)
    return context


def new_stream(flags: int = 1) -> int:
    stream = ctypes.c_void_p()
    call("cuStreamCreate", ctypes.byref(stream), flags)
    return stream.value or 0


class GpuArray:
    """A copy of `values`, `shift` bytes behind what an allocation begins with."""

    def __init__(self, values: np.ndarray, shift: int = 0, managed: bool = False) -> None:
        self.shape, self.dtype, self.nbytes = values.shape, values.dtype, values.nbytes
        address = ctypes.c_ulonglong()
        size = ctypes.c_size_t(values.nbytes + shift)
        if managed:
            call("cuMemAllocManaged", ctypes.byref(address), size, 1)
        else:
            call("cuMemAlloc_v2", ctypes.byref(address), size)
        self.base, self.pointer = address.value, address.value + shift
        self.set(values)

    def set(self, values: np.ndarray) -> None:
        dense = np.ascontiguousarray(values)
        call("cuMemcpyHtoD_v2", ctypes.c_ulonglong(self.pointer), ctypes.c_void_p(dense.ctypes.data), dense.nbytes)

    def get(self) -> np.ndarray:
        """After all that was enqueued anywhere."""
        values = np.empty(self.shape, self.dtype)
        call("cuMemcpyDtoH_v2", ctypes.c_void_p(values.ctypes.data), ctypes.c_ulonglong(self.pointer), values.nbytes)
        return values

    def free(self) -> None:
        call("cuMemFree_v2", ctypes.c_ulonglong(self.base))

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"version": 3, "typestr": self.dtype.str, "shape": self.shape, "data": (self.pointer, False)}
