"""ONNX to Relax through TVM's importer, its failures turned into errors that name the node."""

from __future__ import annotations

from nncc.frontend.onnx import to_proto, unsupported
from nncc.ir import Model

__all__ = ["import_relax"]


def import_relax(model: Model):
    """The Relax module of a portable model: one function ``main``, weights as constants, shapes static.

    Raises ModelError that lists every operator which TVM's importer does not know.
    """
    from nncc.compat import from_onnx, importable_operators, relax

    if refusal := unsupported(model, importable_operators()):
        raise refusal
    proto = to_proto(model)
    module = from_onnx(proto, keep_params_in_input=False)
    return relax.transform.CanonicalizeBindings()(module)
