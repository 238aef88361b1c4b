"""nncc: an ONNX model in, one small, fast, self-contained shared library out.

    artifact = nncc.compile("model.onnx", target="rpi4")
    module = nncc.load("model-native/model.so", threads=2)
    outputs = module.run({"input": array})
    made = nncc.quantize("model.onnx", calibration="samples/", max_drop="0.5%")
    made = nncc.prune("model.onnx", calibration="samples/", sparsity="50%")
    made = nncc.distill("model.pruned.onnx", teacher="model.onnx", data="unlabelled/")

TVM and onnx are imported by the stages that need them; `load` needs numpy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncc.version import VERSION as __version__

if TYPE_CHECKING:
    from nncc.api import compile
    from nncc.compress.api import prune
    from nncc.distillation.api import distill
    from nncc.errors import NnccError
    from nncc.quant.api import quantize
    from nncc.runtime.loader import Module, load
    from nncc.target import Target

__all__ = ["Module", "NnccError", "Target", "__version__", "compile", "distill", "load", "prune", "quantize"]

_HOME = {
    "compile": "nncc.api",
    "distill": "nncc.distillation.api",
    "prune": "nncc.compress.api",
    "quantize": "nncc.quant.api",
    "NnccError": "nncc.errors",
    "Module": "nncc.runtime.loader",
    "load": "nncc.runtime.loader",
    "Target": "nncc.target",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nncc' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
