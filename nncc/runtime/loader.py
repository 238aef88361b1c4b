"""Run compiled libraries from Python. Needs numpy and nothing else: neither TVM nor the compiler nor CUDA's."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.runtime.arrays import TensorInfo, checked_inputs, placed_outputs
from nncc.runtime.context import pointers
from nncc.runtime.device_arrays import stream_handle
from nncc.runtime.interpreter import Interpreter
from nncc.runtime.sizes import sizes_of

__all__ = ["Module", "TensorInfo", "load"]


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


class Module(Interpreter):
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
        arrays, results, given = self._arrays(inputs, outputs, handle)
        if handle is None:
            self._run(pointers(arrays), pointers(given))
        elif self._run_on and self._run_on(self._live(), pointers(arrays), pointers(given), handle):
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
        arrays, results, given = self._arrays(inputs)
        seconds = np.zeros(self._num_calls)
        pointer = seconds.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        if self._library.nncc_profile(self._live(), pointers(arrays), pointers(given), pointer):
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
        arrays, _, given = self._arrays(inputs, outputs)
        ins, outs = pointers(arrays), pointers(given)
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
        arrays, _, given = self._arrays(inputs)
        ins, outs = pointers(arrays), pointers(given)
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

    def _arrays(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, stream: int | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """The inputs in order, as the library takes them; the outputs as the caller gets them, and as the library does.

        The context takes the sizes that the inputs have for the runs to come.
        """
        taken, made = self.inputs, self.outputs
        if self.dims:
            taken, made = self._resize(sizes_of(self.inputs, self.dims, inputs, self._sizes))
        on_gpu = self._run_on is not None
        arrays = checked_inputs(taken, inputs, on_gpu, stream)
        return arrays, *placed_outputs(made, outputs or {}, on_gpu, stream)

    def _named(self, results: list[Any]) -> dict[str, Any]:
        if any(dim.from_data for dim in self.dims):
            results = [self._selected(number, array) for number, array in enumerate(results)]
        return {tensor.name: array for tensor, array in zip(self.outputs, results, strict=True)}
