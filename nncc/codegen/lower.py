"""Relax operators become TIR kernels: legalized, fused, and called with their destination."""

from __future__ import annotations

from typing import Any

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
        module = transform.LegalizeOps()(network.module)
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
    return Kernels(module, network.name, network.target, network.inputs, network.outputs)


def _check_legalized(function: Any) -> None:
    """ModelError that lists the operators which TVM knows no loops for."""
    from nncc.compat import relax

    left = set()
    for block in function.body.blocks:
        for binding in block.bindings:
            name = str(getattr(getattr(binding.value, "op", None), "name", ""))
            if isinstance(binding.value, relax.Call) and name.startswith("relax.") and name not in _NO_WORK:
                left.add(name.removeprefix("relax."))
    if left:
        raise ModelError(
            f"the model uses {', '.join(f'`{name}`' for name in sorted(left))}, which cannot be compiled yet",
            "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled",
        )


_NO_WORK = {"relax.call_tir", "relax.reshape", "relax.memory.view"}
