"""Import: an untrusted ONNX file becomes a Model with static shapes, or a ModelError says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.frontend.binding import bind_hint, bind_inputs
from nncc.frontend.bounded import bound_outputs
from nncc.frontend.derive_outputs import derive_outputs
from nncc.frontend.expand_functions import expand_functions
from nncc.frontend.lists import check_lists, open_inputs, open_outputs
from nncc.frontend.quantization import check_quantization
from nncc.frontend.read_graph import read_graph
from nncc.frontend.shapes import fix_shapes
from nncc.frontend.specs import CUT, specs
from nncc.frontend.tensors import LARGEST, MOST_AXES
from nncc.frontend.types import check_operand_types, check_outputs
from nncc.ir import Model
from nncc.passes.float_quantization import float_quantization
from nncc.passes.rewriting import static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["import_onnx"]


def import_onnx(
    path: str | Path,
    *,
    shape: Mapping[str, Sequence[int | str]] | None = None,
    bind: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Model:
    """Read, check and fix an ONNX file.

    `shape` gives the dimensions of inputs that the file leaves open; the inputs in `bind` become constants (see
    `bind_inputs`); `name` is the model's name, by default the file's stem. Local functions are inlined, initializers
    are no inputs, every input and output has a static shape, and all weights are in memory. Raises ModelError.
    """
    from nncc.passes.explicit_defaults import explicit_defaults
    from nncc.passes.floor_pools import floor_pools
    from nncc.passes.infer_shapes import infer_shapes

    path = Path(path)
    graph = read_graph(path, lists=True)
    sizes_of = open_inputs(graph, shape or {}, bind or {})
    bind_inputs(graph, bind or {})
    explicit_defaults(graph)
    fix_shapes(graph, sizes_of)
    infer_shapes(graph)
    while floor_pools(graph).rewrites:
        infer_shapes(graph)
    check_lists(graph)
    check_quantization(graph)  # what others write for the operators below may have scales of any sign
    expand_functions(graph)
    main = graph.graph
    float_quantization(graph)
    selected = bound_outputs(graph)
    open_outputs(graph)
    check_operand_types(graph)
    check_outputs(graph)
    _check_sizes(main)
    inputs = specs(main.inputs, "input")
    if any(static_shape(value) is None for value in main.outputs):
        derive_outputs(graph, name or path.stem, inputs)
    outputs = specs(main.outputs, "output", bind_hint(graph, CUT))
    outputs = tuple(replace(spec, extents=selected.get(spec.name, ())) for spec in outputs)
    return Model(graph, name or path.stem, inputs, outputs)


def _check_sizes(graph: onnx_ir.Graph) -> None:
    """ModelError for tensors, inputs or made by a node, of more axes or bytes than nncc takes."""
    import onnx_ir

    made = (v for node in onnx_ir.traversal.RecursiveGraphIterator(graph) for v in node.outputs)
    for value in (*graph.inputs, *made):
        sizes = static_shape(value)
        if sizes is None:
            continue
        if len(sizes) > MOST_AXES:
            raise ModelError(f"tensor `{value.name}` would have {len(sizes):,} axes; nncc takes {MOST_AXES}")
        text = f"tensor `{value.name}` would have the shape {'x'.join(map(str, sizes))}"
        if min(sizes, default=0) < 0:
            raise ModelError(f"{text}: less than nothing")
        if prod(sizes) * (value.dtype.bitwidth if value.dtype else 8) // 8 > LARGEST:
            raise ModelError(f"{text}: over 2^40 bytes")
