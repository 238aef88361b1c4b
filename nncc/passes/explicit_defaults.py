"""What a node leaves out is written down, where tools take it for one thing and the standard, or we, for another.

STFT(x)   = STFT(x, onesided=1)
Random*() = Random*(seed=h)      h: a hash of the node's name, so that a model gives the same numbers in every build
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["RANDOM", "explicit_defaults"]

RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
"""Operators that make random numbers."""


def explicit_defaults(graph: onnx_ir.Model) -> Report:
    """Write down, in place, ``onesided`` of STFT, which the shape inference of onnx 1.23 takes for 0, and seeds."""
    import onnx_ir

    report = Report()
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        if is_op(node, "STFT") and "onesided" not in node.attributes:
            node.attributes["onesided"] = onnx_ir.AttrInt64("onesided", 1)
            report.rewrites += 1
        elif is_op(node, *RANDOM) and "seed" not in node.attributes:
            name = str(node.name or node.outputs[0].name)
            digest = hashlib.sha256(name.encode()).digest()
            node.attributes["seed"] = onnx_ir.AttrFloat32("seed", float(int.from_bytes(digest[:3], "little")))
            report.rewrites += 1
    return report
