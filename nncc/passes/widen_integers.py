"""Integers of 4 and 2 bits are held in 8: DQ(q4) = DQ(q8), Q4(x) = clip(Q8(x), smallest, largest)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.movements import COPYING
from nncc.passes.rewriting import Report, add_constant, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["NARROW", "widen_integers"]

NARROW = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}
"""By ONNX's name of a type: its smallest and its largest number."""

_COPYING = ("QuantizeLinear", *COPYING)


def _narrow(value: onnx_ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name in NARROW


def widen_integers(graph: onnx_ir.Model, interface: bool = False) -> Report:
    """Widen in place, all of a model's narrow integers or, where one cannot be, none.

    Inputs and outputs of the model are among those that cannot, unless `interface` says otherwise.
    """
    import numpy as np
    import onnx_ir

    report = Report()
    main = graph.graph
    makers = [node for node in main if any(_narrow(out) for out in node.outputs)]
    initializers = [value for value in main.initializers.values() if _narrow(value)]
    for node in makers:
        if not is_op(node, *_COPYING):
            report.skip(node, "its result is of 4 or 2 bits, which only quantization and reshapes may make")
    if report.refusals or (not interface and any(map(_narrow, (*main.inputs, *main.outputs)))):
        return report

    def wide(value: onnx_ir.Value) -> np.dtype:
        assert value.dtype is not None
        return np.dtype(np.uint8 if value.dtype.name.startswith("U") else np.int8)

    limits = {node: NARROW[out.dtype.name] for node in makers if (out := node.outputs[0]).dtype is not None}
    for value in initializers:
        assert value.const_value is not None
        value.const_value = onnx_ir.tensor(value.const_value.numpy().astype(wide(value)), name=value.name)
        value.type = onnx_ir.TensorType(value.const_value.dtype)
        report.rewrites += 1
    for node in makers:
        out, dtype = node.outputs[0], wide(node.outputs[0])
        for each in node.outputs:
            each.type = onnx_ir.TensorType(onnx_ir.DataType.from_numpy(dtype))
        report.rewrites += 1
        if not is_op(node, "QuantizeLinear"):
            continue
        node.attributes.pop("output_dtype", None)
        name = str(out.name)
        bounds = [
            add_constant(main, np.array(limit, dtype), f"{name}/{word}")
            for limit, word in zip(limits[node], ("smallest", "largest"), strict=True)
        ]
        users = tuple(out.uses())
        clip = onnx_ir.node("Clip", [out, *bounds], name=f"{name}/clip")
        clip.outputs[0].name, clip.outputs[0].type, clip.outputs[0].shape = f"{name}/nncc_Clip", out.type, out.shape
        main.insert_after(node, clip)
        for user, at in users:
            user.replace_input_with(at, clip.outputs[0])
        if out.is_graph_output():
            clip.outputs[0].name, out.name = out.name, clip.outputs[0].name
            out.replace_all_uses_with(clip.outputs[0], replace_graph_outputs=True)
            clip.replace_input_with(0, out)
    return report
