"""An untrusted file becomes a valid ONNX graph, or a ModelError says why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.container import read_container
from nncc.frontend.microsoft import claim_strays
from nncc.frontend.specs import dtype_of
from nncc.frontend.tensors import MOST_AXES, check_tensors
from nncc.passes.bodies import subgraphs

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["read_graph"]

MOST_DEPTH = 8
"""Graphs in graphs: what looks into all of them at each level would take too long for a file that is all nesting."""
MOST_NODES = 1_000_000
"""Nodes after inlining: a model of more is refused, since nested functions can multiply without bound."""


def read_graph(path: str | Path, *, lists: bool = False) -> onnx_ir.Model:
    """Read and check an ONNX file; its inputs may still have open dimensions.

    Local functions are inlined, initializers are no inputs, every input and output is a tensor, or with `lists` perhaps
    a list of them or optional, and all weights are in memory. Raises ModelError.
    """
    import onnx_ir
    from google.protobuf.message import DecodeError

    path = Path(path)
    proto = read_container(path)
    external = check_tensors(proto, path.parent)
    _refuse_maps(proto)
    strays = claim_strays(proto)
    _check(_without_weights(proto) if external and strays else proto, path, external and not strays)
    try:
        graph = onnx_ir.from_proto(proto)
        onnx_ir.external_data.set_base_dir(graph.graph, str(path.parent))
        if external:
            onnx_ir.external_data.load_to_model(graph)
    except (onnx_ir.serde.SerdeError, DecodeError, ValueError, TypeError, OSError) as error:
        raise ModelError(f"`{path}` cannot be read: {error.__cause__ or error}") from error
    _inline(graph)
    _check_depth(graph.graph)
    main = graph.graph
    main.inputs[:] = [value for value in main.inputs if value.name not in main.initializers]
    graph.ir_version = max(graph.ir_version or 0, 4)  # before 4, every initializer had to be an input
    for value in tuple(main.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del main.initializers[str(value.name)]
    if not main.outputs:
        raise ModelError(f"`{path}` has no outputs: there is nothing to compute")
    for what, values in (("input", main.inputs), ("output", main.outputs)):
        for value in values:
            tensor = value.type is None or isinstance(value.type, onnx_ir.TensorType)
            if value.shape is not None and len(value.shape) > MOST_AXES:
                raise ModelError(f"{what} `{value.name}` has {len(value.shape):,} axes; nncc takes {MOST_AXES}")
            if (tensor or not lists) and (what == "input" or value.type is not None):
                dtype_of(value, what)
    return graph


def _check(proto: onnx.ModelProto, path: Path, external: bool) -> None:
    """Versions, then onnx's own checker."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not proto.opset_import:
        raise ModelError(f"`{path}` does not say which opset it uses", "export it again: the file is incomplete")
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(
                f"`{path}` uses opset {opset.version}; the installed onnx {onnx.__version__} knows up to {newest}",
                f"export with `opset_version={newest}`, or install a newer onnx",
            )
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"`{path}` has IR version {proto.ir_version}; the installed onnx {onnx.__version__} knows up to "
            f"{onnx.IR_VERSION}",
            "install a newer onnx, or save the model with an older one",
        )
    values = (*proto.graph.input, *proto.graph.output)
    bare = [
        v.type.tensor_type
        for v in values
        if v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape")
    ]
    untyped = [v for v in proto.graph.output if not v.type.WhichOneof("value")]
    try:
        for value in untyped:  # what computes it says so: ONNX Runtime takes that too
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            value.type.tensor_type.shape.SetInParent()
        for tensor_type in bare:  # the checker wants a shape, any shape; ONNX Runtime and people do without
            tensor_type.shape.SetInParent()
        onnx.checker.check_model(str(path) if external else proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = "; ".join(line for line in lines if not line.startswith("==> Context:"))[:600]
        where = next((line.removeprefix("==> Context:").strip() for line in lines if line.startswith("==> ")), "")
        where = f" ({where[:200]})" if where else ""
        raise ModelError(f"`{path}` is not valid ONNX: {text}{where}", "export it again, or ask its author") from error
    finally:
        for tensor_type in bare:
            tensor_type.ClearField("shape")
        for value in untyped:
            value.ClearField("type")


def _refuse_maps(proto: onnx.ModelProto) -> None:
    """ModelError for inputs and outputs that are maps, or lists of them."""
    for what, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            kind = value.type.sequence_type.elem_type if value.type.HasField("sequence_type") else value.type
            if kind.HasField("map_type"):
                raise ModelError(
                    f"{what} `{value.name}` is made of maps, which are no tensors",
                    "export the model with tensors instead: with skl2onnx, `options={'zipmap': False}`",
                )


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose tensors in other files, which have been checked, are empty: the checker would look for these."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for tensor in bare.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
            tensor.raw_data = b""
    return bare


def _inline(graph: onnx_ir.Model) -> None:
    """Replace every call of a model-local function by its body."""
    from onnx_ir.passes.common import InlinePass

    if not graph.functions:
        return
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: object, inside: tuple[tuple[str, str, str], ...]) -> int:
        total = 0
        for node in nodes:  # type: ignore[attr-defined]
            key = node.op_identifier()
            if key in inside:
                raise ModelError(f"function `{key[1]}` calls itself", "ONNX functions cannot be recursive")
            if key in graph.functions and key not in sizes:
                sizes[key] = size(graph.functions[key], (*inside, key))
            total += sizes.get(key, 1)
        return total

    if (total := size(graph.graph, ())) > MOST_NODES:
        raise ModelError(f"the model has {total:,} operators once its functions are inlined; nncc takes {MOST_NODES:,}")
    try:
        InlinePass()(graph)
    except Exception as error:  # onnx_ir wraps whatever went wrong in a function body
        raise ModelError(f"the functions of the model cannot be inlined: {error.__cause__ or error}") from error


def _check_depth(graph: onnx_ir.Graph, depth: int = 0) -> None:
    """ModelError where control flow is nested deeper than `MOST_DEPTH`."""
    if depth > MOST_DEPTH:
        raise ModelError(
            f"the model's control flow is nested more than {MOST_DEPTH} deep, in `{graph.name}`",
            "export it again with less of it",
        )
    for node in graph:
        for inner in subgraphs(node):
            _check_depth(inner, depth + 1)
