"""ONNX to Relax through TVM's importer, its failures turned into errors that name the node."""

from __future__ import annotations

import contextlib
import io
import re

from nncc.errors import ModelError
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
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter):
            module = from_onnx(to_proto(model), keep_params_in_input=False)
    except Exception as error:  # the importer raises whatever its converters raise
        operator = re.search(r"Error converting operator (\w+)", chatter.getvalue())
        what = f"the operator `{operator.group(1)}`" if operator else f"`{model.name}`"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{what} is used in a form that cannot be compiled: {reason}",
            "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled",
        ) from error
    return relax.transform.CanonicalizeBindings()(module)
