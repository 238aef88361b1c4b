"""Relax operators become TIR kernels: legalized, fused, and called with their destination."""

from __future__ import annotations

from nncc.ir import Kernels, Network

__all__ = ["lower"]


def lower(network: Network) -> Kernels:
    """Lower every operator to a TIR function and fuse elementwise ones into what they follow."""
    from nncc.compat import relax, tvm
    from nncc.passes.fold_relax import fold_relax

    transform = relax.transform
    with tvm.transform.PassContext(opt_level=3), network.target.tvm_target():
        module = transform.LegalizeOps()(network.module)
        module = fold_relax(module)
        module = tvm.transform.Sequential(
            [
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(fuse_opt_level=2),
                transform.FuseTIR(),
                transform.DeadCodeElimination(["main"]),
            ]
        )(module)
    return Kernels(module, network.name, network.target, network.inputs, network.outputs)
