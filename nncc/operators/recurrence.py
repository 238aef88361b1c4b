"""What LSTM, GRU and RNN share: what such a layer computes, as a value, and how it stands in the Relax graph.

`nncc.passes.own_recurrent` makes a matrix product and a kernel of it, for one target.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nncc.compat import GenericConst, StringImm, constant_array, relax
from nncc.operators.activations import ACTIVATIONS
from nncc.operators.attributes import word
from nncc.operators.operands import OperatorError

__all__ = ["FUNCTION", "Activation", "Recurrence", "convert_recurrent"]

FUNCTION = "nncc.recurrent"
"""The name of the function that a recurrent layer calls in Relax; its first argument is a `Recurrence` as text."""

_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
"""By operator, the activations of one direction where none are given."""
_DIRECTIONS = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}


@dataclass(frozen=True)
class Activation:
    """A function of one number, by ONNX's name in small letters."""

    name: str
    alpha: float
    beta: float


@dataclass(frozen=True)
class Recurrence:
    """What a recurrent layer computes. `operands` are the names of its arguments, in order: x, weights, recurrent, and
    of bias, lengths, h, c and peepholes those that are there."""

    kind: str
    """LSTM | GRU | RNN"""
    hidden: int
    directions: tuple[str, ...]
    """forward | reverse"""
    activations: tuple[tuple[Activation, ...], ...]
    """For each direction, in ONNX's order: f, g, h."""
    clip: float
    """0 where nothing is clipped."""
    operands: tuple[str, ...]
    linear_before_reset: bool = False
    input_forget: bool = False

    def text(self) -> str:
        """As JSON, which `read` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> Recurrence:
        """The value whose `text` this is."""
        fields = json.loads(text)
        activations = tuple(tuple(Activation(**a) for a in each) for each in fields.pop("activations"))
        directions, operands = tuple(fields.pop("directions")), tuple(fields.pop("operands"))
        return Recurrence(**fields, activations=activations, directions=directions, operands=operands)


def convert_recurrent(kind: str, builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """A call of `FUNCTION` that gives Y [T, D, N, hidden], Y_h [D, N, hidden] and, of an LSTM, Y_c, in ONNX's layout.

    `kind` is the operator. Half precisions are computed in float32. Raises ModelError for what ONNX does not allow.
    """
    x, weights, recurrent, bias, lengths, h, c, peepholes = [*inputs, *[None] * 8][:8]
    dtype = str(x.ty.dtype)
    if dtype not in ("float32", "float64", "float16", "bfloat16"):
        raise OperatorError(f"{kind} of {dtype} is no operator of ONNX", "cast to float32 first")
    batch_first = bool(attributes.get("layout", 0))
    shape = [int(d) for d in x.ty.shape]
    if batch_first:
        x = builder.emit(relax.op.permute_dims(x, [1, 0, 2]))
        h, c = (None if s is None else builder.emit(relax.op.permute_dims(s, [1, 0, 2])) for s in (h, c))
        shape[:2] = shape[1::-1]
    steps, batch, _ = shape
    hidden = int(recurrent.ty.shape[2])
    directions = _directions(kind, attributes)
    if lengths is not None and _all_are(lengths, steps):
        lengths = None
    given = {"bias": bias, "lengths": lengths, "h": h, "c": c, "peepholes": peepholes}
    given = {"x": x, "weights": weights, "recurrent": recurrent} | {n: v for n, v in given.items() if v is not None}
    _check(kind, given, attributes, steps, batch, hidden, len(directions))
    layer = Recurrence(
        kind,
        hidden,
        directions,
        _activations(kind, attributes, len(directions)),
        max(0.0, float(attributes.get("clip", 0.0))),
        tuple(given),
        bool(attributes.get("linear_before_reset", 0)),
        bool(attributes.get("input_forget", 0)),
    )
    computed = dtype if dtype == "float64" else "float32"
    arguments = [
        builder.emit(relax.op.astype(value, computed)) if name != "lengths" and dtype != computed else value
        for name, value in given.items()
    ]
    state = (len(directions), batch, hidden)
    types = [relax.TensorType(s, computed) for s in [(steps, *state), state, state][: 3 if kind == "LSTM" else 2]]
    called = builder.emit(
        relax.op.call_pure_packed(FUNCTION, StringImm(layer.text()), *arguments, ty_args=relax.TupleType(types))
    )
    outputs = [builder.emit(relax.TupleGetItem(called, number)) for number in range(len(types))]
    if dtype != computed:
        outputs = [builder.emit(relax.op.astype(value, dtype)) for value in outputs]
    if batch_first:
        outputs[0] = builder.emit(relax.op.permute_dims(outputs[0], [2, 0, 1, 3]))
        outputs[1:] = [builder.emit(relax.op.permute_dims(value, [1, 0, 2])) for value in outputs[1:]]
    return relax.Tuple(outputs)


def _all_are(lengths: Any, steps: int) -> bool:
    return isinstance(lengths, GenericConst) and bool(np.all(constant_array(lengths) == steps))


def _directions(kind: str, attributes: dict[str, Any]) -> tuple[str, ...]:
    direction = word(attributes.get("direction", "forward"))
    if direction not in _DIRECTIONS:
        raise OperatorError(
            f"{kind} has the direction `{direction}`", f"ONNX knows {', '.join(_DIRECTIONS)}: export the model again"
        )
    return _DIRECTIONS[direction]


def _check(
    kind: str, given: dict[str, Any], attributes: dict[str, Any], steps: int, batch: int, hidden: int, directions: int
) -> None:
    """ModelError where a shape is not what the others ask for."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
    inputs = int(given["x"].ty.shape[2])
    expected = {
        "weights": (directions, gates, inputs),
        "recurrent": (directions, gates, hidden),
        "bias": (directions, 2 * gates),
        "lengths": (batch,),
        "h": (directions, batch, hidden),
        "c": (directions, batch, hidden),
        "peepholes": (directions, 3 * hidden),
    }
    for name, value in given.items():
        found = tuple(int(d) for d in value.ty.shape)
        if name != "x" and found != expected[name]:
            what = f"{kind} with {hidden} hidden units, {directions} direction{'s' * (directions > 1)}"
            raise OperatorError(
                f"{what} and an input of {steps}x{batch}x{inputs} has {_WORDS[name]} of the shape "
                f"{'x'.join(map(str, found))}, not {'x'.join(map(str, expected[name]))}",
                "export the model again: it cannot be run",
            )
    if int(attributes.get("hidden_size", hidden)) != hidden:
        raise OperatorError(
            f"{kind} says hidden_size={attributes['hidden_size']} and has recurrent weights for {hidden} units",
            "export the model again: it cannot be run",
        )


_WORDS = {
    "weights": "weights W",
    "recurrent": "weights R",
    "bias": "a bias B",
    "lengths": "sequence_lens",
    "h": "an initial_h",
    "c": "an initial_c",
    "peepholes": "peepholes P",
}


def _activations(kind: str, attributes: dict[str, Any], directions: int) -> tuple[tuple[Activation, ...], ...]:
    """The functions of each direction, alpha and beta given to those that take one, in order, as ONNX Runtime does."""
    defaults = _ACTIVATIONS[kind] * directions
    names = tuple(word(name) for name in attributes.get("activations", ())) or defaults
    if len(names) != len(defaults):
        raise OperatorError(
            f"{kind} has {len(names)} activations, not {len(defaults)}", "export the model again: it cannot be run"
        )
    alphas, betas = list(attributes.get("activation_alpha", ())), list(attributes.get("activation_beta", ()))
    found = []
    for name in map(str.lower, names):
        if name not in ACTIVATIONS:
            raise OperatorError(f"{kind} has the activation `{name}`", f"ONNX knows {', '.join(sorted(ACTIVATIONS))}")
        function = ACTIVATIONS[name]
        alpha = float(alphas.pop(0)) if function.takes_alpha and alphas else function.alpha
        beta = float(betas.pop(0)) if function.takes_beta and betas else function.beta
        if alpha is None or beta is None:
            raise OperatorError(
                f"{kind} has the activation `{name}` without its {'alpha' if alpha is None else 'beta'}, for which "
                "there is no default that is agreed on",
                "export the model again with `activation_alpha` and `activation_beta`",
            )
        found.append(Activation(name, alpha, beta))
    size = len(_ACTIVATIONS[kind])
    return tuple(tuple(found[d * size : (d + 1) * size]) for d in range(directions))
