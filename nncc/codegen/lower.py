"""Relax operators become TIR kernels: legalized, fused, and called with their destination."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from nncc.codegen.place import REGION
from nncc.errors import ModelError
from nncc.ir import Kernels, Network

__all__ = ["lower"]


def lower(network: Network) -> Kernels:
    """Lower every operator to a TIR function and fuse elementwise ones into what they follow."""
    from nncc.compat import relax, tvm
    from nncc.passes.context import Context
    from nncc.passes.fold_relax import fold_relax

    transform = relax.transform
    with tvm.transform.PassContext(opt_level=3), network.target.tvm_target():
        module = _legalized(network.module)
        module = fold_relax(module, Context(network.name, network.target))
        module = tvm.transform.Sequential(
            [
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(fuse_opt_level=2),
                transform.FuseTIR(),
                transform.DeadCodeElimination(["main"]),
            ]
        )(module)
    _check_legalized(module["main"])
    return Kernels(
        _narrow(module),
        network.name,
        network.target,
        network.inputs,
        network.outputs,
        decisions=network.decisions,
        quantization=network.quantization,
        acceleration=network.acceleration,
        regions={
            name: replace(region, bodies=tuple(map(lower, region.bodies))) for name, region in network.regions.items()
        },
    )


def _legalized(module: Any) -> Any:
    """Operators as TIR functions; ModelError where TVM refuses one, which it does by any exception."""
    from nncc.compat import relax

    try:
        return relax.transform.LegalizeOps()(module)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ModelError(f"an operator has a form that cannot be compiled: {reason[:300]}", _SHOW) from error


_SHOW = "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled"


def _narrow(module: Any) -> Any:
    """32-bit loops and indices where a kernel's tensors allow: TVM's importer has 64-bit ones, which run slower, and of
    which LoopPartition peels no tail.
    """
    from nncc.compat import IRModule, tirx

    functions = dict(module.functions.items())
    small = {v: f for v, f in functions.items() if isinstance(f, tirx.PrimFunc) and not _needs_64_bits(f)}
    narrowed = tirx.transform.ForceNarrowIndexToInt32()(IRModule(small, attrs=module.attrs))
    return IRModule({**functions, **dict(narrowed.functions.items())}, attrs=module.attrs)


def _needs_64_bits(function: Any) -> bool:
    """Whether a kernel has 64-bit integers as data, or a tensor of 2^31 elements or more."""
    from nncc.compat import is_buffer, structural_walk, tvm

    buffers = [p for p in function.params if is_buffer(p)]
    structural_walk(function.body, [(tvm.ir.TensorLoad, lambda load: buffers.append(load.source))])
    if len(buffers) == 0 or not all(is_buffer(p) for p in function.params):
        return True
    return any("int64" in str(b.dtype) or prod(int(d) for d in b.shape) >= 1 << 31 for b in buffers)


def _check_legalized(function: Any) -> None:
    """ModelError that lists the operators which TVM knows no loops for."""
    from nncc.compat import relax

    left = set()
    for block in function.body.blocks:
        for binding in block.bindings:
            name = str(getattr(getattr(binding.value, "op", None), "name", ""))
            if name == "relax.call_pure_packed" and str(binding.value.args[0].global_symbol) == REGION:
                continue
            if isinstance(binding.value, relax.Call) and name.startswith("relax.") and name not in _NO_WORK:
                left.add(name.removeprefix("relax."))
    if left:
        raise ModelError(
            f"the model uses {', '.join(f'`{name}`' for name in sorted(left))}, which cannot be compiled yet",
            _SHOW,
        )


_NO_WORK = {"relax.call_tir", "relax.reshape", "relax.memory.view"}
