"""The C interface of a library, nncc.h, in the words of ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

__all__ = ["ABI_VERSION", "ACCELERATOR", "COUNTS", "CUDA", "FUNCTIONS", "Info", "Tensor", "declare"]

ABI_VERSION = 4
COUNTS = ("flops", "multiplications", "bytes", "weight_bytes")
"""What a library says of each of its calls besides the kernel's name, in the order of `nncc_info`."""

Functions = tuple[tuple[str, Any, tuple[Any, ...]], ...]
"""Name, result and arguments of each."""

_POINTERS = ctypes.POINTER(ctypes.c_void_p)
_COUNTERS = ctypes.POINTER(ctypes.c_uint64)


class Tensor(ctypes.Structure):
    """`nncc_tensor` of nncc.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_size_t),
        ("dims", ctypes.POINTER(ctypes.c_int32)),
    )


class Dim(ctypes.Structure):
    """`nncc_dim` of nncc.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("low", ctypes.c_int64),
        ("high", ctypes.c_int64),
        ("from_data", ctypes.c_int32),
    )


class Info(ctypes.Structure):
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
        ("inputs", ctypes.POINTER(Tensor)),
        ("outputs", ctypes.POINTER(Tensor)),
        ("call_names", ctypes.POINTER(ctypes.c_char_p)),
        *((f"call_{count}", ctypes.POINTER(ctypes.c_double)) for count in COUNTS),
        ("arena_bytes", ctypes.c_size_t),
        ("scratch_bytes", ctypes.c_size_t),
        ("weights_bytes", ctypes.c_size_t),
        ("num_dims", ctypes.c_int32),
        ("num_variants", ctypes.c_int32),
        ("dims", ctypes.POINTER(Dim)),
        ("variants", ctypes.POINTER(ctypes.c_int64)),
    )


FUNCTIONS: Functions = (
    ("nncc_describe", ctypes.POINTER(Info), ()),
    ("nncc_create", ctypes.c_int, (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)),
    ("nncc_resize", ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))),
    ("nncc_output_shape", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))),
    ("nncc_run", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS)),
    ("nncc_profile", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS, ctypes.POINTER(ctypes.c_double))),
    ("nncc_destroy", None, (ctypes.c_void_p,)),
    ("nncc_last_error", ctypes.c_char_p, ()),
)
"""What every library has."""
CUDA: Functions = (("nncc_run_on", ctypes.c_int, (ctypes.c_void_p, _POINTERS, _POINTERS, ctypes.c_void_p)),)
"""What libraries for CUDA have besides."""
ACCELERATOR: Functions = (
    ("nncc_device_wanted", ctypes.c_char_p, ()),
    ("nncc_create_on", ctypes.c_int, (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_char_p)),
    ("nncc_device", ctypes.c_char_p, (ctypes.c_void_p,)),
    ("nncc_counters", ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), _COUNTERS, ctypes.c_int)),
    ("nncc_cycles", ctypes.c_int, (ctypes.c_void_p, _COUNTERS)),
)
"""What libraries for accelerators have besides."""


def declare(library: ctypes.CDLL, functions: Functions) -> Sequence[str]:
    """Tell ctypes what functions take and give; the names of those that the library has not."""
    missing = []
    for name, result, arguments in functions:
        function = getattr(library, name, None)
        if function is None:
            missing.append(name)
        else:
            function.restype, function.argtypes = result, arguments
    return missing
