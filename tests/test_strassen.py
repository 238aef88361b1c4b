"""Strassen's product for 1x1 convolutions against a direct one in float64, and when it is chosen."""

import numpy as np
import pytest

from nncc.codegen.flatten import in_panels
from nncc.compat import IRModule, te, topi, tvm
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.target import resolve

TEMPLATES = load_templates()
STRASSEN = TEMPLATES["strassen"]


def test_seven_products_are_the_eight():
    """sum_s OUT[ik, s] LEFT[s, ij] RIGHT[s, jk] is 1 for each i, j, k, and 0 elsewhere."""
    tensor = np.einsum("xs,sy,sz->xyz", STRASSEN.module.OUT, STRASSEN.module.LEFT, STRASSEN.module.RIGHT)
    expected = np.zeros((2, 2, 2, 2, 2, 2))
    for i, j, k in np.ndindex(2, 2, 2):
        expected[i, k, i, j, j, k] = 1
    assert (tensor == expected.reshape(4, 4, 4)).all()


@pytest.mark.parametrize("order", ["whole", "panel"])
@pytest.mark.parametrize(
    ("batch", "in_channels", "out_channels", "pixels"), [(1, 64, 32, 12), (1, 32, 96, 50), (2, 32, 32, 6)]
)
def test_it_agrees_with_a_direct_convolution(batch, in_channels, out_channels, pixels, order):
    target = resolve("native")
    lanes = max(4, target.hardware.vector_bits // 32)
    generator = np.random.default_rng(3)
    x = generator.standard_normal((batch, in_channels, pixels)).astype(np.float32)
    kernel = (generator.standard_normal((out_channels, in_channels, 1, 1)) / np.sqrt(in_channels)).astype(np.float32)
    bias = generator.standard_normal(out_channels).astype(np.float32)
    expected = np.maximum(np.einsum("oc,ncp->nop", kernel[:, :, 0, 0].astype(np.float64), x) + bias[:, None], 0)

    weight = STRASSEN.module.pack(kernel, lanes)
    blocked = x.reshape(batch, in_channels // lanes, lanes, 1, pixels).transpose(0, 1, 3, 4, 2)
    inputs = [np.ascontiguousarray(blocked), weight, bias.reshape(1, -1, 1, 1, lanes)]
    data, w, b = (te.placeholder(a.shape, name=name) for a, name in zip(inputs, "xwb", strict=True))
    y = topi.nn.relu(topi.add(STRASSEN.compute(data, w), b))
    choices = Choices({"output": order})
    function, origin = schedule_kernel(te.create_prim_func([data, w, b, y]), TEMPLATES, target.hardware, choices)
    assert origin.startswith("strassen tile ")
    assert origin.endswith(f", error {STRASSEN.module.ERROR:.0e}")
    assert choices.taken["output"] == order
    inputs[1] = in_panels(weight, tuple(int(d) for d in function.params[1].shape))
    module = tvm.compile(IRModule({"main": function}), target.tvm_target())
    out = tvm.runtime.tensor(np.zeros((batch, out_channels // lanes, 1, pixels, lanes), np.float32))
    module["main"](*map(tvm.runtime.tensor, inputs), out)
    found = out.numpy().transpose(0, 1, 4, 2, 3).reshape(expected.shape)
    assert np.abs(found - expected).max() <= STRASSEN.module.ERROR * np.abs(expected).max()


def test_it_is_chosen_where_it_pays():
    hardware, ways = resolve("x86-64-v4,num-cores=1").hardware, STRASSEN.module.ways
    assert str(ways((1024, 256), 196, 1, 16, hardware)[0]) == "strassen"
    assert str(ways((256, 1024), 196, 1, 16, hardware)[0]) == "strassen"
    assert ways((64, 64), 3136, 1, 16, hardware) == [None], "too few channels for the sums to pay"
    assert ways((1000, 1280), 196, 1, 16, hardware) == [None], "halves are whole blocks"
    assert ways((1024, 256), 49, 1, 16, hardware) == [None], "halves have as many pixels"
