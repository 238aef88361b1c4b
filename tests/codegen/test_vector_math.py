"""Our exp, sin and the like: the error that each states, over all float32 exponents, vectors and scalars alike."""

import math

import numpy as np
import pytest

from nncc.codegen.bare_pointers import lower_kernels
from nncc.codegen.vector_functions import MATH
from nncc.codegen.vector_math import vector_math
from nncc.compat import IRModule, Schedule, te, tirx, tvm, vectorize_calls
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.target import resolve

ULP = {"exp": 0.9, "sigmoid": 2.5, "tanh": 6, "erf": 6, "log": 1, "sin": 1.6, "cos": 1.6, "atan": 3}
"""As their docstrings state."""
FLUSHED = {"sigmoid": 2.0**-127, "exp_nonpositive": 2.0**-126}
"""Results below are 0, or as good as."""
EXACT = {
    "exp": np.exp,
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
}
COUNT = 1 << 17


def compiled(name, count):
    """A function of `count` floats, scheduled as a kernel is, with the pass in TVM's own pipeline."""
    x = te.placeholder((count,), name="x")
    function = name if callable(name) else getattr(tirx, name)
    y = te.compute((count,), lambda i: function(x[i]), name="y")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, resolve("native").hardware)
    return built(function, 1)


def built(function, chains):
    target = resolve("native")
    lowered = tvm.transform.Sequential(
        [
            tvm.s_tir.transform.ConvertBlocksToOpaque(),
            tvm.s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.UnrollLoop(),
            vector_math(chains),
        ]
    )
    for name in MATH:
        vectorize_calls(f"tirx.{name}")
    with target.tvm_target():
        return tvm.compile(lowered(IRModule({"main": function})), target.tvm_target())


def values(function, x):
    out = tvm.runtime.tensor(np.zeros_like(x))
    function["main"](tvm.runtime.tensor(x), out)
    return out.numpy()


@pytest.mark.parametrize("name", list(MATH))
def test_the_stated_error_holds_over_all_exponents(name):
    bits = np.linspace(0, 0xFFFFFFFF, COUNT).astype(np.uint32)
    near_zero = np.linspace(-20, 20, COUNT).astype(np.float32)
    function = compiled(name, COUNT)
    for x in (bits.view(np.float32), near_zero):
        found = values(function, x).astype(np.float64)
        with np.errstate(all="ignore"):
            exact = EXACT[name](x.astype(np.float64))
            rounded = exact.astype(np.float32)
        assert np.array_equal(np.isnan(found), np.isnan(exact))
        finite = np.isfinite(rounded)
        infinite = ~finite & ~np.isnan(rounded)
        assert np.array_equal(found[infinite], rounded[infinite].astype(np.float64))
        unit = np.maximum(np.spacing(np.abs(rounded[finite])).astype(np.float64), 2.0**-149)
        # exp's largest results lie within an ulp of infinity: 0.9 is then a matter of which side.
        error = np.abs(found[finite] - exact[finite])
        error[exact[finite] < FLUSHED.get(name, 0.0)] -= FLUSHED.get(name, 0.0)
        assert (error / unit).max() <= ULP[name]


@pytest.mark.parametrize("name", list(MATH))
def test_the_limits_are_exact(name):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3e38, -3e38], np.float32)
    expected = {
        "exp": [1, 1, np.inf, 0, np.nan, 1, np.inf, 0],
        "sigmoid": [0.5, 0.5, 1, 0, np.nan, 0.5, 1, 0],
        "tanh": [0, -0.0, 1, -1, np.nan, 1e-45, 1, -1],
        "erf": [0, -0.0, 1, -1, np.nan, 1e-45, 1, -1],
        "log": [-np.inf, -np.inf, np.inf, np.nan, np.nan, np.log(np.float64(x[5])), np.log(3e38), np.nan],
        "sin": [0, -0.0, np.nan, np.nan, np.nan, 1e-45, np.sin(np.float64(x[6])), -np.sin(np.float64(x[6]))],
        "atan": [0, -0.0, np.pi / 2, -np.pi / 2, np.nan, 1e-45, np.pi / 2, -np.pi / 2],
        "cos": [1, 1, np.nan, np.nan, np.nan, 1, np.cos(np.float64(x[6])), np.cos(np.float64(x[6]))],
    }[name]
    found = values(compiled(name, 8), x)
    assert np.array_equal(found, np.array(expected, np.float32), equal_nan=True)
    assert np.signbit(found[1]) == np.signbit(np.float32(expected[1]))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_keep_their_digits_next_to_multiples_of_a_quarter_turn(name):
    multiples = np.arange(1, COUNT // 3) * (np.pi / 2)
    near = multiples.astype(np.float32)
    x = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))])
    found, exact = values(compiled(name, x.size), x).astype(np.float64), EXACT[name](x.astype(np.float64))
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    assert (np.abs(found - exact) / unit).max() <= ULP[name]


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_no_result_is_beyond_1(name):
    x = np.linspace(2, 10, 1 << 20).astype(np.float32)
    assert values(compiled(name, x.size), x).max() == 1


def test_exp_of_what_is_0_at_most_flushes_its_smallest_results():
    x = np.concatenate([np.linspace(-110, 0, COUNT - 4), [-np.inf, np.nan, 3, np.inf]]).astype(np.float32)
    found = values(compiled(lambda x: tirx.exp(tirx.min(x, tirx.const(0, "float32"))), COUNT), x).astype(np.float64)
    exact = np.exp(np.minimum(x.astype(np.float64), 0))
    normal = exact > 2.0**-126
    unit = np.spacing(exact[normal].astype(np.float32)).astype(np.float64)
    assert (np.abs(found[normal] - exact[normal]) / unit).max() <= ULP["exp"]
    assert np.isnan(found[-3]) and found[-4] == 0 and not found[x < -88.1].any()


@pytest.mark.parametrize("rows", [2, 3, 5, 9])
def test_stores_in_a_row_are_computed_together_but_none_before_what_it_reads(rows):
    x = te.placeholder((rows, 16), name="x")
    y = te.compute((rows, 16), lambda i, j: tirx.erf(x[i, j]) * tirx.sigmoid(x[i, j] + 1.0), name="y")
    z = te.compute((rows, 16), lambda i, j: tirx.exp(y[rows - 1 - i, j] + y[i, j]), name="z")
    sch = Schedule(te.create_prim_func([x, z]))
    for name in "yz":
        i, j = sch.get_loops(sch.get_sblock(name))
        sch.unroll(i)
        sch.vectorize(j)
    data = np.linspace(-2, 2, rows * 16).astype(np.float32).reshape(rows, 16)
    alone, together = (values(built(sch.mod["main"], chains), data) for chains in (1, 4))
    exact_y = EXACT["erf"](data.astype(np.float64)) * EXACT["sigmoid"](data + 1.0)
    assert np.array_equal(alone, together)
    assert np.allclose(alone, np.exp(exact_y[::-1] + exact_y), rtol=1e-5)


def test_nested_functions_run_in_vectors_and_call_nothing():
    x = te.placeholder((4096,), name="x")
    y = te.compute((4096,), lambda i: tirx.exp(tirx.tanh(x[i]) * tirx.erf(x[i])), name="y")
    target = resolve("x86-64-v3")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, target.hardware)
    module = lower_kernels({"k": function}, target.tvm_target(), "t_").code
    code = tvm.get_global_func("target.build.llvm")(module, target.tvm_target()).inspect_source("ll")
    assert not [word for word in ("@expf", "@tanhf", "@erff", "@llvm.exp") if word in code]
    assert "<8 x float>" in code


def test_numbers_are_rounded_in_vectors():
    x = te.placeholder((4096,), name="x")
    target = resolve("x86-64-v3")
    y = te.compute((4096,), lambda i: tirx.nearbyint(x[i]), name="y")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, target.hardware)
    module = lower_kernels({"k": function}, target.tvm_target(), "t_").code
    code = tvm.get_global_func("target.build.llvm")(module, target.tvm_target()).inspect_source("s")
    rounds = [line for line in code.splitlines() if "vround" in line]
    assert rounds and all("vroundps" in line and "ymm" in line for line in rounds) and "nearbyint" not in code


def test_what_a_condition_guards_is_not_computed_ahead():
    x = te.placeholder((8,), name="x")
    y = te.compute((10,), lambda i: tirx.if_then_else(i < 8, tirx.exp(x[i]), tirx.const(0, "float32")), name="y")
    target = resolve("native")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, target.hardware)
    text = vector_math()(IRModule({"main": function}))["main"].script()
    assert "T.exp(" in text
