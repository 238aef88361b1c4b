"""Small models of integers, in which sums are exact in float32 in any order, and what tests of pruning ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from nncc.compress.groups import Dependencies, dependencies
from nncc.passes.rewriting import constant
from nncc.quant.quantize import shapes_of
from nncc.quant.session import open_graph


@dataclass
class Net:
    """A graph built node by node; weights are whole numbers of -2 to 2, none of them 0."""

    opset: int = 17
    seed: int = 0
    nodes: list = field(default_factory=list)
    constants: dict = field(default_factory=dict)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def const(self, name, array):
        self.constants[name] = np.asarray(array)
        return name

    def whole(self, name, *shape):
        numbers = self.rng.integers(1, 3, shape) * self.rng.choice([-1, 1], shape)
        return self.const(name, numbers.astype(np.float32))

    def op(self, op_type, *inputs, outputs=1, **attributes):
        name = f"{op_type.lower()}{len(self.nodes)}"
        outs = [f"{name}_{at}" for at in range(outputs)] if outputs > 1 else [f"{name}_out"]
        self.nodes.append(helper.make_node(op_type, list(inputs), outs, name=name, **attributes))
        return outs if outputs > 1 else outs[0]

    def conv(self, x, channels_in, channels_out, kernel=1, group=1, bias=True, **attributes):
        at = len(self.nodes)
        inputs = [x, self.whole(f"w{at}", channels_out, channels_in // group, kernel, kernel)]
        if bias:
            inputs.append(self.whole(f"b{at}", channels_out))
        return self.op("Conv", *inputs, group=group, pads=[kernel // 2] * 4, **attributes)

    def batch_norm(self, x, channels):
        at = len(self.nodes)
        names = [self.whole(f"{word}{at}", channels) for word in ("gamma", "beta", "mean")]
        return self.op(
            "BatchNormalization", x, *names, self.const(f"var{at}", np.ones(channels, np.float32)), epsilon=0.0
        )

    def gemm(self, x, columns, outs, **attributes):
        at = len(self.nodes)
        shape = (outs, columns) if attributes.get("transB") else (columns, outs)
        return self.op("Gemm", x, self.whole(f"w{at}", *shape), self.whole(f"b{at}", outs), **attributes)

    def model(self, outputs, x=("N", 3, 4, 4), more=()):
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x), *more],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx_ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def inputs(shape=(1, 3, 4, 4), seed=5):
    return {"x": np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)}


def analyzed(graph: onnx_ir.Model, sample=None) -> Dependencies:
    return dependencies(graph, shapes_of(graph, sample or inputs()))


def reasons(graph: onnx_ir.Model, sample=None) -> dict[str, str]:
    return {group.name: group.reason for group in analyzed(graph, sample).groups}


def outputs(graph: onnx_ir.Model, sample=None) -> list[np.ndarray]:
    session = open_graph(graph)
    return session.run(sample or inputs(), session.outputs)


def silenced(graph: onnx_ir.Model, found: Dependencies, keep: np.ndarray) -> onnx_ir.Model:
    """The graph with zeros for all that makes the channels that `keep` leaves out, and for all that goes along."""
    graph = graph.clone()
    nodes = list(graph.graph)
    for site in found.sites:
        variance = nodes[site.node].op_type == "BatchNormalization" and site.operand == 4
        if site.kind != "reads" and not variance:
            value = nodes[site.node].inputs[site.operand]
            array = np.array(constant(value))
            np.moveaxis(array, site.axis, 0)[~keep[site.units]] = 0
            value.const_value = onnx_ir.tensor(array, name=value.name)
    return graph


def without(found: Dependencies, **removed: int) -> np.ndarray:
    """What stays if so many units go of the groups of these names, the last ones."""
    keep = np.ones(found.count, bool)
    for name, number in removed.items():
        group = next(group for group in found.groups if group.name == name)
        assert not group.reason, group.reason
        keep[group.units[-number:]] = False
    return keep
