"""How long a product of a layer takes on one core, by its shapes, its numbers and the processor: the only prediction.

Counted are vector operations of one core: those of the reduction, each as long as a multiply-add of a whole vector
takes; what is padded to whole words and blocks; words that are laid out for depthwise convolutions; activations that
are dequantized for a product in float32; the int32 sums that become float32. Winograd's convolutions cost what their
own plan says, grouped ones what their template does. What quantizes the result is the same for floats and integers.

Measured on a Zen 4 core, one thread, in brackets what is predicted by the peak and the bandwidth that are measured
there. Whole models in float32 with AVX-512, and pruned: ResNet-18 15.6 ms (16.0), with 57 % of its multiplications 9.4
(9.5); MobileNetV2 6.40 ms (6.39), with 48 % 3.25 (3.19); a keyword spotter of depthwise convolutions 49 us (54), with
48 % 25 (27), in int8 24.6 (21.3) and 14.9 (12.1). With AVX2, integers over float32: depthwise convolutions with the 1x1
convolutions around them, 3x3 of 96 channels 0.89 (0.86), with stride 2 0.90 (0.74), 5x5 of 192 0.91 (0.89); single
layers whose input is dequantized where it is quantized, at no cost, 3x3 of 64 channels 0.87 (0.56), of 128 0.74 (0.57),
of 512 on 7x7 pixels 1.05 (0.67), 1x1 of 64 0.81 (0.62), in 32 groups 2.55 (2.63), in 8 1.00
(1.20), in 4 0.86 (0.64). MobileNetV2 with depthwise convolutions in float32 takes 1 to 9 % longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING, Any, Literal

from nncc.kernels.dots import Dot, dot_of, wide_dot_of

if TYPE_CHECKING:
    from nncc.kernels.templates import Template
    from nncc.target import Hardware

__all__ = ["INTERLEAVED", "QUANTIZED_BLOCK", "LayerTimes", "Product"]

_OPERATIONS = {"sdot": 1, "vnni512": 1, "vnni256": 1, "avxvnni": 1, "smull": 2, "pmaddwd": 4 / 3, "none": 12}
"""What the sum of a vector of words costs, in multiply-adds of float32 vectors: by measurements (VNNI 468 GOP/s and
pmaddwd 174 where float32 has 117), by llvm-mca (Cortex-A72: 8 multiply-adds a cycle where float32 has 4), and without
an instruction, the four products, additions and conversions that it stands for."""
_EFFICIENCY = 0.9
"""Of the peak, for products in register tiles."""
_DEQUANTIZE = 12
"""Vector operations a vector of activations: load and widen, convert, subtract and scale, store; and four times the
bytes that the product loads, from the second-level cache."""
_FINISH = 2
"""Vector operations a vector of int32 sums: convert and scale."""
_WORDS = 6
"""Vector operations a vector of words for depthwise convolutions: loads and shuffles."""
QUANTIZED_BLOCK = 16
"""Channels in a block of a quantized model."""
INTERLEAVED = 3
"""Channels that may lie side by side for words along rows: at most those of an image."""


@dataclass(frozen=True)
class Product:
    """The shapes of a product with weights; all that its time depends on."""

    kind: Literal["matmul", "conv", "conv_transpose"]
    batch: int
    """Images; of a matrix product all rows."""
    image: tuple[int, ...]
    """Sizes of the output of a convolution, of the input of a transposed one; empty for a matrix product."""
    depth: int
    """Channels that an output sums up: those of one group."""
    columns: int
    """Channels of the output, of all groups."""
    inputs: int
    """Elements of the activations that are read."""
    outputs: int
    """Elements that are computed."""
    window: tuple[int, ...] = ()
    groups: int = 1
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        """For each of which there is a product of a vector with all weights."""
        return self.batch * prod(self.image)

    @property
    def macs(self) -> int:
        """Multiplications as the model says them."""
        return self.positions * self.depth * prod(self.window) * self.columns


class LayerTimes:
    """Predictions for one processor; each product is looked at once."""

    def __init__(self, hardware: Hardware, templates: Mapping[str, Template] | None = None) -> None:
        """`templates` are those that are compiled with, by default those of ``schedules/``."""
        self.hardware = hardware
        self._templates = templates
        self._seconds: dict[tuple[Product, bool], float] = {}
        self._lanes = max(4, hardware.vector_bits // 32)

    def seconds(self, product: Product, nbytes: float = 0.0, *, integers: bool = False) -> float:
        """The time of a product in float32, or of bytes by bytes, but no less than it takes to move `nbytes`, the
        distinct bytes that it reads and writes, once from memory.

        Where `peak_gflops` of the hardware is not known, it is in units of 10^9 float32 operations instead, which
        compare with each other; then, or where `dram_gbps` is not, memory takes no time.
        """
        key = product, integers
        if key not in self._seconds:
            counted = self.on_integers(product) if integers else self.in_float(product)[0]
            self._seconds[key] = 2e-9 * counted * self._lanes / (self.hardware.peak_gflops or 1.0)
        return max(self._seconds[key], self.moving(nbytes))

    def moving(self, nbytes: float) -> float:
        """The time that it takes to move bytes from or to memory; 0 where `seconds` takes it for none."""
        known = self.hardware.dram_gbps and self.hardware.peak_gflops
        return nbytes / (self.hardware.dram_gbps * 1e9) if known else 0.0

    def in_float(self, product: Product, block: int = 0, skipping: float = inf) -> tuple[float, str]:
        """Vector operations in float32, and a word on how. Channels lie in blocks of `block`, by default a vector.

        `skipping` is the time of a kernel that skips zeros over that of a dense one at the peak.
        """
        lanes, columns = self._lanes, _blocks(product.columns, self._lanes)
        pixels, taps = product.positions, prod(product.window)
        direct = pixels * taps * product.depth * columns
        if product.kind != "conv":
            return direct * min(1 / _EFFICIENCY, skipping), ""
        if product.groups == 1:
            block = block or lanes
            way = self._winograd(product, block)[0]
            if way and way.cost * block / lanes < skipping * direct:
                return way.cost * block / lanes, " by Winograd's convolution"
            return direct * min(1 / _EFFICIENCY, skipping), ""
        if product.depth == 1:
            return pixels * taps * columns / _EFFICIENCY, ""
        grouped = self._template("grouped_conv2d")
        each = product.columns // product.groups
        steps = min(1.5 * product.depth, grouped.steps(product.depth, each, product.groups, lanes, lanes))
        return pixels * taps * steps * columns / _EFFICIENCY, ""

    def on_integers(
        self,
        product: Product,
        dtype: str = "uint8",
        exact: Callable[[Any], bool] = lambda tile: True,
        skipping: float = inf,
    ) -> float:
        """Vector operations on integers. `dtype` is that of the activations; `exact` says whether Winograd's
        convolution with such tiles computes the weights exactly; `skipping` as for `in_float`."""
        dot = dot_of(self.hardware)
        inputs, outputs = product.inputs / self._lanes, product.outputs / self._lanes
        widen = 2 * inputs if dtype != dot.data and dot.name != "none" else 0.0
        return self._words(product, dot, exact, skipping) + widen + _FINISH * outputs

    def dequantizing(self, product: Product) -> float:
        """Vector operations that make the activations of a product floats."""
        return _DEQUANTIZE * product.inputs / self._lanes

    def _template(self, name: str) -> Any:
        if self._templates is None:
            from nncc.kernels.templates import load_templates

            self._templates = load_templates()
        return self._templates[name].module

    def _winograd(self, product: Product, lanes: int, *numbers: Any) -> Any:
        """The ways of a convolution, the fastest first; None stands for a direct one."""
        if len(product.image) != 2:
            return [None]
        kernel = product.columns, product.depth, *product.window
        where = product.strides, product.dilations, product.batch, *product.image
        return self._template("winograd").ways(kernel, *where, lanes, self.hardware, *numbers)

    def _integer_winograd(self, product: Product, dot: Dot, exact: Callable[[Any], bool]) -> float:
        """Winograd's convolution of integers; infinite where there is none."""
        if min(product.columns, product.depth) < QUANTIZED_BLOCK or wide_dot_of(self.hardware) is None:
            return inf
        found = self._winograd(product, QUANTIZED_BLOCK, self._template("winograd").integers(dot))[0]
        if not found or not exact(found.tile):
            return inf
        return found.cost * QUANTIZED_BLOCK * 32 / self.hardware.vector_bits

    def _words(self, product: Product, dot: Dot, exact: Callable[[Any], bool], skipping: float) -> float:
        """The reduction on integers."""
        each, positions, window = _OPERATIONS[dot.name], product.positions, product.window
        if product.kind == "matmul":
            depth = _blocks(product.depth, dot.size)
            return positions * depth * _blocks(product.columns, dot.lanes) * each * min(1 / _EFFICIENCY, skipping)
        vectors = _padded(product.columns) / dot.lanes
        if product.kind == "conv_transpose" or product.groups == 1:
            steps = prod(window) * _padded(product.depth) / dot.size
            few = dot.size // 2 if self.hardware.lane_operand else INTERLEAVED
            if product.kind == "conv" and product.depth <= few and product.dilations[-1:] == (1,):
                steps = min(steps, prod(window[:-1]) * _blocks(window[-1] * product.depth, dot.size))  # along rows
            direct = positions * steps * vectors * each * min(1 / _EFFICIENCY, skipping)
            return direct if product.kind != "conv" else min(direct, self._integer_winograd(product, dot, exact))
        if product.depth == 1 and product.columns == product.groups and len(window) == 2:
            # as in schedules/depthwise_conv2d.py: columns that share words, each with its own weights
            stride = product.strides[1]
            width = (window[1] - 1) * product.dilations[1] + 1
            count, columns = min((_blocks((j - 1) * stride + width, dot.size), -j) for j in range(1, dot.size + 1))
            laid = count / -columns * product.strides[0]
            return positions * vectors * (window[0] * count * each / _EFFICIENCY + laid * _WORDS)
        steps = max(product.depth, QUANTIZED_BLOCK)
        return positions * prod(window) * steps / dot.size * vectors * each / _EFFICIENCY


def _blocks(channels: int, lanes: int) -> int:
    return -(-channels // lanes)


def _padded(channels: int) -> int:
    """Channels of integers in whole blocks, as `Layout.lanes_of` has them."""
    return next((n for n in (4, 8) if channels <= n), _blocks(channels, QUANTIZED_BLOCK) * QUANTIZED_BLOCK)
