"""Integer products by each way of x86, run here: the same integers, bit by bit, and the instructions expected."""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled import compile_net
from quantized import QuantizedNet, attention, extremes, few_channels, inputs_of, many_kinds

from nncc.codegen.integer_dots import integer_dots
from nncc.compat import IRModule, pure_operator, tirx, tvm
from nncc.execute import open_library
from nncc.host import host
from nncc.kernels.dots import BYTE, dot_of
from nncc.target import resolve

PLAIN = "x86-64,int8_dot=none"
WAYS = {
    "x86-64": r"\tpmaddwd\b",
    "x86-64-v3": r"\tvpmaddwd\b.*%ymm",
    "x86-64-v4": r"\tvpmaddwd\b.*%zmm",
    "x86-64-v4-vnni": r"\tvpdpbusd\b.*%zmm",
    "x86-64-v4-vnni,int8_dot=vnni256,vector_bits=256": r"\tvpdpbusd\b.*%ymm",
}
"""By target, its instruction."""


def runs_here(target: str) -> bool:
    this = host()
    return this.machine == "x86_64" and set(resolve(target).hardware.features) <= set(this.features)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What plain arithmetic gives for a net, compiled once."""
    known = {}

    def result(make, data, inputs):
        if (make, data) not in known:
            folder = tmp_path_factory.mktemp("plain")
            known[make, data] = compile_net(make(data), folder, PLAIN)
        compiled = known[make, data]
        return compiled, compiled.run(compiled.sample(**inputs))

    return result


@pytest.mark.parametrize("data", ["uint8", "int8"])
@pytest.mark.parametrize("make", [many_kinds, few_channels, extremes, attention])
def test_plain_arithmetic_is_what_onnx_runtime_computes(plain, make, data):
    compiled, found = plain(make, data, inputs_of(make))
    expected = compiled.expected(compiled.sample(**inputs_of(make)))
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
        assert len(np.unique(value)) >= 4, name


@pytest.mark.parametrize("make", [many_kinds, few_channels, extremes, attention])
@pytest.mark.parametrize(
    ("target", "data"), [*((target, "uint8") for target in WAYS), ("x86-64-v3", "int8"), ("x86-64-v4-vnni", "int8")]
)
def test_all_ways_give_the_same_integers(plain, target, make, data, tmp_path):
    if not runs_here(target):
        pytest.skip(f"this processor does not run {target}")
    compiled = compile_net(make(data), tmp_path, target)
    reference, expected = plain(make, data, inputs_of(make))
    found = open_library(compiled.library, 1, compiled.program.target).run(reference.sample(**inputs_of(make)))
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


@pytest.mark.parametrize("target", [*WAYS, "x86-64-v3-vnni"])
def test_the_instruction_is_the_processors_and_no_lane_is_alone(target, tmp_path):
    """Rounding is one instruction a vector too, and nothing is left to libm."""
    net = QuantizedNet()
    x = net.quantized(net.input(1, 32, 8, 8), 0.05)
    x = net.quantized_conv(x, 32, 48, (3, 3), pads=[1] * 4, strides=[2, 2])
    net.output(net.quantized_conv(x, 48, 48, (3, 3), pads=[1] * 4, group=48))
    compile_net(net, tmp_path, target, emit=["o"], dump_code=["asm"])
    (path,) = tmp_path.rglob("*.asm")
    assembly = path.read_text()
    expected = WAYS.get(target, r"\t\{vex\}\s+vpdpbusd\b.*%ymm")
    assert len(re.findall(expected, assembly)) >= 32
    assert not re.search(r"\tv?(imulq?|pmulld)\b", "\n".join(hot(assembly)))
    assert re.search(r"\tv?cvtps2dq\b", assembly)
    assert not re.search(r"\b(lrintf|rintf|nearbyintf|roundevenf)\b", assembly)


REALS = [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**31), 2.0**31 - 128, 0.5, 1.5, -0.5, -0.0, 254.5, 255.5]
REALS += [126.5, 127.5, -127.5, -128.5, -254.5, -255.5]


@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize("zero", [0, 1, 128, 255])
@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_real_numbers_become_the_nearest_bytes(target, zero, lanes):
    """Far beyond all bytes too, and what is no number becomes 0."""
    if not runs_here(target):
        pytest.skip(f"this processor does not run {target}")
    reals = np.array([*REALS, *np.random.default_rng(0).normal(0, 200, 64 - len(REALS))], np.float32)
    x, y = tirx.decl_buffer((64,), "float32", name="x"), tirx.decl_buffer((64,), "uint8", name="y")
    i = tirx.Var("i", "int32")
    at, origin = (i, tirx.const(zero, "int32"))
    if lanes > 1:
        at, origin = tirx.Ramp(i * lanes, 1, lanes), tirx.Broadcast(origin, lanes)
    dtype = f"uint8x{lanes}" if lanes > 1 else "uint8"
    store = tirx.BufferStore(y, tirx.call_intrin(dtype, pure_operator(BYTE), x[at], origin), [at])
    function = tirx.PrimFunc([x, y], tirx.For(i, 0, 64 // lanes, tirx.ForKind.SERIAL, store))
    module = IRModule({"main": function.with_attr("global_symbol", "main")})
    machine = resolve(target)
    module = integer_dots(dot_of(machine.hardware))(tirx.transform.BindTarget(machine.tvm_target())(module))
    found = tvm.runtime.tensor(np.zeros(64, np.uint8))
    tvm.compile(module, machine.tvm_target())["main"](tvm.runtime.tensor(reals), found)
    expected = np.clip(np.rint(np.nan_to_num(reals, nan=-np.inf)) + zero, 0, 255)
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.uint8))


def hot(assembly: str) -> list[str]:
    """The lines around the products."""
    lines = assembly.splitlines()
    at = [i for i, line in enumerate(lines) if re.search(r"pmaddwd|vpdpbusd", line)]
    return [line for i in at for line in lines[max(0, i - 3) : i + 3]]
