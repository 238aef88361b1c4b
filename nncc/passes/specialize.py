"""From a portable ONNX graph to Relax operators for one target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nncc.errors import InternalError, ModelError
from nncc.ir import Model, Network
from nncc.scheduling import Template
from nncc.target import Target

__all__ = ["SPECIALIZE", "specialize"]


def specialize(model: Model, target: Target, templates: dict[str, Template]) -> Network:
    """Import the graph into Relax and run the passes of `SPECIALIZE`, in order.

    Raises
    ------
    ModelError
        The graph has an operator or an attribute that cannot be imported.
    """
    from nncc.compat import relax, tvm
    from nncc.frontend.relax_import import import_relax

    module = import_relax(model)
    with tvm.transform.PassContext(opt_level=3):
        module = relax.transform.DecomposeOpsForInference()(module)
    for name, apply in _table():
        try:
            module = apply(module, model, target, templates)
            relax.analysis.well_formed(module)
        except (tvm.error.InternalError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InternalError(f"specialize: the pass `{name}` failed on `{model.name}`: {error}") from error
    return Network(module, model.name, target, model.inputs, model.outputs)


def _table() -> tuple[tuple[str, Callable[..., Any]], ...]:
    from nncc.passes.choose_layout import choose_layout
    from nncc.passes.fold_relax import fold_relax
    from nncc.passes.own_sort import own_sort
    from nncc.passes.pack_matmul import pack_matmul

    return (
        ("fold_relax", lambda module, model, target, templates: fold_relax(module)),
        ("choose_layout", lambda module, model, target, templates: choose_layout(module, templates, target.hardware)),
        ("own_sort", lambda module, model, target, templates: own_sort(module, model.name)),
        ("pack_matmul", lambda module, model, target, templates: pack_matmul(module, templates, target.hardware)),
    )
