"""Run compiled libraries from Python. Needs numpy and nothing else: neither TVM nor the compiler nor CUDA's."""

from __future__ import annotations

import _ctypes
import ctypes
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.runtime.arrays import TensorInfo, checked_inputs, placed_outputs
from nncc.runtime.device_arrays import DeviceArray, stream_handle
from nncc.runtime.library_file import check_file
from nncc.runtime.sizes import OpenDim, at_sizes, resized, sizes_of

__all__ = ["Module", "TensorInfo", "load"]

_ABI_VERSION = 3
_POINTERS = ctypes.POINTER(ctypes.c_void_p)
_Tensors = tuple[TensorInfo, ...]


class _Tensor(ctypes.Structure):
    """`nncc_tensor` of nncc.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_size_t),
        ("dims", ctypes.POINTER(ctypes.c_int32)),
    )


class _Dim(ctypes.Structure):
    """`nncc_dim` of nncc.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("low", ctypes.c_int64),
        ("high", ctypes.c_int64),
        ("from_data", ctypes.c_int32),
    )


class _Info(ctypes.Structure):
    """`nncc_info` of nncc.h."""

    _fields_ = (
        ("abi_version", ctypes.c_int32),
        ("num_inputs", ctypes.c_int32),
        ("num_outputs", ctypes.c_int32),
        ("num_calls", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("build", ctypes.c_char_p),
        ("compiler", ctypes.c_char_p),
        ("features", ctypes.c_char_p),
        ("inputs", ctypes.POINTER(_Tensor)),
        ("outputs", ctypes.POINTER(_Tensor)),
        ("call_names", ctypes.POINTER(ctypes.c_char_p)),
        ("call_flops", ctypes.POINTER(ctypes.c_double)),
        ("call_bytes", ctypes.POINTER(ctypes.c_double)),
        ("arena_bytes", ctypes.c_size_t),
        ("scratch_bytes", ctypes.c_size_t),
        ("weights_bytes", ctypes.c_size_t),
        ("num_dims", ctypes.c_int32),
        ("num_variants", ctypes.c_int32),
        ("dims", ctypes.POINTER(_Dim)),
        ("variants", ctypes.POINTER(ctypes.c_int64)),
    )


_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("nncc_describe", ctypes.POINTER(_Info), ()),
    ("nncc_create", ctypes.c_int, (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)),
    ("nncc_resize", ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))),
    ("nncc_output_shape", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))),
    ("nncc_run", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS)),
    ("nncc_profile", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS, ctypes.POINTER(ctypes.c_double))),
    ("nncc_destroy", None, (ctypes.c_void_p,)),
    ("nncc_last_error", ctypes.c_char_p, ()),
)
_RUN_ON = ("nncc_run_on", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS, ctypes.c_void_p))
"""What libraries for CUDA have besides."""
_COUNTERS = ctypes.POINTER(ctypes.c_uint64)
_ACCELERATOR: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("nncc_device_wanted", ctypes.c_char_p, ()),
    ("nncc_create_on", ctypes.c_int, (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_char_p)),
    ("nncc_device", ctypes.c_char_p, (ctypes.c_void_p,)),
    ("nncc_counters", ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), _COUNTERS, ctypes.c_int)),
    ("nncc_cycles", ctypes.c_int, (ctypes.c_void_p, _COUNTERS)),
)
"""What libraries for accelerators have besides."""
_MOST_COUNTERS = 256


def load(path: str | os.PathLike[str], threads: int = 1, device: str = "") -> Module:
    """Load a library that nncc compiled and make one context of it.

    Parameters
    ----------
    path : str or os.PathLike
        The ``.so`` (``.dylib``, ``.dll``).
    threads : int
        Threads of the context, the caller's included; 0 for one per processor. A library for CUDA uses none.
    device : str
        Of a library for an accelerator: the path of a driver's library, then ``:`` and what it is to open; by default
        what ``NNCC_ACCELERATOR`` in the environment says.

    Raises
    ------
    RunError
        The file is missing, is no nncc library, is compiled for another machine, or needs processor features that
        this one lacks; or memory, threads or the accelerator could not be had.
    """
    return Module(path, threads, device)


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a library says of itself, of which no context is made. Raises RunError as `load`."""
    with Module(path, None) as module:
        return module.description


class Module:
    """A loaded library with one context (arena and thread pool).

    It belongs to one thread at a time; several modules, also of one library, may run at once in several threads. It
    can be used in two ways: `run` and its relatives, or the calls of TensorFlow Lite's ``Interpreter``
    (`allocate_tensors`, `set_tensor`, `invoke`, `get_tensor` ...), whose indices are inputs first, then outputs.

    Attributes
    ----------
    path : str
    name, target : str
        Of the model, and what it was compiled for.
    inputs, outputs : tuple of TensorInfo
    dims : tuple of OpenDim
        The dimensions whose sizes each run may choose: those of its arrays.
    description : dict
        All that the library says of itself, as ``nncc-bench --describe`` prints it.
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
        for name, result, arguments in _FUNCTIONS:
            try:
                function = getattr(self._library, name)
            except AttributeError:
                raise RunError(f"{self.path} is not a library compiled by nncc: it has no function {name}") from None
            function.restype = result
            function.argtypes = arguments
        name, result, arguments = _RUN_ON
        self._run_on = getattr(self._library, name, None)
        if self._run_on is not None:
            self._run_on.restype, self._run_on.argtypes = result, arguments
        self._accelerated = hasattr(self._library, _ACCELERATOR[0][0])
        for name, result, arguments in _ACCELERATOR if self._accelerated else ():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        info = self._info = self._library.nncc_describe().contents
        if info.abi_version != _ABI_VERSION:
            raise RunError(
                f"{self.path} speaks version {info.abi_version} of the interface, this loader version {_ABI_VERSION}",
                "compile the model again, or load it with the nncc that compiled it",
            )
        self.name = info.name.decode()
        self.target = info.target.decode()
        self.inputs = tuple(_tensor(info.inputs[i]) for i in range(info.num_inputs))
        self.outputs = tuple(_tensor(info.outputs[i]) for i in range(info.num_outputs))
        dims = (info.dims[i] for i in range(info.num_dims))
        self.dims = tuple(OpenDim(dim.name.decode(), dim.low, dim.high, bool(dim.from_data)) for dim in dims)
        self._num_calls: int = info.num_calls
        self._buffers: list[np.ndarray] = []
        self._placed = self.inputs

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
            {"name": info.call_names[i].decode(), "flops": info.call_flops[i], "bytes": info.call_bytes[i]}
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
        } | ({"accelerator": self._accelerator()} if self._accelerated else {})

    def _accelerator(self) -> dict[str, Any]:
        import json

        return json.loads(self._library.nncc_device_wanted().decode())

    # -- the accelerator, where there is one

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

    # -- arrays in, arrays out

    def run(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, stream: Any = None
    ) -> dict[str, Any]:
        """One inference.

        Parameters
        ----------
        inputs : mapping of str to array
            Every input by name, with exactly its dtype and shape; nothing is cast. Arrays that are not contiguous are
            copied. A library for CUDA also takes arrays in the memory of its GPU that know DLPack or the CUDA array
            interface (torch, cupy, ...), and uses them where they are; these have to be contiguous.
        outputs : mapping of str to array, optional
            Where to write outputs, by name: contiguous arrays, of numpy or on the GPU.
        stream : optional
            Of CUDA, a handle or an object of torch, cupy or cuda.core: enqueue the inference there and return at once.
            All inputs and outputs are then arrays on the GPU, which the caller keeps until the stream has passed.

        Returns
        -------
        dict of str to array
            Every output by name: those of `outputs`, the others freshly allocated by numpy.

        Raises
        ------
        RunError
            The arrays do not fit (the message lists all that is wrong), a kernel failed, or the module is closed.
        """
        handle = None if stream is None else stream_handle(stream)
        if handle is not None and self._run_on is None:
            raise RunError("this library computes on the processor: it takes no stream")
        ins, outs = self._resized(inputs)
        arrays = checked_inputs(ins, inputs, self._run_on is not None, handle)
        results, given = placed_outputs(outs, outputs or {}, self._run_on is not None, handle)
        if handle is None:
            self._run(_pointers(arrays), _pointers(given))
        elif self._run_on and self._run_on(self._live(), _pointers(arrays), _pointers(given), handle):
            raise RunError(self._last_error())
        return self._named(results)

    def profile(self, inputs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """One inference and the seconds that each kernel call took, in the order of ``description["calls"]``.

        Returns
        -------
        outputs : dict of str to numpy.ndarray
        seconds : numpy.ndarray
            float64[number of calls].

        Raises
        ------
        RunError
            As for `run`.
        """
        ins, outs = self._resized(inputs)
        arrays = checked_inputs(ins, inputs, self._run_on is not None)
        results, given = placed_outputs(outs, {})
        seconds = np.zeros(self._num_calls)
        pointer = seconds.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        if self._library.nncc_profile(self._live(), _pointers(arrays), _pointers(given), pointer):
            raise RunError(self._last_error())
        return self._named(results), seconds

    def benchmark(
        self, inputs: Mapping[str, Any], repeat: int = 10, warmup: int = 1, outputs: Mapping[str, Any] | None = None
    ) -> list[float]:
        """Seconds of each of `repeat` inferences, after `warmup` that are not timed; all into the same outputs, which
        `outputs` may place as for `run`.

        Raises
        ------
        RunError
            As for `run`.
        """
        taken, made = self._resized(inputs)
        arrays = checked_inputs(taken, inputs, self._run_on is not None)
        _, given = placed_outputs(made, outputs or {}, self._run_on is not None)
        ins, outs = _pointers(arrays), _pointers(given)
        context, run, clock = self._live(), self._library.nncc_run, time.perf_counter
        for _ in range(warmup):
            self._run(ins, outs)
        seconds = []
        for _ in range(repeat):
            start = clock()
            failed = run(context, ins, outs)
            seconds.append(clock() - start)
            if failed:
                raise RunError(self._last_error())
        return seconds

    def profile_rounds(
        self, inputs: Mapping[str, Any], rounds: int, seconds: float = math.inf, warmup: int = 1, least: int = 3
    ) -> np.ndarray:
        """The seconds of each kernel call in each of at most `rounds` inferences, after `warmup` untimed ones.

        None is begun after `seconds`, but for the first `least`. All go into the same outputs.

        Returns
        -------
        numpy.ndarray
            float64[rounds done, number of calls].

        Raises
        ------
        RunError
            As for `run`.
        """
        taken, made = self._resized(inputs)
        arrays = checked_inputs(taken, inputs, self._run_on is not None)
        results = [tensor.empty() for tensor in made]
        ins, outs = _pointers(arrays), _pointers(results)
        context, profile, clock = self._live(), self._library.nncc_profile, time.perf_counter
        for _ in range(warmup):
            self._run(ins, outs)
        found = np.zeros((rounds, self._num_calls))
        kind, done, end = ctypes.POINTER(ctypes.c_double), 0, clock() + seconds
        while done < rounds and (done < least or clock() < end):
            if profile(context, ins, outs, found[done].ctypes.data_as(kind)):
                raise RunError(self._last_error())
            done += 1
        return found[:done]

    # -- the calls of TensorFlow Lite's Interpreter

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
        self._run(_pointers(self._buffers[:count]), _pointers(self._buffers[count:]))

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

    # -- the end

    def close(self) -> None:
        """Free arena, threads and library. Twice is once; what was read from the module stays valid."""
        context, self._context = self._context, None
        if context is not None:
            self._library.nncc_destroy(context)
        handle, self._handle = self._handle, 0
        if handle:
            getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")(handle)

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    def __repr__(self) -> str:
        return f"<nncc module {self.name} for {self.target}{'' if self._context else ', closed'}>"

    # -- inside

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

    def _resized(self, inputs: Mapping[str, Any]) -> tuple[_Tensors, _Tensors]:
        """Inputs and outputs at the sizes that the given inputs have, which the context takes for the runs to come."""
        if not self.dims:
            return self.inputs, self.outputs
        sizes = sizes_of(self.inputs, self.dims, inputs, self._sizes)
        if self._at_sizes is not None and self._at_sizes[0] == sizes:  # as the context has them already
            return self._at_sizes[1], self._at_sizes[2]
        return self._resize(sizes)

    def _resize(self, sizes: Sequence[int]) -> tuple[_Tensors, _Tensors]:
        if self._library.nncc_resize(self._live(), (ctypes.c_int64 * len(sizes))(*sizes)):
            raise RunError(self._last_error())
        self._sizes = tuple(sizes)
        made = []
        for number, tensor in enumerate(self.outputs):
            shape = (ctypes.c_int64 * len(tensor.shape))()
            if self._library.nncc_output_shape(self._live(), number, shape):
                raise RunError(self._last_error())
            made.append(resized(tensor, list(shape)))
        taken, given = at_sizes(self.inputs, sizes), tuple(made)
        self._at_sizes = self._sizes, taken, given
        return taken, given

    def _last_error(self) -> str:
        return self._library.nncc_last_error().decode(errors="replace")

    def _run(self, ins: Any, outs: Any) -> None:
        if self._library.nncc_run(self._live(), ins, outs):
            raise RunError(self._last_error())

    def _named(self, results: list[Any]) -> dict[str, Any]:
        if any(dim.from_data for dim in self.dims):
            results = [self._selected(number, array) for number, array in enumerate(results)]
        return {tensor.name: array for tensor, array in zip(self.outputs, results, strict=True)}

    def _selected(self, number: int, array: np.ndarray) -> np.ndarray:
        """What the last run has written of an output whose size it says itself."""
        shape = (ctypes.c_int64 * array.ndim)()
        if self._library.nncc_output_shape(self._live(), number, shape):
            raise RunError(self._last_error())
        return array.reshape(-1)[: math.prod(shape)].reshape(tuple(shape))


def _tensor(tensor: _Tensor) -> TensorInfo:
    shape = tuple(tensor.shape[: tensor.ndim])
    dims = tuple(tensor.dims[: tensor.ndim]) if tensor.dims else ()
    return TensorInfo(tensor.name.decode(), tensor.dtype.decode(), shape, tensor.nbytes, dims)


def _entry(tensor: TensorInfo) -> dict[str, Any]:
    entry = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "nbytes": tensor.nbytes}
    return entry | ({"dims": list(tensor.dims)} if tensor.dims else {})


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


def _pointers(arrays: Sequence[np.ndarray | DeviceArray]) -> Any:
    addresses = [
        array.pointer if isinstance(array, DeviceArray) else array.__array_interface__["data"][0] for array in arrays
    ]
    return (ctypes.c_void_p * len(arrays))(*addresses)
