"""A loaded library and one context of it: what it says of itself, its sizes, and single calls of its C interface."""

from __future__ import annotations

import _ctypes
import ctypes
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from nncc.errors import RunError
from nncc.runtime.arrays import TensorInfo
from nncc.runtime.c_interface import ABI_VERSION, ACCELERATOR, COUNTS, CUDA, FUNCTIONS, Tensor, declare
from nncc.runtime.device_arrays import DeviceArray
from nncc.runtime.library_file import check_file
from nncc.runtime.sizes import OpenDim, at_sizes, resized

__all__ = ["Context", "pointers"]

_MOST_COUNTERS = 256
_Self = TypeVar("_Self", bound="Context")
_Tensors = tuple[TensorInfo, ...]


class Context:
    """A library, and unless `threads` is None one context of it: arena and thread pool.

    What `nncc.runtime.loader.load` returns is one, with the calls for arrays besides.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = 1, device: str = "") -> None:
        self._context: ctypes.c_void_p | None = None
        self._handle = 0
        self.path = os.fspath(path)
        check_file(self.path)
        try:
            self._library = ctypes.CDLL(os.path.abspath(self.path))
        except OSError as error:
            raise RunError(f"{self.path} cannot be loaded: {error}") from error
        self._handle = self._library._handle
        try:
            self._open()
            if threads is not None:
                self._create(threads, device)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if missing := declare(self._library, FUNCTIONS):
            raise RunError(f"{self.path} is not a library compiled by nncc: it has no function {missing[0]}")
        self._run_on = None if declare(self._library, CUDA) else self._library.nncc_run_on
        self._accelerated = not declare(self._library, ACCELERATOR)
        info = self._info = self._library.nncc_describe().contents
        if info.abi_version != ABI_VERSION:
            raise RunError(
                f"{self.path} speaks version {info.abi_version} of the interface, this loader version {ABI_VERSION}",
                "compile the model again, or load it with the nncc that compiled it",
            )
        self.name = info.name.decode()
        self.target = info.target.decode()
        self.inputs = tuple(_tensor(info.inputs[i]) for i in range(info.num_inputs))
        self.outputs = tuple(_tensor(info.outputs[i]) for i in range(info.num_outputs))
        dims = (info.dims[i] for i in range(info.num_dims))
        self.dims = tuple(OpenDim(dim.name.decode(), dim.low, dim.high, bool(dim.from_data)) for dim in dims)
        self._num_calls: int = info.num_calls

    def _create(self, threads: int, device: str) -> None:
        if device and not self._accelerated:
            raise RunError(
                f"{self.path} is for {self.target}, which has no accelerator: it takes no device",
                "leave the device out, or compile the model for a target with an accelerator",
            )
        context = ctypes.c_void_p()
        if self._accelerated and device:
            failed = self._library.nncc_create_on(ctypes.byref(context), threads, os.fsencode(device))
        else:
            failed = self._library.nncc_create(ctypes.byref(context), threads)
        if failed:
            raise RunError(f"{self.path}: {self._last_error()}")
        self._context = context
        self._sizes = self._first_sizes()
        self._at_sizes: tuple[tuple[int, ...], _Tensors, _Tensors] | None = None

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the library says of itself: tensors, calls, sizes in bytes, the features it needs, what made it."""
        if not self._handle:
            raise RunError(f"{self.path}: the module is closed")
        info = self._info
        calls = [
            {"name": info.call_names[i].decode()} | {word: getattr(info, f"call_{word}")[i] for word in COUNTS}
            for i in range(self._num_calls)
        ]
        return {
            "abi_version": info.abi_version,
            "name": self.name,
            "target": self.target,
            "build": info.build.decode(),
            "compiler": info.compiler.decode(),
            "features": [word for word in info.features.decode().split(",") if word],
            "inputs": [_entry(tensor) for tensor in self.inputs],
            "outputs": [_entry(tensor) for tensor in self.outputs],
            "arena_bytes": info.arena_bytes,
            "scratch_bytes": info.scratch_bytes,
            "weights_bytes": info.weights_bytes,
            "dims": [asdict(dim) for dim in self.dims],
            "variants": [list(sizes) for sizes in self._variants()],
            "calls": calls,
        } | ({"accelerator": json.loads(self._library.nncc_device_wanted().decode())} if self._accelerated else {})

    @property
    def device(self) -> str:
        """What the driver says of the accelerator; empty for a library without one."""
        return self._library.nncc_device(self._live()).decode(errors="replace") if self._accelerated else ""

    def counters(self) -> dict[str, int]:
        """The accelerator's counters over the last inference, by name; none for a library without one."""
        if not self._accelerated:
            return {}
        names, values = (ctypes.c_char_p * _MOST_COUNTERS)(), (ctypes.c_uint64 * _MOST_COUNTERS)()
        count = self._library.nncc_counters(self._live(), names, values, _MOST_COUNTERS)
        return {(names[i] or b"").decode(): values[i] for i in range(count)}

    def cycles(self) -> list[int]:
        """The accelerator's cycles for each call of the last inference, in the order of ``description["calls"]``; 0
        for those on the host. RunError where the driver cannot tell."""
        values = (ctypes.c_uint64 * max(1, self._num_calls))()
        if self._accelerated and self._library.nncc_cycles(self._live(), values):
            raise RunError(self._last_error())
        return list(values[: self._num_calls])

    def close(self) -> None:
        """Free arena, threads and library. Twice is once; what was read from the module stays valid."""
        context, self._context = self._context, None
        if context is not None:
            self._library.nncc_destroy(context)
        handle, self._handle = self._handle, 0
        if handle:
            getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")(handle)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    def __repr__(self) -> str:
        return f"<nncc module {self.name} for {self.target}{'' if self._context else ', closed'}>"

    def _live(self) -> ctypes.c_void_p:
        if self._context is None:
            raise RunError(f"{self.path}: the module is closed")
        return self._context

    def _first_sizes(self) -> tuple[int, ...]:
        """Those that a context begins with."""
        highest = tuple(dim.high for dim in self.dims)
        anything = (0,) * len(highest)
        variants = self._variants()
        return variants[-1] if variants and not {highest, anything} & set(variants) else highest

    def _variants(self) -> list[tuple[int, ...]]:
        """The sizes of each; 0 is for any."""
        count, info = len(self.dims), self._info
        return [tuple(info.variants[i * count : (i + 1) * count]) for i in range(info.num_variants)]

    def _resize(self, sizes: Sequence[int]) -> tuple[_Tensors, _Tensors]:
        """Inputs and outputs at these sizes, which the context takes for the runs to come."""
        if self._at_sizes is not None and self._at_sizes[0] == tuple(sizes):  # as the context has them already
            return self._at_sizes[1], self._at_sizes[2]
        if self._library.nncc_resize(self._live(), (ctypes.c_int64 * len(sizes))(*sizes)):
            raise RunError(self._last_error())
        self._sizes = tuple(sizes)
        taken = at_sizes(self.inputs, sizes)
        made = tuple(resized(tensor, self._output_shape(number)) for number, tensor in enumerate(self.outputs))
        self._at_sizes = self._sizes, taken, made
        return taken, made

    def _output_shape(self, number: int) -> tuple[int, ...]:
        """That of an output at the sizes of the context, or where a run says a size itself, as the last one did."""
        shape = (ctypes.c_int64 * len(self.outputs[number].shape))()
        if self._library.nncc_output_shape(self._live(), number, shape):
            raise RunError(self._last_error())
        return tuple(shape)

    def _last_error(self) -> str:
        return self._library.nncc_last_error().decode(errors="replace")

    def _run(self, ins: Any, outs: Any) -> None:
        if self._library.nncc_run(self._live(), ins, outs):
            raise RunError(self._last_error())

    def _selected(self, number: int, array: np.ndarray) -> np.ndarray:
        """What the last run has written of an output whose size it says itself."""
        shape = self._output_shape(number)
        return array.reshape(-1)[: math.prod(shape)].reshape(shape)


def pointers(arrays: Sequence[np.ndarray | DeviceArray]) -> Any:
    """The addresses of arrays as a C array."""
    addresses = [
        array.pointer if isinstance(array, DeviceArray) else array.__array_interface__["data"][0] for array in arrays
    ]
    return (ctypes.c_void_p * len(arrays))(*addresses)


def _tensor(tensor: Tensor) -> TensorInfo:
    shape = tuple(tensor.shape[: tensor.ndim])
    dims = tuple(tensor.dims[: tensor.ndim]) if tensor.dims else ()
    return TensorInfo(tensor.name.decode(), tensor.dtype.decode(), shape, tensor.nbytes, dims)


def _entry(tensor: TensorInfo) -> dict[str, Any]:
    entry = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "nbytes": tensor.nbytes}
    return entry | ({"dims": list(tensor.dims)} if tensor.dims else {})
