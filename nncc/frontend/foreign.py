"""Operators that are replaced by definitions of ours in terms of the standard's: most are of other domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nncc.frontend.definitions import Definition
from nncc.frontend.machine_learning import DEFINITIONS as LEARNING
from nncc.frontend.microsoft import DEFINITIONS as CONTRIBUTED
from nncc.frontend.microsoft import MICROSOFT
from nncc.frontend.ngrams import tf_idf_vectorizer
from nncc.frontend.training import DEFINITIONS as TRAINING

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["DEFINITIONS", "OPSET", "foreign_definition", "is_defined"]

OPSET = 17
"""Of the standard domain that the definitions are written for, or later ones: it has LayerNormalization."""

DEFINITIONS: Mapping[str, Mapping[str, Callable[[onnx_ir.Node, int], Definition]]] = {
    "": {"TfIdfVectorizer": tf_idf_vectorizer},
    MICROSOFT: CONTRIBUTED,
    "ai.onnx.ml": LEARNING,
    "ai.onnx.preview.training": TRAINING,
}
"""By domain and operator: a function of the node and the opset that gives its definition.

They raise ModelError for forms that have none, and of that UnknownShape where a shape has to be known first."""


def is_defined(node: onnx_ir.Node) -> bool:
    """Whether a node is of an operator in `DEFINITIONS`."""
    return node.op_type in DEFINITIONS.get(node.domain, ())


def foreign_definition(node: onnx_ir.Node, opset: int) -> onnx.FunctionProto:
    """The definition of a node that `is_defined`, in the standard's operators of this version.

    Raises ModelError for forms that have none, and UnknownShape.
    """
    return DEFINITIONS[node.domain][node.op_type](node, opset).function(node.domain, opset)
