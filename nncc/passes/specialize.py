"""From a portable ONNX graph to Relax operators for one target. Importing it imports TVM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import get_args

from nncc.compat import IRModule, relax, tvm
from nncc.config import Precision
from nncc.errors import InternalError, UsageError
from nncc.frontend.relax_import import import_relax
from nncc.ir import Model, Network
from nncc.kernels.choices import GraphChoices
from nncc.kernels.dots import dot_of
from nncc.kernels.templates import Template
from nncc.passes.accelerate import accelerate
from nncc.passes.activation_sign import to_signed, to_unsigned
from nncc.passes.choose_layout import choose_layout
from nncc.passes.clamp_take import clamp_take
from nncc.passes.context import Context
from nncc.passes.divide_by_constants import divide_by_constants
from nncc.passes.fold_dequantize import fold_dequantize
from nncc.passes.fold_relax import fold_relax
from nncc.passes.fuse_attention import fuse_attention
from nncc.passes.gpu_attention import gpu_attention
from nncc.passes.gpu_concatenations import gpu_concatenations
from nncc.passes.gpu_halves import gpu_halves
from nncc.passes.gpu_joint_products import gpu_joint_products
from nncc.passes.gpu_layout import gpu_layout
from nncc.passes.gpu_products import gpu_products
from nncc.passes.integer_products import integer_products
from nncc.passes.keep_integers import keep_integers
from nncc.passes.outline import outline, refuse_regions
from nncc.passes.own_quantization import own_quantization
from nncc.passes.own_recurrent import own_recurrent
from nncc.passes.own_rows import own_rows
from nncc.passes.own_sort import own_sort
from nncc.passes.pack_matmul import pack_matmul
from nncc.passes.plain_images import plain_images
from nncc.passes.relax_grids import is_quantized
from nncc.passes.requantize import requantize
from nncc.passes.safe_divisors import safe_divisors
from nncc.passes.signals_as_images import signals_as_images
from nncc.passes.softmax_in_place import softmax_in_place
from nncc.passes.sums_in_float32 import sums_in_float32
from nncc.passes.tabulate import tabulate
from nncc.passes.volumes_as_images import volumes_as_images
from nncc.passes.weight_only import weight_only
from nncc.quant.widen import widen
from nncc.target import Target

__all__ = ["SPECIALIZE", "SPECIALIZE_ACCELERATOR", "SPECIALIZE_GPU", "specialize"]

SPECIALIZE = (
    own_recurrent,
    signals_as_images,
    keep_integers,
    integer_products,
    requantize,
    tabulate,
    weight_only,
    fold_relax,
    fold_dequantize,
    clamp_take,
    safe_divisors,
    divide_by_constants,
    volumes_as_images,
    choose_layout,
    plain_images,
    own_quantization,
    own_sort,
    softmax_in_place,
    fuse_attention,
    own_rows,
    pack_matmul,
)
"""Rewrites for one target: ``pass_(module: IRModule, context: Context) -> IRModule``, run once, in this order."""

SPECIALIZE_ACCELERATOR = tuple(accelerate if pass_ is choose_layout else pass_ for pass_ in SPECIALIZE)
"""The same beside an accelerator, which has channels in blocks of its own."""

SPECIALIZE_GPU = (
    own_recurrent,
    signals_as_images,
    keep_integers,
    integer_products,
    requantize,
    tabulate,
    weight_only,
    fold_relax,
    fold_dequantize,
    clamp_take,
    safe_divisors,
    divide_by_constants,
    volumes_as_images,
    gpu_joint_products,
    gpu_halves,
    gpu_layout,
    own_quantization,
    softmax_in_place,
    gpu_attention,
    gpu_concatenations,
    own_rows,
    gpu_products,
)
"""The same for GPUs."""


def specialize(
    model: Model,
    target: Target,
    templates: Mapping[str, Template],
    graph: GraphChoices | None = None,
    precision: Precision = "float32",
    open_sizes: frozenset[int] = frozenset(),
) -> Network:
    """Import the graph into Relax and run the passes of `SPECIALIZE`, or of `SPECIALIZE_GPU`, in order.

    `graph` answers what there are several ways for; with the defaults where it is None. `open_sizes` are sizes of open
    dimensions.

    Raises
    ------
    ModelError
        The graph has an operator or an attribute that cannot be imported.
    UsageError
        The target has no such precision.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"`--precision {precision}` is none of {', '.join(get_args(Precision))}")
    hardware = target.hardware
    tensor_gflops = hardware.tensor_fp16_gflops if precision == "float16" else hardware.tensor_tf32_gflops
    if precision != "float32" and not tensor_gflops:
        raise UsageError(
            f"`--precision {precision}` needs tensor cores that take it, which `{target.name}` does not have",
            f"GPUs have them from compute capability {'7.5' if precision == 'float16' else '8.0'} on: "
            "`nncc targets` lists targets",
        )
    context = Context(model.name, target, templates, graph or GraphChoices(), precision, open_sizes)
    given = model
    model, outlined = outline(given)
    refuse_regions(given, outlined, target)

    def network(body: Model) -> Network:
        return specialize(body, target, templates, context.graph, precision, open_sizes)

    regions = {name: replace(region, bodies=tuple(map(network, region.bodies))) for name, region in outlined.items()}
    module = import_relax(_portable_for(model, target), outlined)
    with tvm.transform.PassContext(opt_level=3):
        module = relax.transform.DecomposeOpsForInference()(module)
    quantized = is_quantized(module)
    for pass_ in _passes(target):
        try:
            module = pass_(module, context)
            relax.analysis.well_formed(module)
        except (tvm.error.InternalError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InternalError(f"specialize: the pass `{pass_.__name__}` failed on `{model.name}`: {error}") from error
    facts = context.layers.facts() if quantized else None
    offload = context.offload.facts() if hardware.accelerator is not None else None
    made = module, model.name, target, model.inputs, model.outputs
    return Network(*made, context.graph.decisions(), facts, offload, regions)


def _passes(target: Target) -> tuple[Callable[[IRModule, Context], IRModule], ...]:
    if target.hardware.multiprocessors:
        return SPECIALIZE_GPU
    return SPECIALIZE if target.hardware.accelerator is None else SPECIALIZE_ACCELERATOR


def _portable_for(model: Model, target: Target) -> Model:
    """The ONNX graph as the target computes it: the same function, with quantized activations of the sign that is
    multiplied, int8 by accelerators, else that of the processor's instruction, and sums in float32.

    GPUs take both signs, and compute what is float16 in the model in float32, or as the precision says.
    """
    graph = model.graph.clone()
    if target.hardware.multiprocessors:
        widen(graph)
    else:
        data = "int8" if target.hardware.accelerator is not None else dot_of(target.hardware).data
        if wanted := {"int8": to_signed, "uint8": to_unsigned}.get(data):
            wanted(graph)
    sums_in_float32(graph)
    return replace(model, graph=graph)
