"""The teacher: any model that ONNX Runtime runs, asked for the values that the student is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nncc.distillation.batches import Feeds, Run, one_by_one, takes_batches
from nncc.quant.session import open_graph

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

__all__ = ["teacher_of"]


def teacher_of(graph: onnx_ir.Model, names: Sequence[str], samples: Sequence[Feeds]) -> Run:
    """What gives these values of `graph` for a batch: at once where it takes batches, else sample by sample.

    Raises ModelError or RunError where ONNX Runtime cannot run it.
    """
    session, wanted = open_graph(graph, more=names), list(dict.fromkeys(names))

    def run(feeds: Feeds) -> list[Tensor]:
        found = dict(zip(wanted, (torch.from_numpy(a) for a in session.run(feeds, wanted)), strict=True))
        return [found[name] for name in names]

    return run if takes_batches(run, samples) else one_by_one(run, samples[0])
