"""ONNX to Relax through TVM's importer, its failures turned into errors that name the node."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.frontend.binding import bind_hint
from nncc.frontend.narrow_types import STORED, hold_in_bytes
from nncc.frontend.onnx import to_proto, unsupported
from nncc.ir import Model

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["import_relax"]


def import_relax(model: Model):
    """The Relax module of a portable model: one function ``main``, weights as constants, shapes static.

    Raises ModelError that lists every operator which TVM's importer does not know.
    """
    from nncc.compat import importable_operators, onnx_importer, relax
    from nncc.frontend.converters import CONVERTERS

    supported = importable_operators()
    supported[""] |= set(CONVERTERS)
    if refusal := unsupported(model, supported):
        raise refusal
    for node in model.graph.graph:
        if node.op_type in ("Resize", "Upsample") and (reason := _resize_problem(node)):
            raise ModelError(f"{node.op_type} `{node.name or node.outputs[0].name}` {reason}", _RESIZE_HINT)
    graph = model.graph.clone()
    held = replace(model, graph=graph) if hold_in_bytes(graph) else model
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter):
            module = onnx_importer(CONVERTERS)(to_proto(held))
    except Exception as error:  # the importer raises whatever its converters raise
        operator = re.search(r"Error converting operator (\w+)", chatter.getvalue())
        what = f"the operator `{operator.group(1)}`" if operator else f"`{model.name}`"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{what} is used in a form that cannot be compiled: {reason}",
            bind_hint(model.graph, "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled"),
        ) from error
    module = relax.transform.CanonicalizeBindings()(module)
    _check_outputs(module["main"].ret_ty, model)
    return module


_RESIZE_HINT = "export it with sizes in place of scales, and without antialiasing"


def _resize_problem(node: onnx_ir.Node) -> str:
    """What TVM's importer would silently get wrong; empty where it gets all right.

    It maps coordinates by the ratio of the sizes. ONNX takes the scales where they are given, which is something else
    where a scaled size is not whole.
    """
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    if given.get("antialias"):
        return "is antialiased, which cannot be compiled"
    if given.get("axes") or given.get("keep_aspect_ratio_policy") not in (None, "stretch"):
        return "resizes some axes only, or keeps the aspect ratio, which cannot be compiled"
    if given.get("coordinate_transformation_mode") == "align_corners":
        return ""
    value = node.inputs[2 if node.op_type == "Resize" else 1] if len(node.inputs) > 1 else None
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if value is None or value.const_value is None or shape is None or not shape.is_static():
        return ""
    for scale, size in zip(value.const_value.numpy(), shape.numpy(), strict=False):
        scaled = float(scale) * size
        if abs(scaled - round(scaled)) > 1e-4 * size:
            return f"scales {size} by {scale:g}, to no whole number, which cannot be compiled exactly"
    return ""


def _check_outputs(results: Any, model: Model) -> None:
    """Outputs are written to memory of the size that the model says: what the importer made must be just that."""
    fields = list(getattr(results, "fields", None) or [results])
    for expected, found in zip(model.outputs, fields, strict=True):
        sizes = getattr(found, "shape", None)
        if sizes is None or any(not hasattr(d, "value") for d in sizes):
            raise ModelError(
                f"the shape of output `{expected.name}` depends on the data, not only on the shapes of the inputs",
                bind_hint(model.graph, "please report this, with the model"),
            )
        dtype, shape = str(found.dtype), tuple(int(d) for d in sizes)
        if (dtype, shape) != (STORED.get(expected.dtype, expected.dtype), expected.shape):
            sizes = "x".join(map(str, shape))
            raise ModelError(
                f"output `{expected.name}` is {expected.dtype}[{'x'.join(map(str, expected.shape))}] in the model and "
                f"would be compiled as {dtype}[{sizes}]: TVM's importer takes an operator before it for another",
                "please report this, with the model",
            )
