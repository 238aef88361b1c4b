"""How a model is to be quantized: every choice of `nncc quantize`, explained where it is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nncc.errors import UsageError, did_you_mean

__all__ = ["Activations", "Observer", "Precision", "Recipe", "Step", "WeightObserver"]

Observer = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
"""How the range of an activation follows from what calibration saw; `nncc/quant/observers.py` has them."""

WeightObserver = Literal["minmax", "mse"]
"""Largest absolute weight, or the scale at which rounding and clipping the weights has the least squared error."""

Activations = Literal["uint8", "int8"]
"""What activations become."""

Step = Literal["auto"] | bool
"""True, False, or ``"auto"``: try it, and keep it only where the measured error of the model gets lower."""

Precision = Literal["int8", "dynamic", "weight_int8", "weight_int4", "weight_float16", "weight_bfloat16", "float"]
"""What becomes of a layer.

int8: weights and activations are integers, with ranges from calibration. dynamic: weights int8, activations uint8 with
a range that is measured at run time; MatMul and Gemm only. weight_*: only the weights are stored so, the arithmetic
stays float: int8 per output channel, int4 in groups, float16 or bfloat16. float: the layer stays as it is.
"""


@dataclass(frozen=True)
class Recipe:
    """How a model is to be quantized. Raises UsageError for values that make no sense."""

    observer: Observer = "mse"
    """How the ranges of activations follow from calibration."""
    percentile: float = 99.999
    """For the observer ``percentile``: per cent of an activation's elements that stay inside its range."""
    activations: Activations = "uint8"
    """The integers that activations become: uint8 is fastest on x86, int8 on Arm; the same values either way."""
    symmetric: bool = False
    """Whether zero is in the middle of every activation's range: simpler arithmetic, but ranges after a ReLU lose a
    bit."""
    per_channel: bool = True
    """Whether every output channel of a layer has a weight scale of its own, or the layer has one."""
    weight_observer: WeightObserver = "minmax"
    """How the scales of weights are found."""
    equalize: Step = False
    """Cross-layer equalization (Nagel et al. 2019): move scales between channels of neighbouring layers."""
    correct_bias: Step = True
    """Take the mean error that a layer's quantization causes, measured on calibration data, off its bias (Nagel et al.
    2019)."""
    reconstruct: Step = True
    """Round weights so that a layer's output, not each weight, is nearest (Frantar et al. 2022)."""
    precision: Precision = "int8"
    """What becomes of every layer that is not named below."""
    nodes: Mapping[str, Precision] = field(default_factory=dict)
    """Precision of single layers, by the names that `nncc.quant.quantize.layers` gives."""
    float_nodes: tuple[str, ...] = ()
    """Nodes that stay float; short for precision ``float`` in `nodes`."""
    group_size: int = 32
    """For precision ``weight_int4``: how many weights along the reduction share a scale."""
    seed: int = 0
    """Of whatever is drawn at random: which positions of large activations the reconstruction looks at."""

    def __post_init__(self) -> None:
        _one_of("observer", self.observer, get_args(Observer))
        _one_of("activations", self.activations, get_args(Activations))
        _one_of("weight_observer", self.weight_observer, get_args(WeightObserver))
        _one_of("precision", self.precision, get_args(Precision))
        for name in ("equalize", "correct_bias", "reconstruct"):
            value = getattr(self, name)
            if not isinstance(value, bool) and value != "auto":
                raise UsageError(f"`{name}` of a recipe is `{value}`", "give true, false or auto")
        for name in ("per_channel", "symmetric"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"`{name}` of a recipe is `{getattr(self, name)}`", "give true or false")
        for node, precision in self.nodes.items():
            _one_of(f"nodes.{node}", precision, get_args(Precision))
        percentile = self.percentile
        if not isinstance(percentile, (int, float)) or isinstance(percentile, bool) or not 50 < percentile <= 100:
            raise UsageError(f"`percentile` of a recipe is `{percentile}`", "give a number above 50, 100 at most")
        _whole("group_size", self.group_size, 2)
        _whole("seed", self.seed, 0)

    def precision_of(self, node: str) -> Precision:
        """What becomes of the layer of that name."""
        return "float" if node in self.float_nodes else self.nodes.get(node, self.precision)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(str(value), known) or f"there are {', '.join(known)}"
        raise UsageError(f"`{name}` of a recipe is `{value}`, which nncc does not know", hint)


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"`{name}` of a recipe is `{value}`", f"give a whole number, {least} or more")
