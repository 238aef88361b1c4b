"""ONNX Runtime as the referee: it computes what torch does, and says how far a student agrees with its teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nncc.distillation.batches import Feeds, Run, batches, stack
from nncc.distillation.teacher import teacher_of
from nncc.errors import InternalError, ModelError

if TYPE_CHECKING:
    import onnx_ir

    from nncc.distillation.network import Network

__all__ = ["agreement", "check_faithful"]

FLOAT_ERROR = 1e-3
"""Orders of summation in float32 differ by some 1e-6 of a model's outputs; a wrong form of an operator by far more."""
ROUNDED_ERROR = 0.15
"""Of models with QuantizeLinear: sums that lie where rounding is undecided differ by whole steps then, and more behind
them; 0.03 was seen in a network of 142 layers."""
_CHECKED = 8
"""Samples."""


def check_faithful(network: Network, graph: onnx_ir.Model, samples: Sequence[Feeds], when: str) -> None:
    """Compare torch's outputs with those of ONNX Runtime, over the first samples.

    Raises InternalError, with `when` in it, where the relative error (root of mean squares) is more than rounding
    explains; ModelError for outputs that are not finite.
    """
    names = [str(value.name) for value in graph.graph.outputs]
    referee = teacher_of(graph, names, samples)
    rounds = any(node.op_type == "QuantizeLinear" for node in graph.graph)
    most = ROUNDED_ERROR if rounds else FLOAT_ERROR
    noise, signal = [0.0] * len(names), [0.0] * len(names)
    for sample in list(samples[:_CHECKED]):
        feeds = {name: torch.from_numpy(array) for name, array in sample.items()}
        with torch.no_grad():
            found = network(feeds, network.outputs)
        for at, (ours, theirs) in enumerate(zip(found, referee(sample), strict=True)):
            if not torch.isfinite(theirs).all():
                raise ModelError(
                    f"{when}, the student gives `{names[at]}` values that are not finite",
                    "leave out the samples for which it does; or its weights are damaged: export it again",
                )
            noise[at] += float((ours.double() - theirs.double()).square().sum())
            signal[at] += float(theirs.double().square().sum())
    errors = [math.sqrt(n / s) if s else math.sqrt(n) for n, s in zip(noise, signal, strict=True)]
    worst = max(range(len(names)), key=lambda at: errors[at] if errors[at] == errors[at] else math.inf)
    if not errors[worst] <= most:
        raise InternalError(
            f"distill: {when}, torch computes `{names[worst]}` {errors[worst]:.2g} off ONNX Runtime's, of its own size",
            "please report this, with the student",
        )


def agreement(kind: str, teacher: Run, student: Run, samples: Sequence[Feeds], batch: int) -> float:
    """How far the student's outputs agree with the teacher's, by a kind of `nncc.quant.metric.AGREEMENTS`; 1 at most.

    Both give all outputs, in the same order: top1 looks at the first, sqnr at all floats.
    """
    from nncc.quant.metric import AGREEMENTS

    part = whole = 0.0
    for indices in batches(samples, range(len(samples)), batch, None):
        feeds = stack([samples[at] for at in indices])
        pairs = list(zip(teacher(feeds), student(feeds), strict=True))
        for expected, found in pairs[:1] if kind == "top1" else pairs:
            if expected.is_floating_point():
                add = AGREEMENTS[kind](expected.numpy(), found.numpy())
                part, whole = part + add[0], whole + add[1]
    score = part / whole if whole else 1.0
    return -math.inf if math.isnan(score) else score
