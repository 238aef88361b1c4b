"""ONNX to Relax through TVM's importer, its failures turned into errors that name the node."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.frontend.binding import bind_hint
from nncc.frontend.bounded import SELECTING, refuse_used, used_selections
from nncc.frontend.narrow_types import STORED, hold_in_bytes
from nncc.frontend.proto import to_proto
from nncc.frontend.tensors import LARGEST
from nncc.frontend.unsupported import unsupported
from nncc.ir import Model, Region

if TYPE_CHECKING:
    import onnx

    from nncc.operators.attributes import Attributes

__all__ = ["import_relax", "known_operators"]


def known_operators() -> dict[str, set[str]]:
    """By domain, the names of the ONNX operators that have a way into Relax, control flow by `nncc.passes.outline`;
    some of their forms may have none."""
    from nncc.compat import importable_operators
    from nncc.frontend.converters import CONVERTERS

    supported = importable_operators()
    supported[""] |= {*CONVERTERS, "If", "Loop", "Scan"}
    return supported


def import_relax(model: Model, regions: Mapping[str, Region] | None = None):
    """The Relax module of a portable model: one function ``main``, weights as constants, shapes static.

    The operator ``Region``, which `nncc.passes.outline` puts in place of control flow, becomes a call of what is not
    here: `regions` say what it gives.

    Raises ModelError that lists every operator which TVM's importer does not know.
    """
    from nncc.compat import onnx_importer, relax
    from nncc.frontend.converters import CONVERTERS
    from nncc.operators.operands import OperatorError
    from nncc.operators.region import region_call
    from nncc.operators.selection import PADDED

    known = known_operators() | {"nncc": {"Region"}}
    if refusal := unsupported(model, known):
        raise refusal
    refuse_used(model)
    used = used_selections(model)

    def in_place(convert: Callable[..., Any]) -> Callable[..., Any]:
        """The converter of an operator that selects, which is told whether others use what it does."""

        def converted(builder: Any, inputs: Any, attributes: Attributes) -> Any:
            attributes[PADDED] = attributes.name in used
            return convert(builder, inputs, attributes)

        return converted

    converters = {**CONVERTERS, **{name: in_place(CONVERTERS[name]) for name in SELECTING}}
    graph = model.graph.clone()
    held = replace(model, graph=graph) if hold_in_bytes(graph) else model
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter):
            module = onnx_importer({**converters, "Region": region_call(regions or {})})(_proto(held))
    except OperatorError:
        raise
    except Exception as error:  # the importer raises whatever its converters raise
        operator = re.search(r"Error converting operator (\w+)", chatter.getvalue())
        what = f"the operator `{operator.group(1)}`" if operator else f"`{model.name}`"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{what} is used in a form that cannot be compiled: {reason}",
            bind_hint(model.graph, getattr(error, "hint", None))
            or "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled",
        ) from error
    module = relax.transform.CanonicalizeBindings()(module)
    _check_sizes(module["main"])
    _check_outputs(module["main"].ret_ty, model)
    return module


def _proto(model: Model) -> onnx.ModelProto:
    """The model as a protobuf, every node with a name, and no result that is left out behind its last one.

    Constants of no numbers are tensors: TVM's importer finds nothing in their lists.
    """
    import numpy as np
    import onnx

    proto = to_proto(model)
    for node in proto.graph.node:
        for entry in node.attribute:
            dtype = {"value_ints": np.int64, "value_floats": np.float32}.get(entry.name)
            if node.op_type == "Constant" and dtype is not None and not (entry.ints or entry.floats):
                nothing = onnx.numpy_helper.from_array(np.zeros(0, dtype))
                entry.CopyFrom(onnx.helper.make_attribute("value", nothing))
        while len(node.output) > 1 and not node.output[-1]:
            del node.output[-1]
        node.name = node.name or node.output[0]
    return proto


def _check_sizes(function: Any) -> None:
    """Sizes that only the importer finds out may be anything: ModelError for what no memory can hold."""
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        sizes = getattr(binding.var.ty, "shape", None)
        if sizes is None or any(not hasattr(d, "value") for d in sizes):
            continue
        shape = [int(d) for d in sizes]
        if min(shape, default=0) < 0 or prod(shape) > LARGEST:
            what = str(getattr(getattr(binding.value, "op", None), "name", "an operator")).removeprefix("relax.")
            raise ModelError(
                f"`{what}` would give a tensor of the shape {'x'.join(map(str, shape))}",
                "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled",
            )


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
