"""device_arrays.py: what others say of arrays on a GPU is read as they mean it; what is of no use is refused."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from nncc.errors import RunError
from nncc.runtime.device_arrays import DeviceArray, _DLTensor, device_array, stream_handle
from nncc.runtime.loader import load


class Tensor:
    """An array on a device, as torch would hand it over."""

    def __init__(self, shape, strides=None, code=2, bits=32, kind=2, number=0, offset=0, lanes=1) -> None:
        self.device = (kind, number)
        self.streams: list[int] = []
        rank = ctypes.c_int64 * len(shape)
        self.parts = rank(*shape), strides and rank(*strides)
        pointer = ctypes.POINTER(ctypes.c_int64)
        first, second = (ctypes.cast(part, pointer) if part else pointer() for part in self.parts)
        self.tensor = _DLTensor(0x10000, kind, number, len(shape), code, bits, lanes, first, second, offset)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


class Interface:
    def __init__(self, **words) -> None:
        usual = {"version": 3, "typestr": "<f4", "shape": (2, 3), "data": (0x20000, False)}
        self.__cuda_array_interface__ = usual | words


def found(value, stream=None) -> tuple[int, str, tuple[int, ...], int]:
    array = device_array(value, stream)
    assert isinstance(array, DeviceArray)
    return array.pointer, array.dtype, array.shape, array.device


def refusal(value, stream=None) -> str:
    with pytest.raises(RunError) as caught:
        device_array(value, stream)
    return str(caught.value)


@pytest.mark.parametrize("value", [np.zeros(3), 3.0, [1, 2], Tensor((3,), kind=1), Tensor((3,), kind=3)])
def test_what_is_in_the_memory_of_the_processor_is_none(value):
    assert device_array(value) is None


@pytest.mark.parametrize(
    ("code", "bits", "dtype"),
    [(2, 32, "float32"), (2, 16, "float16"), (0, 8, "int8"), (1, 64, "uint64"), (4, 16, "bfloat16"), (6, 8, "bool")],
)
def test_dlpack_says_pointer_dtype_shape_and_device(code, bits, dtype):
    tensor = Tensor((2, 3), code=code, bits=bits, kind=13, number=1, offset=64)
    assert found(tensor) == (0x10040, dtype, (2, 3), 1)


def test_an_array_is_ready_for_the_stream_that_it_is_used_in():
    tensor = Tensor((2, 3))
    for stream in (None, 0, 2, 0x5555):
        device_array(tensor, stream)
    assert tensor.streams == [1, 1, 2, 0x5555], "1 is the legacy default stream"


@pytest.mark.parametrize("strides", [None, (3, 1)])
def test_dense_rows_are_taken(strides):
    assert found(Tensor((2, 3), strides))[2] == (2, 3)
    assert found(Tensor((1, 3, 1), (77, 1, 5)))[2] == (1, 3, 1), "where there is one step, its stride does not matter"
    assert found(Tensor((0, 3), (7, 7)))[2] == (0, 3)


def test_other_strides_are_refused():
    assert refusal(Tensor((2, 3), (1, 2))) == "is not contiguous, and memory of a GPU is not copied"
    assert refusal(Interface(strides=(4, 8))) == "is not contiguous, and memory of a GPU is not copied"
    assert refusal(Tensor((2,), lanes=4)) == "has elements of 4 numbers; expected one"


def test_other_devices_are_refused():
    assert refusal(Tensor((2,), kind=10)) == "is on a device of ROCm; expected one of CUDA, or numpy"
    assert refusal(Tensor((2,), kind=99)) == "is on a device of kind 99; expected one of CUDA, or numpy"


def test_what_dlpack_refuses_is_said():
    tensor = Tensor((2,))

    def refuse(stream=None):
        raise BufferError("it requires a gradient")

    tensor.__dlpack__ = refuse
    assert refusal(tensor) == "cannot be had by DLPack: it requires a gradient"


def test_the_cuda_array_interface():
    assert found(Interface(strides=(12, 4))) == (0x20000, "float32", (2, 3), -1)
    assert found(Interface(typestr="|i1", stream=1)) == (0x20000, "int8", (2, 3), -1)
    assert found(Interface(stream=77), stream=77)[0] == 0x20000
    assert refusal(Interface(stream=77)) == "comes from another stream"


def test_streams():
    class Torch:
        cuda_stream = 11

    class Cupy:
        ptr = 12

    class Core:
        def __cuda_stream__(self):
            return 0, 13

    assert [stream_handle(s) for s in (7, 0, Torch(), Cupy(), Core())] == [7, 0, 11, 12, 13]
    with pytest.raises(RunError) as caught:
        stream_handle("fast")
    assert (str(caught.value), caught.value.hint) == ("`'fast'` is no stream of CUDA", "give its handle, a number")


def test_a_library_for_the_processor_takes_no_memory_of_a_gpu(model):
    x, mode = np.zeros((4, 8), np.float32), np.zeros(1, np.int32)
    with load(model()) as module:
        for arguments, words, problem in [
            (
                ({"x": Tensor((4, 8)), "mode": mode},),
                {},
                "input `x` is in the memory of a GPU; this library computes on the",
            ),
            (
                ({"x": x, "mode": mode}, {"y": Tensor((4, 8))}),
                {},
                "output `y` is in the memory of a GPU; this library comp",
            ),
            (({"x": x, "mode": mode},), {"stream": 3}, "this library computes on the processor: it takes no stream"),
        ]:
            with pytest.raises(RunError) as caught:
                module.run(*arguments, **words)
            assert str(caught.value).startswith(problem)
