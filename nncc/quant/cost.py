"""What layers are predicted to cost in int8 and in float, by `nncc.layer_time`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nncc.layer_time import LayerTimes, Product
    from nncc.quant.quantize import Layer

__all__ = ["float_cost", "gain", "int8_cost", "int8_share"]


def float_cost(layer: Layer, times: LayerTimes) -> float:
    """Predicted time of the layer in float32: seconds, or, where the peak is not known, in units of 10^9 operations."""
    return 0.0 if layer.product is None else times.seconds(layer.product, 4.0 * _elements(layer, layer.product))


def int8_cost(layer: Layer, times: LayerTimes) -> float:
    """Predicted time of the layer in int8, in the unit of `float_cost`; no more than in float: a compilation computes a
    layer in float32 where that is faster."""
    if layer.product is None:
        return 0.0
    integers = times.seconds(layer.product, 1.0 * _elements(layer, layer.product), integers=True)
    return min(float_cost(layer, times), integers)


def _elements(layer: Layer, product: Product) -> int:
    """What is read and written."""
    return layer.weights + product.inputs + product.outputs


def gain(layers: Sequence[Layer], floats: Collection[str], times: LayerTimes) -> float:
    """Predicted time in float over the predicted time with all but the layers named in `floats` in int8.

    Only the layers count, not what is between them: the whole model gains less, or on a processor that waits for
    memory more.
    """
    before = sum(float_cost(layer, times) for layer in layers)
    after = sum((float_cost if layer.name in floats else int8_cost)(layer, times) for layer in layers)
    return before / after if after else 1.0


def int8_share(layers: Sequence[Layer], floats: Collection[str]) -> float:
    """The part of all multiplications that is in int8, from 0 to 1."""
    whole = sum(layer.macs for layer in layers)
    return sum(layer.macs for layer in layers if layer.name not in floats) / whole if whole else 0.0
