"""Our exp, sigmoid, tanh and erf: the error that each states, over all float32 exponents, vectors and scalars alike."""

import math

import numpy as np
import pytest

from nncc.codegen.bare_pointers import lower_kernels
from nncc.codegen.vector_math import MATH, vector_math
from nncc.compat import IRModule, te, tirx, tvm
from nncc.target import resolve
from nncc.templates import schedule_kernel

ULP = {"exp": 1.1, "sigmoid": 2.5, "tanh": 1.4, "erf": 1.1}
"""As their docstrings state."""
EXACT = {
    "exp": np.exp,
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
}
COUNT = 1 << 17


def compiled(name, count):
    """A function of `count` floats, scheduled as a kernel is, with the pass in TVM's own pipeline."""
    x = te.placeholder((count,), name="x")
    y = te.compute((count,), lambda i: getattr(tirx, name)(x[i]), name="y")
    target = resolve("native")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, target.hardware)
    lowered = tvm.transform.Sequential(
        [
            tvm.s_tir.transform.ConvertBlocksToOpaque(),
            tvm.s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.VectorizeLoop(True),
            vector_math(),
        ]
    )
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
        # exp's largest results lie within an ulp of infinity: 1.1 is then a matter of which side.
        assert (np.abs(found[finite] - exact[finite]) / unit).max() <= ULP[name]


@pytest.mark.parametrize("name", list(MATH))
def test_the_limits_are_exact(name):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3e38, -3e38], np.float32)
    expected = {
        "exp": [1, 1, np.inf, 0, np.nan, 1, np.inf, 0],
        "sigmoid": [0.5, 0.5, 1, 0, np.nan, 0.5, 1, 0],
        "tanh": [0, -0.0, 1, -1, np.nan, 1e-45, 1, -1],
        "erf": [0, -0.0, 1, -1, np.nan, 1e-45, 1, -1],
    }[name]
    assert np.array_equal(values(compiled(name, 8), x), np.array(expected, np.float32), equal_nan=True)


def test_nested_functions_run_in_vectors_and_call_nothing():
    x = te.placeholder((4096,), name="x")
    y = te.compute((4096,), lambda i: tirx.exp(tirx.tanh(x[i]) * tirx.erf(x[i])), name="y")
    target = resolve("x86-64-v3")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, target.hardware)
    module = lower_kernels({"k": function}, target.tvm_target(), "t_").module
    code = tvm.get_global_func("target.build.llvm")(module, target.tvm_target()).inspect_source("ll")
    assert not [word for word in ("@expf", "@tanhf", "@erff", "@llvm.exp") if word in code]
    assert "<8 x float>" in code


def test_what_a_condition_guards_is_not_computed_ahead():
    x = te.placeholder((8,), name="x")
    y = te.compute((10,), lambda i: tirx.if_then_else(i < 8, tirx.exp(x[i]), tirx.const(0, "float32")), name="y")
    target = resolve("native")
    function, _ = schedule_kernel(te.create_prim_func([x, y]), {}, target.hardware)
    text = vector_math()(IRModule({"main": function}))["main"].script()
    assert "T.exp(" in text
