"""What the student is asked to match: the teacher's outputs, and layers inside that correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from nncc.errors import ModelError
from nncc.passes.rewriting import attribute, is_op

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

    from nncc.distillation.settings import Settings

__all__ = ["Term", "features", "loss", "outputs", "scaled"]

MOST_FEATURES = 8
"""Layers that are compared, spread over the depth."""
_FEATURES = (
    "Add", "Clip", "Elu", "Gelu", "HardSwish", "LayerNormalization", "LeakyRelu", "Mul", "PRelu", "Relu",
)  # fmt: skip
"""What makes values worth comparing: the ends of blocks."""

Kind = Literal["divergence", "squares", "span"]


@dataclass(frozen=True)
class Term:
    """A value of the student beside one of the teacher."""

    kind: Kind
    """divergence of the softmax over the last axis | squares of differences | span of channels, see `_unexplained`"""
    student: str
    teacher: str
    weight: float = 1.0
    scale: float = 1.0
    """What differences are divided by: how much the teacher's value varies."""
    axis: int = 1
    """Of span, where the channels are."""
    inside: bool = False
    """Whether it is a layer inside, which may be left out, and no output."""


def outputs(student: onnx_ir.Model, teacher: onnx_ir.Model) -> tuple[Term, ...]:
    """A term for each float output, in order; of classifiers the logits, before the Softmax if both have one.

    What counts as a classifier is what `nncc.quant.metric.agreement_of` says of the teacher. Raises ModelError where
    outputs do not correspond.
    """
    from nncc.quant.metric import agreement_of

    ours, theirs = tuple(student.graph.outputs), tuple(teacher.graph.outputs)
    if len(ours) != len(theirs):
        raise ModelError(
            f"the student has {len(ours)} output{'s' * (len(ours) != 1)}, the teacher {len(theirs)}", _SAME
        )
    found = []
    for at, (value, other) in enumerate(zip(ours, theirs, strict=True)):
        if value.dtype is None or not value.dtype.is_floating_point():
            continue
        logits, other_logits = _logits(value), _logits(other)
        if logits is not None and other_logits is not None:
            found.append(Term("divergence", str(logits.name), str(other_logits.name)))
        elif logits is None and other_logits is None and at == 0 and agreement_of(teacher) == "top1":
            found.append(Term("divergence", str(value.name), str(other.name)))
        else:
            found.append(Term("squares", str(value.name), str(other.name)))
    if not found:
        raise ModelError("the student has no output of floats to train by")
    return tuple(found)


_SAME = "a student computes the same outputs as its teacher: give the model that it was made of"


def _logits(value: onnx_ir.Value) -> onnx_ir.Value | None:
    """What the Softmax along the last axis reads that makes `value`; None where none does."""
    node = value.producer()
    while is_op(node, "Identity", "QuantizeLinear", "DequantizeLinear") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if not is_op(node, "Softmax", "LogSoftmax"):
        return None
    given = node.inputs[0]
    rank = None if given is None or given.shape is None else len(given.shape)
    axis = attribute(node, "axis", -1)
    return given if axis == -1 or (rank is not None and axis == rank - 1) else None


def features(student: onnx_ir.Model, teacher: onnx_ir.Model, known: Sequence[str], weight: float) -> tuple[Term, ...]:
    """Terms for at most `MOST_FEATURES` layers inside; `known` are the student's values. Shapes are not looked at."""
    from nncc.quant.correspond import correspondence

    pairs = {pair.made: pair for pair in correspondence(teacher, student) if pair.op_type in _FEATURES}
    found = [pair for pair in pairs.values() if pair.seen in known]
    spread = [found[round(at)] for at in torch.linspace(0, len(found) - 1, min(len(found), MOST_FEATURES)).tolist()]
    return tuple(Term("squares", pair.seen, pair.name, weight / len(spread), inside=True) for pair in spread)


def scaled(terms: Sequence[Term], student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[Term, ...]:
    """The terms for values like these of a first batch: differences in units of the teacher's variance.

    Layers whose shapes differ along one axis, that of the channels, are compared by their span; those that differ in
    more are left out. Raises ModelError for outputs that differ in shape.
    """
    found = []
    for term, ours, theirs in zip(terms, student, teacher, strict=True):
        variance = max(float(theirs.float().var()), 1e-12) if theirs.numel() > 1 else 1.0
        if ours.shape == theirs.shape:
            found.append(replace(term, scale=variance))
        elif not term.inside:
            shapes = ["x".join(map(str, each.shape[1:])) for each in (ours, theirs)]
            raise ModelError(f"`{term.student}` of the student is {shapes[0]}, the teacher's is {shapes[1]}", _SAME)
        elif ours.ndim == theirs.ndim:
            differ = [at for at, (a, b) in enumerate(zip(ours.shape, theirs.shape, strict=True)) if a != b]
            if len(differ) == 1 and differ[0] > 0:
                found.append(replace(term, kind="span", axis=differ[0]))
    return tuple(found)


def loss(terms: Sequence[Term], student: Sequence[Tensor], teacher: Sequence[Tensor], settings: Settings) -> Tensor:
    """What training makes small: the sum over terms, each a mean over samples.

    Divergence: T^2 KL(softmax(t / T) || softmax(s / T)) of Hinton, Vinyals and Dean, "Distilling the Knowledge in a
    Neural Network" (2015), and beside it `settings.logits_weight` times the squares.
    """
    total = torch.zeros(())
    for term, s, t in zip(terms, student, teacher, strict=True):
        t = t.to(s.dtype)
        if term.kind == "divergence":
            heat, rows = settings.temperature, s.numel() // s.shape[-1]
            a, b = F.log_softmax(s / heat, -1), F.log_softmax(t / heat, -1)
            part = heat**2 * F.kl_div(a, b, log_target=True, reduction="sum") / rows
            part = part + settings.logits_weight * F.mse_loss(s, t) / term.scale
        elif term.kind == "span":
            part = _unexplained(s, t, term.axis)
        else:
            part = F.mse_loss(s, t) / term.scale
        total = total + term.weight * part
    return total


def _unexplained(s: Tensor, t: Tensor, axis: int) -> Tensor:
    """The share of the variance of the channels of `t` that no linear map of those of `s` explains, over all positions.

    What FitNets (Romero et al., 2015) train a layer for is solved in each batch: with the ridge e,
    1 - tr(C' (G + e I)^-1 C) / |t|^2 where G = s' s, C = s' t, both centered.
    """
    ours, theirs = (x.movedim(axis, -1).flatten(0, -2) for x in (s, t))
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    gram, cross = ours.T @ ours, ours.T @ theirs
    ridge = 1e-3 * gram.diagonal().mean().detach() + 1e-12
    explained = (cross * torch.linalg.solve(gram + ridge * torch.eye(len(gram)), cross)).sum()
    return 1 - explained / theirs.square().sum().clamp_min(1e-12)
