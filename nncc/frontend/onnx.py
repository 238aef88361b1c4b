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
from nncc.frontend.container import read_container
from nncc.frontend.expand_functions import expand_functions
from nncc.frontend.lists import check_lists, open_inputs, open_outputs
from nncc.frontend.microsoft import claim_strays
from nncc.frontend.quantization import check_quantization
from nncc.frontend.shapes import fix_shapes
from nncc.frontend.tensors import LARGEST, MOST_AXES, check_tensors
from nncc.frontend.types import check_operand_types, check_outputs
from nncc.ir import Model, TensorSpec
from nncc.passes.bodies import subgraphs
from nncc.passes.float_quantization import float_quantization
from nncc.passes.rewriting import is_op, static_shape

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["import_onnx", "read_graph", "save", "specs", "to_proto", "unsupported"]

MOST_DEPTH = 8
"""Graphs in graphs: what looks into all of them at each level would take too long for a file that is all nesting."""
MOST_NODES = 1_000_000
"""Nodes after inlining: a model of more is refused, since nested functions can multiply without bound."""

MOST_TRIAL_BYTES = 2**31
"""Of inputs: with larger ones a model is not run while it is imported."""


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


def _dtype(value: onnx_ir.Value, what: str) -> str:
    import onnx_ir

    if not isinstance(value.type, onnx_ir.TensorType) and value.type is not None:
        kind = type(value.type).__name__.removesuffix("Type").lower()
        raise ModelError(f"{what} `{value.name}` is a {kind}, not a tensor", "nncc takes and gives tensors only")
    if value.dtype is None or value.dtype == onnx_ir.DataType.UNDEFINED:
        raise ModelError(f"{what} `{value.name}` has no data type", "export the model again: the file is incomplete")
    if value.dtype == onnx_ir.DataType.STRING:
        raise ModelError(f"{what} `{value.name}` holds strings", "cut the model after its text processing")
    return value.dtype.numpy().name


_CUT = "cut the model before it: for a detector, before its non-maximum suppression"


def specs(values: Sequence[onnx_ir.Value], what: str, hint: str | None = _CUT) -> tuple[TensorSpec, ...]:
    """A TensorSpec for each value; `what` ("input", "output") names them in errors, `hint` says what to do."""
    found = []
    for value in values:
        dtype = _dtype(value, what)
        shape = static_shape(value)
        if shape is None:
            raise ModelError(
                f"the shape of {what} `{value.name}` depends on the data, not only on the shapes of the inputs",
                hint,
            )
        found.append(TensorSpec(str(value.name), dtype, shape))
    return tuple(found)


def _standard(node: onnx_ir.Node) -> bool:
    return node.domain in ("", "ai.onnx")


def _derive_outputs(graph: onnx_ir.Model, name: str, inputs: tuple[TensorSpec, ...]) -> None:
    """Set output shapes that inference left open: fold shape arithmetic, then run the model if it ends."""
    import onnx_ir

    from nncc.passes.expand_loops import expand_loops
    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.integer_matmuls import integer_matmuls
    from nncc.passes.qoperators import qoperators_to_qdq
    from nncc.passes.resolve_sequences import resolve_sequences

    trial = graph.clone()
    for pass_ in (qoperators_to_qdq, integer_matmuls):  # inference knows the standard operators only
        pass_(trial)
    for _ in range(4):
        infer_shapes(trial)
        if not sum(pass_(trial).rewrites for pass_ in (expand_loops, resolve_sequences, fold_constants)):
            break
    for value, found in zip(graph.graph.outputs, trial.graph.outputs, strict=True):
        if static_shape(value) is None and static_shape(found) is not None:
            value.shape, value.type = found.shape, value.type or found.type
    unknown = [value for value in graph.graph.outputs if static_shape(value) is None]
    if not unknown or any(is_op(n, "Loop") for n in onnx_ir.traversal.RecursiveGraphIterator(trial.graph)):
        return  # a loop might run without end
    from nncc.errors import RunError
    from nncc.frontend.samples import fill
    from nncc.verify import reference

    names = [str(value.name) for value in unknown]
    model = Model(trial, name, inputs, ())
    if (nbytes := sum(spec.nbytes for spec in inputs)) > MOST_TRIAL_BYTES:
        raise ModelError(
            f"the shape of output `{names[0]}` cannot be derived from the shapes of the inputs, and the model cannot be"
            f" tried out: its inputs have {nbytes:,} bytes",
            "choose smaller inputs with `--shape`",
        )
    try:
        runs = [reference(model, fill(inputs, mode, seed=7), outputs=names) for mode in ("zeros", "random", "ones")]
    except RunError as error:
        standard = {node.op_type for node in onnx_ir.traversal.RecursiveGraphIterator(trial.graph) if _standard(node)}
        if foreign := unsupported(model, {"": standard}):
            raise foreign from error
        raise ModelError(
            f"the shape of output `{names[0]}` cannot be derived from the shapes of the inputs: {error.message}",
            bind_hint(graph, "it may depend on the data: cut the model before it"),
        ) from error
    for value in unknown:
        shapes = {tuple(run[str(value.name)].shape) for run in runs}
        if len(shapes) == 1:
            value.shape = onnx_ir.Shape(shapes.pop())


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
                _dtype(value, what)
    return graph


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
    import onnx_ir

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
    made = (v for node in onnx_ir.traversal.RecursiveGraphIterator(main) for v in node.outputs)
    for value in (*main.inputs, *made):
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
    inputs = specs(main.inputs, "input")
    if any(static_shape(value) is None for value in main.outputs):
        _derive_outputs(graph, name or path.stem, inputs)
    outputs = specs(main.outputs, "output", bind_hint(graph, _CUT))
    outputs = tuple(replace(spec, extents=selected.get(spec.name, ())) for spec in outputs)
    return Model(graph, name or path.stem, inputs, outputs)


def to_proto(model: Model) -> onnx.ModelProto:
    """The model as a protobuf, weights inside (in memory it may pass 2 GiB; serialized it may not)."""
    import onnx_ir

    return onnx_ir.to_proto(model.graph)


def save(model: Model, path: str | Path) -> None:
    """Write the model as an ONNX file; weights of 2 GiB and more go to a file beside it."""
    import onnx_ir

    path = Path(path)
    weights = sum(v.const_value.nbytes for v in model.graph.graph.initializers.values() if v.const_value is not None)
    external = f"{path.name}.data" if weights > 2**31 - 2**26 else None
    onnx_ir.save(model.graph, path, external_data=external)


def unsupported(model: Model, supported: Mapping[str, set[str]]) -> ModelError | None:
    """One error that lists every operator outside `supported` (domain -> operator names), or None."""
    import onnx_ir

    found: dict[tuple[str, str], list[str]] = {}
    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type not in supported.get(domain, ()):
            found.setdefault((domain, node.op_type), []).append(node.name or str(node.outputs[0].name))
    if not found:
        return None
    lines = []
    for (domain, op), names in sorted(found.items()):
        version = model.graph.opset_imports.get(domain, "?")
        some = ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
        lines.append(f"  {domain or 'ai.onnx'} {op} (opset {version}): {len(names)} x, {some}")
    count = f"{len(found)} operator{'s' if len(found) > 1 else ''} that nncc cannot compile"
    hint = "cut the model before them, or export it with other operators (a lower opset often helps)"
    return ModelError(f"`{model.name}` uses {count}:\n" + "\n".join(lines), hint)
