"""Run compiled libraries from Python. Needs numpy and nothing else: neither TVM nor the compiler nor CUDA's."""

from __future__ import annotations

import _ctypes
import ctypes
import math
import mmap
import os
import platform
import re
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.runtime.device_arrays import DeviceArray, device_array, stream_handle

__all__ = ["Module", "TensorInfo", "load"]

_ABI_VERSION = 2
_POINTERS = ctypes.POINTER(ctypes.c_void_p)


class _Tensor(ctypes.Structure):
    """`nncc_tensor` of nncc.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_size_t),
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
    )


_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("nncc_describe", ctypes.POINTER(_Info), ()),
    ("nncc_create", ctypes.c_int, (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)),
    ("nncc_run", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS)),
    ("nncc_profile", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS, ctypes.POINTER(ctypes.c_double))),
    ("nncc_destroy", None, (ctypes.c_void_p,)),
    ("nncc_last_error", ctypes.c_char_p, ()),
)
_RUN_ON = ("nncc_run_on", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS, ctypes.c_void_p))
"""What libraries for CUDA have besides."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: densely packed, row-major.

    Attributes
    ----------
    name : str
    dtype : str
        numpy's word, or ``bfloat16``.
    shape : tuple of int
    nbytes : int
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

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
        known = (self.dtype,) if isinstance(array, DeviceArray) else (self.numpy_dtype,)
        fits = array.dtype in known or (not own and array.dtype == self.bits_dtype)
        if fits and array.shape == self.shape:
            return None
        return f"{_spelled(str(array.dtype), array.shape)}, expected {self}"


def load(path: str | os.PathLike[str], threads: int = 1) -> Module:
    """Load a library that nncc compiled and make one context of it.

    Parameters
    ----------
    path : str or os.PathLike
        The ``.so`` (``.dylib``, ``.dll``).
    threads : int
        Threads of the context, the caller's included; 0 for one per processor. A library for CUDA uses none.

    Raises
    ------
    RunError
        The file is missing, is no nncc library, is compiled for another machine, or needs processor features that
        this one lacks; or memory or threads could not be had.
    """
    return Module(path, threads)


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
    description : dict
        All that the library says of itself, as ``nncc-bench --describe`` prints it.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        self._context: ctypes.c_void_p | None = None
        self._handle = 0
        self.path = os.fspath(path)
        _check_file(self.path)
        try:
            self._library = ctypes.CDLL(os.path.abspath(self.path))
        except OSError as error:
            raise RunError(f"{self.path} cannot be loaded: {error}") from error
        self._handle = self._library._handle
        try:
            self._open(threads)
        except BaseException:
            self.close()
            raise

    def _open(self, threads: int) -> None:
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
        self._num_calls: int = info.num_calls
        self._buffers: list[np.ndarray] = []
        context = ctypes.c_void_p()
        if self._library.nncc_create(ctypes.byref(context), threads):
            raise RunError(f"{self.path}: {self._last_error()}")
        self._context = context

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the library says of itself: tensors, calls, sizes in bytes, the features it needs, what made it."""
        self._live()
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
            "calls": calls,
        }

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
        arrays = self._checked(inputs, handle)
        results, given = self._placed(outputs or {}, handle)
        if handle is None:
            self._run(_pointers(arrays), _pointers(given))
        elif self._run_on and self._run_on(self._live(), _pointers(arrays), _pointers(given), handle):
            raise RunError(self._last_error())
        return {tensor.name: array for tensor, array in zip(self.outputs, results, strict=True)}

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
        arrays = self._checked(inputs)
        results = self._empty_outputs()
        seconds = np.zeros(self._num_calls)
        pointer = seconds.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        if self._library.nncc_profile(self._live(), _pointers(arrays), _pointers(results), pointer):
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
        arrays = self._checked(inputs)
        _, given = self._placed(outputs or {})
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
        arrays = self._checked(inputs)
        results = [tensor.empty() for tensor in self.outputs]
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
            self._buffers = [np.zeros(t.shape, t.numpy_dtype) for t in (*self.inputs, *self.outputs)]

    def get_input_details(self) -> list[dict[str, Any]]:
        """One dict an input, with the keys of ``tf.lite.Interpreter.get_input_details``."""
        return [_details(tensor, index) for index, tensor in enumerate(self.inputs)]

    def get_output_details(self) -> list[dict[str, Any]]:
        """One dict an output, with the keys of ``tf.lite.Interpreter.get_output_details``."""
        return [_details(tensor, index) for index, tensor in enumerate(self.outputs, len(self.inputs))]

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """Copy `value` into an input. RunError if there is no such input, or its dtype or shape differs."""
        if not 0 <= tensor_index < len(self.inputs):
            raise RunError(f"there is no input {tensor_index}; inputs are 0 to {len(self.inputs) - 1}")
        self.allocate_tensors()
        tensor, array = self.inputs[tensor_index], np.asarray(value)
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

    def _last_error(self) -> str:
        return self._library.nncc_last_error().decode(errors="replace")

    def _run(self, ins: Any, outs: Any) -> None:
        if self._library.nncc_run(self._live(), ins, outs):
            raise RunError(self._last_error())

    def _empty_outputs(self) -> list[np.ndarray]:
        return [np.empty(tensor.shape, tensor.numpy_dtype) for tensor in self.outputs]

    def _named(self, results: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {tensor.name: array for tensor, array in zip(self.outputs, results, strict=True)}

    def _checked(self, inputs: Mapping[str, Any], stream: int | None = None) -> list[np.ndarray | DeviceArray]:
        """The inputs in order and contiguous, or one error with everything that is wrong with them."""
        arrays: list[np.ndarray | DeviceArray] = []
        problems = []
        for tensor in self.inputs:
            if tensor.name not in inputs:
                problems.append(f"input `{tensor.name}` is missing, expected {tensor}")
                continue
            try:
                array = self._array(inputs[tensor.name], stream)
            except RunError as error:
                problems.append(f"input `{tensor.name}` {error}")
                continue
            problem = tensor.problem(array)
            if problem:
                problems.append(f"input `{tensor.name}` is {problem}")
            dense = isinstance(array, DeviceArray) or array.flags.c_contiguous
            arrays.append(array if dense else np.ascontiguousarray(array))
        known = {tensor.name for tensor in self.inputs}
        expected = ", ".join(f"`{tensor.name}`" for tensor in self.inputs) or "none"
        problems += [f"there is no input `{name}`; the model's are {expected}" for name in inputs if name not in known]
        if problems:
            raise RunError("\n".join(problems))
        return arrays

    def _placed(
        self, outputs: Mapping[str, Any], stream: int | None = None
    ) -> tuple[list[Any], list[np.ndarray | DeviceArray]]:
        """The outputs in order, the caller's or fresh ones, as the caller knows them and as memory; or one error."""
        results: list[Any] = []
        memory: list[np.ndarray | DeviceArray] = []
        problems = []
        for tensor in self.outputs:
            if tensor.name not in outputs:
                if stream is not None:
                    problems.append(f"output `{tensor.name}` is missing, expected {tensor} on the GPU")
                results.append(np.empty(tensor.shape, tensor.numpy_dtype))
                memory.append(results[-1])
                continue
            try:
                array = self._array(outputs[tensor.name], stream, "output")
            except RunError as error:
                problems.append(f"output `{tensor.name}` {error}")
                continue
            problem = tensor.problem(array)
            if problem:
                problems.append(f"output `{tensor.name}` is {problem}")
            elif isinstance(array, np.ndarray) and not array.flags.c_contiguous:
                problems.append(f"output `{tensor.name}` is not contiguous")
            elif isinstance(array, np.ndarray) and not array.flags.writeable:
                problems.append(f"output `{tensor.name}` cannot be written to")
            results.append(outputs[tensor.name])
            memory.append(array)
        known = {tensor.name for tensor in self.outputs}
        expected = ", ".join(f"`{tensor.name}`" for tensor in self.outputs) or "none"
        problems += [
            f"there is no output `{name}`; the model's are {expected}" for name in outputs if name not in known
        ]
        if problems:
            raise RunError("\n".join(problems))
        return results, memory

    def _array(self, value: Any, stream: int | None, role: str = "input") -> np.ndarray | DeviceArray:
        """`value` as memory; RunError, which goes on "input `x` ...", if it cannot be used with this library."""
        array = device_array(value, stream)
        if array is not None:
            if self._run_on is None:
                raise RunError("is in the memory of a GPU; this library computes on the processor")
            return array
        if stream is not None:
            raise RunError("is in the memory of the processor; with `stream`, all arrays are on the GPU")
        if role == "output" and not isinstance(value, np.ndarray):
            raise RunError("is neither an array of numpy nor one on a GPU")
        try:
            return np.asarray(value)
        except ValueError as error:
            raise RunError(f"is no array: {error}") from error


def _tensor(tensor: _Tensor) -> TensorInfo:
    return TensorInfo(tensor.name.decode(), tensor.dtype.decode(), tuple(tensor.shape[: tensor.ndim]), tensor.nbytes)


def _entry(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "nbytes": tensor.nbytes}


def _details(tensor: TensorInfo, index: int) -> dict[str, Any]:
    nothing = {"scales": np.array([], np.float32), "zero_points": np.array([], np.int32), "quantized_dimension": 0}
    return {
        "name": tensor.name,
        "index": index,
        "shape": np.array(tensor.shape, np.int32),
        "shape_signature": np.array(tensor.shape, np.int32),
        "dtype": tensor.numpy_dtype.type,
        "quantization": (0.0, 0),
        "quantization_parameters": nothing,
        "sparsity_parameters": {},
    }


def _spelled(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{'x'.join(map(str, shape))}]"


def _pointers(arrays: Sequence[np.ndarray | DeviceArray]) -> Any:
    addresses = [array.pointer if isinstance(array, DeviceArray) else array.ctypes.data for array in arrays]
    return (ctypes.c_void_p * len(arrays))(*addresses)


# -- which machine a file is for, told from its first bytes: dlopen's own words for it help nobody

_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_MACH_MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_PE_MACHINES = {0x014C: "i686", 0x8664: "x86_64", 0xAA64: "aarch64"}
_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def _this_machine() -> str:
    """The machine this process runs as, which may be narrower than the kernel's."""
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if struct.calcsize("P") == 4:
        machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    return "armv7l" if machine.startswith("arm") else machine


def _file_machine(head: bytes) -> tuple[str, str] | None:
    """The machine and the system of a shared library, or None where `head` does not begin one."""
    if head[:4] == b"\x7fELF" and len(head) >= 20:
        order = "<" if head[5] == 1 else ">"
        kind, machine = struct.unpack_from(order + "HH", head, 16)
        return (_ELF_MACHINES.get(machine, f"ELF machine {machine}"), "Linux") if kind == 3 else None
    if head[:4] == b"\xcf\xfa\xed\xfe" and len(head) >= 8:
        machine = struct.unpack_from("<I", head, 4)[0]
        return _MACH_MACHINES.get(machine, f"Mach-O machine {machine:#x}"), "macOS"
    if head[:2] == b"MZ" and len(head) >= 64:
        at = struct.unpack_from("<I", head, 60)[0]
        if head[at : at + 4] == b"PE\0\0" and len(head) >= at + 6:
            machine = struct.unpack_from("<H", head, at + 4)[0]
            return _PE_MACHINES.get(machine, f"PE machine {machine:#x}"), "Windows"
    return None


def _elf_size(head: bytes) -> int:
    """The least size in bytes of an ELF file, from its program headers; 0 for other files."""
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return 0
    order, wide = "<" if head[5] == 1 else ">", head[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    entry, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    word, offset_at, size_at = ("Q", 8, 32) if wide else ("I", 4, 16)
    ends = [0]
    for at in range(table, min(table + entry * count, len(head) - size_at - 8), max(entry, 1)):
        (offset,) = struct.unpack_from(order + word, head, at + offset_at)
        (size,) = struct.unpack_from(order + word, head, at + size_at)
        ends.append(offset + size)
    return max(ends)


def _target_of(path: str) -> str | None:
    """The name of the target, which runtime.c leaves in the file after a mark."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        found = re.search(rb"nncc-target:([^\0]{1,80})\0", contents)
        return found[1].decode(errors="replace") if found else None


def _check_file(path: str) -> None:
    """RunError unless `path` is a shared library for this machine."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise RunError(f"{path} does not exist", "compile a model first: `nncc compile model.onnx`") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    found = _file_machine(head)
    if found is None:
        raise RunError(f"{path} is not a shared library")
    machine, system = found
    here = (_this_machine(), _SYSTEMS.get(sys.platform, "Linux"))
    if found != here:
        name = _target_of(path)
        there = machine if system == here[1] else f"{machine} {system}"
        raise RunError(
            f"{path} is compiled for {there}{f' ({name})' if name else ''}; "
            f"this machine is {here[0] if system == here[1] else ' '.join(here)}",
            "run it with `nncc run`, which uses an emulator where one is installed, or copy it to the board",
        )
    if size < _elf_size(head):  # dlopen would map pages that are not there, and kill the process by SIGBUS
        raise RunError(f"{path} is cut short: it has {size} bytes of at least {_elf_size(head)}", "copy it again")
