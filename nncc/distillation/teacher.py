"""The teacher: any model that ONNX Runtime runs, asked for the values that the student is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nncc.distillation.batches import Feeds, Run, one_by_one, takes_batches
from nncc.distillation.network import free_batch
from nncc.errors import ModelError
from nncc.quant.session import open_graph

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

__all__ = ["teacher_of"]


def teacher_of(graph: onnx_ir.Model, names: Sequence[str], samples: Sequence[Feeds]) -> Run:
    """What gives these values of `graph` for a batch: at once where it takes batches, or would if its leading axis of 1
    were open; else sample by sample.

    Raises ModelError or RunError where ONNX Runtime cannot run it.
    """
    run = _run(graph, names)
    if takes_batches(run, samples):
        return run
    try:
        free = _run(_of_any_batch(graph), names)
        if takes_batches(free, samples):
            return free
    except ModelError:  # sizes in constants that contradict
        pass
    return one_by_one(run, samples[0])


def _run(graph: onnx_ir.Model, names: Sequence[str]) -> Run:
    session, wanted = open_graph(graph, more=names), list(dict.fromkeys(names))

    def run(feeds: Feeds) -> list[Tensor]:
        found = dict(zip(wanted, (torch.from_numpy(a) for a in session.run(feeds, wanted)), strict=True))
        return [found[name] for name in names]

    return run


def _of_any_batch(graph: onnx_ir.Model) -> onnx_ir.Model:
    """A copy in which leading axes of 1 are open, those that Reshape names too; whether it computes samples apart is
    not known."""
    import onnx_ir

    from nncc.passes.infer_shapes import infer_shapes

    graph = graph.clone()
    infer_shapes(graph)
    free_batch(graph)
    for node in graph.graph:
        for value in node.outputs:
            value.shape = None
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        if value.shape is not None and len(value.shape) and value.shape[0] == 1:
            value.shape = onnx_ir.Shape(["batch", *value.shape[1:]])
    return graph
