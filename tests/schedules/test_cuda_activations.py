"""Products of two quantized activations on GPUs are on integers, and those of the processor's library to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import compile_net
from emulated import Emulated, emulate, needs_compiler
from quantized_layers import QuantizedNet

pytestmark = needs_compiler

SIGNED = {"dtype": np.int8}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"left": (20, 64), "right": (64, 24)},
    "of several heads": {"left": (2, 3, 17, 32), "right": (2, 3, 32, 40)},
    "one matrix for all": {"left": (3, 9, 48), "right": (48, 33)},
    "transposed": {"left": (2, 17, 64), "right": (2, 23, 64), "transposed": True},
    "transposed and odd": {"left": (2, 7, 45), "right": (2, 13, 45), "transposed": True},
    "odd sizes": {"left": (5, 19), "right": (19, 7)},
    "deep, in parts": {"left": (4, 900), "right": (900, 8)},
    "int8": {"left": (9, 40), "right": (40, 12), "grids": (SIGNED | {"zero": -3}, SIGNED | {"zero": 5})},
    "uint8 by int8": {"left": (9, 40), "right": (40, 12), "grids": ({"zero": 100}, SIGNED | {"zero": 0})},
}  # fmt: skip


def product(net: QuantizedNet, left: Any, right: Any, transposed: bool = False, grids: Any = ({}, {})) -> str:
    a, b = (net.grid(net.input(*shape), **grid) for shape, grid in zip((left, right), grids, strict=True))
    if transposed:
        axes = list(range(len(right)))
        b = net.op("Transpose", b, perm=[*axes[:-2], axes[-1], axes[-2]])
    return net.grid(net.op("MatMul", a, b), zero=128)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated, dict[str, np.ndarray]]:
    """The names of the outputs, what the emulated GPU made, and what the processor's library does."""
    net, folder = QuantizedNet(), tmp_path_factory.mktemp("products")
    names = {case: product(net, **options) for case, options in CASES.items()}
    net.output(*names.values())
    compiled = compile_net(net, folder / "processor", "native", threads=1)
    inputs = compiled.sample()
    emulated = emulate(net, folder / "gpu", **inputs)
    return names, emulated, compiled.run(inputs)


def test_all_are_on_integers(products: Any) -> None:
    _, emulated, _ = products
    quantization = emulated.kernels.quantization
    assert quantization is not None and not quantization.float_layers
    templates = {schedule.split()[0] for schedule in emulated.kernels.schedules.values()}
    assert templates == {"cuda_unit_product", "loops"}


@pytest.mark.parametrize("case", CASES)
def test_a_product_is_the_processors_to_the_bit(case: str, products: Any) -> None:
    names, emulated, processor = products
    assert np.unique(emulated.found[names[case]]).size > 6
    np.testing.assert_array_equal(emulated.found[names[case]], processor[names[case]])
