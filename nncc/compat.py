"""What moves between TVM releases, imported from here only (checked against 0.27).

Importing this module imports TVM, which takes seconds: only the target half does so, inside its functions.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm
from tvm import relax, s_tir, te, tirx, topi
from tvm.ir import GenericConst, GlobalVar, IRModule, PointerType, PrimType, StringImm
from tvm.relax.frontend.onnx import onnx_frontend
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as statements
from tvm.sym import Analyzer
from tvm_ffi.structural import structural_equal, structural_map, structural_walk

from nncc.kernels.dots import FENCE, PRODUCT, ROUND
from nncc.operators.attributes import Attributes

__all__ = [
    "Analyzer",
    "GenericConst",
    "GlobalVar",
    "IRModule",
    "PointerType",
    "PrimType",
    "Schedule",
    "StringImm",
    "constant_array",
    "importable_operators",
    "is_buffer",
    "loop_nest",
    "metaschedule",
    "onnx_importer",
    "pure_operator",
    "relax",
    "s_tir",
    "statements",
    "static_shape",
    "structural_equal",
    "structural_map",
    "structural_walk",
    "te",
    "tirx",
    "topi",
    "trace_mutator",
    "tvm",
    "vectorize_calls",
]


def is_buffer(parameter: Any) -> bool:
    """Whether a TIR function's parameter is a buffer; 0.27 has no buffer_map, a parameter's type tells."""
    return type(parameter.ty).__name__ == "BufferType"


def vectorize_calls(name: str) -> None:
    """Let TVM's vectorizer take calls of an intrinsic in vectors; it knows that of exp, but of erf leaves a loop."""
    known = name in tvm.ir.Op.list_op_names()
    if not known or tvm.ir.Op.get(name).get_attr("TVectorizable") is None:
        tvm.ir.register_op_attr(name, "TVectorizable", True)


def pure_operator(name: str) -> str:
    """Make an operator of ours known to TVM: it has no effects, and is vectorized as a whole; its name."""
    vectorize_calls(name)
    if tvm.ir.Op.get(name).get_attr("TCallEffectKind") is None:
        tvm.ir.register_op_attr(name, "TCallEffectKind", 1)  # tirx::CallEffectKind::kPure
        tvm.ir.register_op_attr(name, "TScriptPrinterName", name.removeprefix("tirx."))
    return name


def loop_nest(
    outputs: Sequence[tuple[Sequence[int], str]], inputs: Sequence[Any], body: Callable[[Any, Any], None], name: str
) -> Any:
    """TE tensors of these shapes and dtypes, written by statements instead of one expression an element.

    `body` gets the buffers of the inputs and of the outputs, whose elements are counted in one row, and writes what
    `statements` has: loops, conditions, and assignments to elements of buffers.
    """

    def generated(given: Any, made: Any) -> Any:
        with IRBuilder() as builder:
            with statements.seq_scope():
                body([statements.buffer_proxy(b) for b in given], [statements.buffer_proxy(b) for b in made])
            return builder.get()

    shapes, dtypes = [tuple(shape) for shape, _ in outputs], [dtype for _, dtype in outputs]
    return te.extern(shapes, list(inputs), generated, dtype=dtypes, name=name)


def metaschedule() -> Any:
    """MetaSchedule. Its TuneContext imports the intrinsics of all targets, which takes half a minute and which nncc has
    no use for: an empty module stands in their place."""
    sys.modules.setdefault("tvm.s_tir.tensor_intrin", types.ModuleType("tvm.s_tir.tensor_intrin"))
    from tvm.s_tir import meta_schedule

    return meta_schedule


def trace_mutator(mutated: Callable[[Any], Any]) -> Any:
    """A mutator of MetaSchedule: a function from a trace to another one, or None."""
    from tvm.ir.utils import derived_object

    base: Any = metaschedule().mutator.PyMutator

    @derived_object
    class Mutator(base):
        def _initialize_with_tune_context(self, context: Any) -> None:
            pass

        def apply(self, trace: Any, _: Any) -> Any:
            return mutated(trace)

        def clone(self) -> Any:
            return self

    return Mutator()


def static_shape(expr: Any) -> tuple[int, ...]:
    """The shape of a Relax expression whose every dimension is known."""
    return tuple(int(d) for d in expr.ty.shape)


def constant_array(expr: Any) -> Any:
    """The numpy array of a Relax constant."""
    return expr.value.numpy()


def importable_operators() -> dict[str, set[str]]:
    """By domain, the ONNX operators that TVM's importer takes; it looks at names only."""
    contributed = {"BiasGelu", "EmbedLayerNormalization", "FastGelu", "SkipLayerNormalization"}  # none of the standard
    return {"": set(onnx_frontend._get_convert_map()) - contributed}


def _empty_inputs(graph: Any) -> dict[str, list[int]]:
    """The shapes of inputs that have no elements: the importer takes a size of 0 for one that is not known."""
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input}
    return {name: shape for name, shape in shapes.items() if 0 in shape}


def onnx_importer(
    converters: Mapping[str, Callable[[Any, Sequence[Any], Attributes], Any]],
) -> Callable[[Any], Any]:
    """A function from an ONNX ModelProto to a Relax module, weights inside; `converters` go before TVM's own, which
    take what these return None for.
    """

    class Importer(onnx_frontend.ONNXGraphImporter):
        def _check_for_unsupported_ops(self, graph: Any) -> None:
            """Nothing: the caller has checked, and knows of the converters."""

        def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
            if op_name not in converters:
                return super()._convert_operator(op_name, inputs, attrs, opset)
            given = [inputs[i] for i in range(len(inputs))]
            facts = attrs["tvm_custom"]
            attributes = Attributes(
                {name: value for name, value in attrs.items() if name != "tvm_custom"},
                name=facts["name"],
                opset=opset,
                outputs=facts["num_outputs"],
            )
            converted = converters[op_name](self.bb, given, attributes)
            if converted is None:
                return super()._convert_operator(op_name, inputs, attrs, opset)
            return self.bb.normalize(converted)

    def load(proto: Any) -> Any:
        opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
        importer = Importer(_empty_inputs(proto.graph), "float32", keep_params_in_input=False, sanitize=True)
        return importer.from_onnx(proto.graph, opset)

    return load


for _name in (PRODUCT, ROUND, FENCE):  # at once: a kernel that another process has written down names them
    pure_operator(_name)
