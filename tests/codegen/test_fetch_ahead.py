"""Weights of the next panel are asked for once a cache line, where panels are large and seldom read."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net

from nncc.codegen.fetch_ahead import fetch_ahead
from nncc.compat import Analyzer, IRModule, structural_map, structural_walk, tirx, tvm
from nncc.scheduling import AHEAD


def asked(function) -> list[tuple[str, int]]:
    """What is asked for: the tensor and the element, at the loop's first step."""
    found = []

    def note(call):
        if str(call.op.name) == "tirx.call_llvm_intrin":
            load = call.args[1].args[0]
            (at,) = load.indices
            first = structural_map(at, [(tirx.Var, lambda var: tirx.const(0, "int32"))])
            found.append((load.source.name, int(Analyzer().simplify(first))))

    structural_walk(function.body, [(tvm.ir.Call, note)])
    return found


def kernel(lanes, vectors, rows, distance=256, argument=1):
    """y[r] += x[r, k] * w[k, v] for rows r and vectors v, unrolled in a loop over k."""
    x, w, y = (tirx.decl_buffer((4096,), "float32", name=name) for name in "xwy")
    k = tirx.Var("k", "int32")
    stores = []
    for r in range(rows):
        for v in range(vectors):
            to = tirx.Ramp((r * vectors + v) * lanes, 1, lanes)
            weights = w[tirx.Ramp((k * vectors + v) * lanes, 1, lanes)]
            stores.append(tirx.BufferStore(y, y[to] + tirx.Broadcast(x[r * 64 + k], lanes) * weights, [to]))
    loop = tirx.For(
        k, tirx.const(0, "int32"), tirx.const(16, "int32"), tirx.ForKind.SERIAL, tirx.SeqStmt(stores),
        annotations={AHEAD: [argument, distance]},
    )  # fmt: skip
    function = tirx.PrimFunc([x, w, y], loop).with_attr("global_symbol", "main")
    return fetch_ahead()(IRModule({"main": function}))["main"]


@pytest.mark.parametrize(
    ("lanes", "vectors", "elements"),
    [(16, 2, [256, 272]), (8, 2, [256]), (8, 4, [256, 272]), (4, 3, [256]), (32, 1, [256, 272])],
)
def test_each_cache_line_is_asked_for_once_whatever_the_rows(lanes, vectors, elements):
    assert asked(kernel(lanes, vectors, rows=3)) == [("w", at) for at in elements]


def test_the_annotation_says_of_which_argument_and_how_far_before():
    assert asked(kernel(16, 1, rows=2, distance=1024)) == [("w", 1024)]
    assert asked(kernel(16, 1, rows=2, argument=0)) == [], "x is read element by element"


def test_the_loop_does_what_it_did():
    function = kernel(16, 2, rows=3)
    module = tvm.compile(IRModule({"main": function}), {"kind": "llvm"})
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, 4096).astype("float32") for _ in range(2))
    y = tvm.runtime.tensor(np.zeros(4096, "float32"))
    module["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(w), y)
    expected = np.stack([x[r * 64 :][:16] for r in range(3)]) @ w[: 16 * 32].reshape(16, 32)
    np.testing.assert_array_equal(y.numpy()[: 3 * 32].reshape(3, 32), expected)


def product(rows, depth, columns):
    net = Net()
    net.output(net.op("MatMul", net.input(rows, depth), net.weight(depth, columns)))
    return net


def image(channels, size):
    net = Net()
    net.output(net.conv(net.input(1, channels, size, size), channels, channels, (1, 1)))
    return net


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (product(16, 512, 512), True),  # 1 MB of weights, read twice
        (product(800, 512, 512), False),  # read often: they stay in the cache
        (product(800, 64, 64), False),
        (image(512, 7), True),
        (image(128, 28), False),
    ],
)
def test_it_is_done_where_weights_come_from_afar(tmp_path, net, expected):
    compiled = compile_net(net, tmp_path, "x86-64-v4", dump_code=("ll",))
    assert ("@llvm.prefetch" in compiled.library.with_suffix(".ll").read_text()) == expected


@pytest.mark.parametrize("target", ["x86-64-v2", "rpi4"])
def test_it_is_not_done_where_nobody_measured(tmp_path, target):
    compiled = compile_net(product(16, 512, 512), tmp_path, target, dump_code=("ll",))
    assert "@llvm.prefetch" not in compiled.library.with_suffix(".ll").read_text()


def test_a_product_whose_last_panel_asks_for_what_is_behind_the_weights_agrees(tmp_path):
    agrees(product(16, 512, 520), tmp_path, "native")
