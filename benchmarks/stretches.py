"""Quantized models cut at their roundings: whether each stretch between two gives ONNX Runtime's integers by itself.

Where one rounding falls to the other side of a tie, what follows has other inputs, and a deep model's outputs say
little of its operators. Here each stretch gets the same integers on both sides, those that ONNX Runtime computes
without its optimizations; what each makes of them is compared in steps. The other side is ONNX Runtime with its
optimizations, and so with its kernels for integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]

ROUNDING = ("QuantizeLinear", "QLinear", "QGemm", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class Stretches:
    """Of all stretches of a model, by all runs."""

    tensors: int = 0
    """How many end in a rounding."""
    elements: int = 0
    differing: int = 0
    most: int = 0
    """In steps."""
    from_tie: float = 0.0
    """How far from the middle between two integers, in steps, elements are before their rounding that differ by one
    step, at most; of those whose one scale is known."""
    scales: float = 0.0
    """By how much scales that are computed at run time differ at most, relative to themselves."""
    outputs: float = 0.0
    """By how much outputs of real numbers differ at most, relative to their largest element."""


def rounded(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of a model that round to integers, in its order; none of those of constants."""
    constants = {each.name for each in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type.startswith(ROUNDING)]
    return [node for node in nodes if node.input[0] not in constants and node.domain in ("", "com.microsoft")]


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy with more outputs, whose types are left open."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    old = {value.name for value in model.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in old)
    return copy


def cut(model: onnx.ModelProto, values: Arrays) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model with each tensor of `values` as an output, of that shape and type, and an input in its place for all
    that reads it; the names of these inputs by those of the tensors."""
    copy = with_outputs(model, values)
    given = {name: f"given_{at}" for at, name in enumerate(values)}
    for value in copy.graph.output:
        if value.name in values:
            array = values[value.name]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, array.shape))
            copy.graph.input.append(helper.make_tensor_value_info(given[value.name], kind, array.shape))
    for node in copy.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = given.get(name, name)
    del copy.graph.value_info[:]
    return copy, given


def distances(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], values: Arrays) -> np.ndarray | None:
    """How far each element is from the middle between two integers before `node` rounds it; None where that node does
    more than to round, or has many scales."""
    if node.op_type == "QuantizeLinear":
        scale = constants.get(node.input[1])
    else:
        scale = values[node.output[1]] if node.op_type == "DynamicQuantizeLinear" else None
    if scale is None or scale.size != 1 or node.input[0] not in values:
        return None
    steps = values[node.input[0]].astype(np.float64) / float(scale.reshape(()))
    return np.abs(steps - np.floor(steps) - 0.5)


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """The greatest difference of two arrays of real numbers, relative to the largest element of the first."""
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(
        np.where(np.isnan(apart), np.inf, apart).max(initial=0) / max(float(np.abs(one).max(initial=0)), 1e-30)
    )


def compare(
    model: onnx.ModelProto,
    feeds: Iterable[Arrays],
    plain: Callable[[onnx.ModelProto], Run],
    default: Callable[[onnx.ModelProto], Run],
    compiled: Callable[[onnx.ModelProto], Run],
) -> tuple[Stretches, list[str]]:
    """All stretches of a model with static shapes, and a line for each that differs. The last three arguments make
    functions from inputs to outputs of a model: ONNX Runtime without its optimizations and with them, and nncc."""
    nodes = rounded(model)
    names = [name for node in nodes for name in node.output if name]
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    inside = plain(with_outputs(model, names))
    running: list[Run] = []
    total, apart_by = Stretches(tensors=len(nodes)), dict[str, tuple[int, int, int]]()
    for feed in feeds:
        found = inside(feed)
        values = {name: found[name] for name in names}
        if not running:
            pieces, given = cut(model, values)
            before = [node.input[0] for node in nodes if node.input[0] not in given and node.op_type in ROUNDING]
            running = [default(pieces), compiled(pieces), plain(with_outputs(pieces, before))]
        inputs = {**feed, **{given[name]: value for name, value in values.items()}}
        theirs, ours, exact = (run(inputs) for run in running)
        real = [value.name for value in model.graph.output if theirs[value.name].dtype.kind == "f"]
        total = replace(total, outputs=max([total.outputs, *(relative(theirs[name], ours[name]) for name in real)]))
        for node in nodes:
            name = node.output[0]
            apart = np.abs(theirs[name].astype(np.int64) - ours[name].astype(np.int64))
            most, differing = int(apart.max(initial=0)), int(np.count_nonzero(apart))
            total = replace(total, elements=total.elements + apart.size, most=max(total.most, most))
            if node.op_type == "DynamicQuantizeLinear":
                scale = node.output[1]
                total = replace(total, scales=max(total.scales, relative(theirs[scale], ours[scale])))
            if differing:
                old = apart_by.get(name, (0, 0, 0))
                apart_by[name] = (old[0] + differing, old[1] + apart.size, max(old[2], most))
                far = distances(node, constants, {**feed, **values, **exact})
                furthest = float(far[apart == 1].max(initial=0)) if far is not None else 0.0
                total = replace(total, differing=total.differing + differing, from_tie=max(total.from_tie, furthest))
    return total, [f"{name}: {d:,} of {of:,}, at most {most}" for name, (d, of, most) in apart_by.items()]
