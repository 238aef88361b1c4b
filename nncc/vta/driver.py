"""Devices from Python, through the interface of ``nncc/runtime/accelerator.h``: the simulator, boards."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from nncc.errors import RunError

__all__ = ["Device", "Driver", "Information", "Region"]

_ABI = 1
_MEMORIES = 8
_POINTER = ctypes.c_void_p


class _Info(ctypes.Structure):
    _fields_ = (
        ("isa_hash", ctypes.c_char_p),
        ("configuration", ctypes.c_char_p),
        ("memory", ctypes.c_char_p),
        ("clock_mhz", ctypes.c_uint32),
    )


def _function(result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)


_UINTS = ctypes.POINTER(ctypes.c_uint64)


class _Table(ctypes.Structure):
    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("open", _function(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_POINTER))),
        ("close", _function(None, _POINTER)),
        ("info", _function(ctypes.c_int, _POINTER, ctypes.POINTER(_Info))),
        ("alloc", _function(ctypes.c_int, _POINTER, ctypes.c_uint64, ctypes.POINTER(_POINTER), _UINTS)),
        ("free", _function(ctypes.c_int, _POINTER, ctypes.c_uint64)),
        ("write", _function(ctypes.c_int, _POINTER, ctypes.c_uint64, _POINTER, ctypes.c_uint64)),
        ("read", _function(ctypes.c_int, _POINTER, ctypes.c_uint64, _POINTER, ctypes.c_uint64)),
        ("submit", _function(ctypes.c_int, _POINTER, ctypes.c_uint64, ctypes.c_uint32, _UINTS)),
        ("wait", _function(ctypes.c_int, _POINTER, ctypes.c_double)),
        (
            "counters",
            _function(
                ctypes.c_int,
                _POINTER,
                ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)),
                ctypes.POINTER(_UINTS),
                ctypes.POINTER(ctypes.c_uint32),
            ),
        ),
        (
            "profile",
            _function(ctypes.c_int, _POINTER, ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32, _UINTS),
        ),
        ("error", _function(ctypes.c_char_p, _POINTER)),
    )


@dataclass(frozen=True)
class Information:
    """What a device says of itself."""

    isa_hash: str
    configuration: str
    memory: str
    """The DRAM that its cycles are told for."""
    clock_mhz: int


@dataclass(frozen=True, eq=False)
class Region:
    """Memory of a device: `data`, uint8 [size], is that very memory; it goes with the device."""

    address: int
    data: np.ndarray


class Driver:
    """A driver's library. Raises RunError if it cannot be loaded, or is none."""

    def __init__(self, library: Path) -> None:
        self.library = library
        try:
            self._loaded = ctypes.CDLL(str(library))
            self.table = _Table.in_dll(self._loaded, "nncc_accelerator_driver")
        except (OSError, ValueError) as error:
            raise RunError(f"`{library}` is no driver of an accelerator: {error}") from error
        if self.table.abi != _ABI:
            message = f"`{library}` has version {self.table.abi} of the driver's interface, nncc has {_ABI}"
            raise RunError(message, "take a driver that goes with this version of nncc")

    def open(self, uri: str) -> Device:
        """The device that `uri` names. Raises RunError with what the driver says."""
        handle = _POINTER()
        if self.table.open(uri.encode(), ctypes.byref(handle)):
            raise RunError(f"cannot open `{uri}`: {(self.table.error(None) or b'').decode(errors='replace')}")
        return Device(self, uri, handle)


class Device:
    """An open device; a context that closes it. What fails is a RunError with the driver's words."""

    def __init__(self, driver: Driver, uri: str, handle: Any) -> None:
        self.driver, self.uri, self._handle = driver, uri, handle

    def __enter__(self) -> Device:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give it back, with all its memory."""
        if self._handle is not None:
            self.driver.table.close(self._handle)
        self._handle = None

    def info(self) -> Information:
        """What the device says of itself."""
        info = _Info()
        self._do("info", ctypes.byref(info))
        isa_hash, configuration, memory = (word.decode() for word in (info.isa_hash, info.configuration, info.memory))
        return Information(isa_hash, configuration, memory, info.clock_mhz)

    def alloc(self, size: int) -> Region:
        """`size` bytes of zeros that host and device share."""
        host, address = _POINTER(), ctypes.c_uint64()
        self._do("alloc", size, ctypes.byref(host), ctypes.byref(address))
        data = np.ctypeslib.as_array(ctypes.cast(host, ctypes.POINTER(ctypes.c_uint8)), (size,))
        return Region(address.value, data)

    def put(self, array: np.ndarray) -> Region:
        """A region with the bytes of `array`."""
        data = np.frombuffer(array.tobytes(), np.uint8)
        region = self.alloc(len(data))
        region.data[:] = data
        self.flush(region)
        return region

    def free(self, region: Region) -> None:
        """Give a region back; its data must not be touched any more."""
        self._do("free", region.address)

    def flush(self, region: Region) -> None:
        """Make what the host wrote visible to the device."""
        self._do("write", region.address, None, len(region.data))

    def fetch(self, region: Region) -> None:
        """Make what the device wrote visible to the host."""
        self._do("read", region.address, None, len(region.data))

    def run(self, program: Region, bases: Mapping[int, int], seconds: float = 0) -> None:
        """Run the instructions that `program` holds, the last one FINISH, to its end, `seconds` at most (0: for ever).

        `bases` has addresses in bytes by number of a memory, 0 where not told.
        """
        base = (ctypes.c_uint64 * _MEMORIES)(*(bases.get(memory, 0) for memory in range(_MEMORIES)))
        self._do("submit", program.address, len(program.data) // 16, base)
        self._do("wait", seconds)

    def counters(self) -> dict[str, int]:
        """Of the last program, by name."""
        names, values = ctypes.POINTER(ctypes.c_char_p)(), _UINTS()
        count = ctypes.c_uint32()
        self._do("counters", ctypes.byref(names), ctypes.byref(values), ctypes.byref(count))
        return {(names[at] or b"").decode(): values[at] for at in range(count.value)}

    def profile(self, indices: Iterable[int]) -> list[int]:
        """Of the last program, for each index the cycle at which all instructions before it were complete."""
        at = list(indices)
        cycles = (ctypes.c_uint64 * len(at))()
        self._do("profile", (ctypes.c_uint32 * len(at))(*at), len(at), cycles)
        return list(cycles)

    def _do(self, name: str, *arguments: Any) -> None:
        if self._handle is None:
            raise RunError(f"the device `{self.uri}` is closed")
        if getattr(self.driver.table, name)(self._handle, *arguments):
            raise RunError((self.driver.table.error(self._handle) or b"").decode(errors="replace"))
