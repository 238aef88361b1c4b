"""What an accelerator kernel computes: one layer, with all that its instructions depend on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from nncc.errors import InternalError

if TYPE_CHECKING:
    from nncc.vta.machine import Machine

__all__ = ["Kind", "Layer", "beyond"]

Kind = Literal["conv2d", "depthwise", "max_pool", "add"]


@dataclass(frozen=True)
class Layer:
    """A layer on activations int8 [blocks, height, width, block].

    Its arguments, in this order: data, weights (conv2d int8 [output blocks, input blocks, kernel height, kernel width,
    block outputs, block inputs]; depthwise int8 [blocks, ceil(taps / block), block taps, block lanes]), parameters
    (uint8 [output blocks, 8 block]: int32 bias[block], float32 scale[block]; one element more for the sum with the
    residual), the residual's data, the result. A max_pool has data and result; an add data, parameters (one element),
    the other data, result. A dense layer is a conv2d of 1x1 on [blocks, 1, rows].

    Raises InternalError if its sizes contradict each other, or a field says what its kind does not know.
    """

    kind: Kind
    input: tuple[int, int, int]
    """Blocks of channels, height, width."""
    output: tuple[int, int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right."""
    dilation: tuple[int, int] = (1, 1)
    pad_value: int = 0
    """What stands in the padding: the zero point of the input, or -128 for a maximum."""
    zero: int = 0
    """The zero point of what the products are requantized to."""
    relu: bool = False
    """Whether the requantized products are no less than `zero`."""
    residual: Literal["", "first", "second"] = ""
    """Whether another tensor is added to the requantized products, and then the place of these in the sum, which says
    in which order its two products are rounded."""
    shift: int = 0
    """Without requantization by floats: sums plus bias are shifted right by this (the bias rounds half up)."""

    def __post_init__(self) -> None:
        who = f"{'an' if self.kind == 'add' else 'a'} {self.kind}"
        if reason := _unknown(self, _KNOWN[self.kind], who) or _sizes_refusal(self):
            raise InternalError(f"accelerator: {self.to_json()} is no layer: {reason}")

    def to_json(self) -> str:
        """One line; what equal layers have in common."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Layer:
        """The layer that `to_json` wrote. Raises InternalError if it is none."""
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or set(values) != {field.name for field in fields(Layer)}:
                raise ValueError("it has other fields")
            read: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            for name, hint in get_type_hints(Layer).items():
                if not _is(read[name], hint):
                    raise ValueError(f"{name} = {values[name]!r}")
        except ValueError as error:
            raise InternalError(f"accelerator: `{text}` is no layer: {error}") from error
        return Layer(**read)


def _is(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of the type of a field: a class, words, or a tuple of numbers."""
    if isinstance(hint, type):
        return type(value) is hint
    words = get_args(hint)
    if words and isinstance(words[0], str):
        return value in words
    return isinstance(value, tuple) and len(value) == len(words) and all(type(each) is int for each in value)


_WINDOW = frozenset({"kernel", "stride", "padding", "dilation", "pad_value"})
_KNOWN: dict[Kind, frozenset[str]] = {
    "conv2d": _WINDOW | {"zero", "relu", "residual", "shift"},
    "depthwise": _WINDOW | {"zero", "relu", "residual"},
    "max_pool": _WINDOW,
    "add": frozenset({"relu", "residual"}),
}
"""The fields that a kind of layer looks at, beside its sizes; in others nothing may be asked for."""
_INT8 = range(-128, 128)


def beyond(layer: Layer, machine: Machine) -> str:
    """What a layer asks for that this machine would not compute; empty where there is nothing."""
    if not machine.has("requantize"):
        return _unknown(layer, _KNOWN[layer.kind] - {"zero"}, "this machine")
    return _unknown(
        layer, _KNOWN[layer.kind] - {"shift"} - ({"relu"} if layer.kind == "add" else set()), "this machine"
    )


def _unknown(layer: Layer, known: frozenset[str] | set[str], who: str) -> str:
    """The first field that is not as if it were not there, and not among those `known`."""
    for field in fields(Layer)[3:]:
        value = getattr(layer, field.name)
        if field.name not in known and value != field.default:
            return f"{who} knows no {field.name}, which is {value!r}"
    return ""


def _sizes_refusal(layer: Layer) -> str:
    """Why sizes, distances or numbers of a layer cannot be."""
    for name, least in (("input", 1), ("output", 1), ("kernel", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
        if min(getattr(layer, name)) < least:
            return f"{name} = {getattr(layer, name)} has less than {least}"
    for name, allowed in (("pad_value", _INT8), ("zero", _INT8), ("shift", range(32))):
        if getattr(layer, name) not in allowed:
            return f"{name} = {getattr(layer, name)} is not between {allowed[0]} and {allowed[-1]}"
    if layer.kind == "add" and layer.input != layer.output:
        return "the sum of two tensors has their size"
    if layer.kind != "conv2d" and layer.input[0] != layer.output[0]:
        return "it keeps to its channels, and has others behind it"
    for axis, word in ((0, "rows"), (1, "columns")):
        end = (layer.output[axis + 1] - 1) * layer.stride[axis] + (layer.kernel[axis] - 1) * layer.dilation[axis] + 1
        seen = layer.input[axis + 1] + layer.padding[axis] + layer.padding[axis + 2]
        if end > seen:
            return f"its windows see {end} {word}, and with its padding it has {seen}"
    return ""
