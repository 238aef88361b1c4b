"""Small files that ask for too much: memory without end, time without end, places outside of the output folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

__all__ = ["HOSTILE", "NEVER_ENDING", "SLOW"]

_LARGE = 2**40
_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64


def _ints(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, _INT64, [len(values)], values)


def _floats(name: str, *values: float) -> onnx.TensorProto:
    return helper.make_tensor(name, _FLOAT, [len(values)], values)


def _scalar(name: str, value: Any, kind: int = _INT64) -> onnx.TensorProto:
    return helper.make_tensor(name, kind, [], [value])


def _model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int] = (2, 3),
    constants: Sequence[onnx.TensorProto] = (),
    output: str = "y",
    kind: int = _FLOAT,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    result = helper.make_tensor_value_info(output, kind, None)
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    graph = helper.make_graph(nodes, "hostile", inputs, [result], list(constants))
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10, functions=list(functions))


def _inner(kind: str, *constants: onnx.TensorProto, first: bool = True, **attributes: Any) -> onnx.ModelProto:
    """One operator whose result is no output: it is summed up."""
    names = [*(["x"] if first else []), *(tensor.name for tensor in constants)]
    nodes = [
        helper.make_node(kind, names, ["large"], **attributes),
        helper.make_node("Cast", ["large"], ["numbers"], to=_FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return _model(nodes, constants=constants)


def _image(kind: str, *constants: onnx.TensorProto, **attributes: Any) -> onnx.ModelProto:
    """One operator of an image 1x1x4x4."""
    node = helper.make_node(kind, ["x", *(tensor.name for tensor in constants)], ["y"], **attributes)
    return _model([node], (1, 1, 4, 4), constants)


def _kernel(*shape: int) -> onnx.TensorProto:
    count = 1
    for size in shape:
        count *= size
    return helper.make_tensor("w", _FLOAT, shape, [1.0] * count)


def _doubling_functions() -> onnx.ModelProto:
    """Each of 60 functions calls the one before twice."""
    version = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], version)]
    for number in range(1, 60):
        calls = [
            helper.make_node(f"f{number - 1}", ["a"], ["c"], domain="own"),
            helper.make_node(f"f{number - 1}", ["c"], ["b"], domain="own"),
        ]
        functions.append(helper.make_function("own", f"f{number}", ["a"], ["b"], calls, version))
    return _model([helper.make_node("f59", ["x"], ["y"], domain="own")], functions=functions)


def _loop(
    trips: int | None, body: Sequence[onnx.NodeProto], value: str, stacked: str = "", depth: int = 0
) -> onnx.NodeProto:
    """A Loop that carries one value, `value` to ``w<depth>``, and perhaps stacks `stacked`."""
    names = [f"i{depth}", f"go{depth}", f"v{depth}"]
    inputs = [
        helper.make_tensor_value_info(names[0], _INT64, []),
        helper.make_tensor_value_info(names[1], TensorProto.BOOL, []),
        helper.make_tensor_value_info(names[2], _FLOAT, [2, 3]),
    ]
    outputs = [
        helper.make_tensor_value_info(f"more{depth}", TensorProto.BOOL, []),
        helper.make_tensor_value_info(f"w{depth}", _FLOAT, [2, 3]),
        *([helper.make_tensor_value_info(stacked, _FLOAT, [2, 3])] if stacked else []),
    ]
    nodes = [helper.make_node("Identity", [f"go{depth}"], [f"more{depth}"]), *body]
    graph = helper.make_graph(nodes, f"body{depth}", inputs, outputs)
    made = [f"loop{depth}", *(["stack"] if stacked else [])]
    return helper.make_node("Loop", ["" if trips is None else "trips", "yes", value], made, body=graph)


def _one_loop(trips: int | None, stacks: bool = False) -> onnx.ModelProto:
    body = [helper.make_node("Add", ["v0", "v0"], ["w0"])]
    if stacks:
        body.append(helper.make_node("Neg", ["v0"], ["slice0"]))
    node = _loop(trips, body, "x", "slice0" if stacks else "")
    constants = [_scalar("yes", True, TensorProto.BOOL), *([] if trips is None else [_scalar("trips", trips)])]
    return _model([node], constants=constants, output="stack" if stacks else "loop0")


def _nested_loops(trips: int, depth: int) -> onnx.ModelProto:
    """Loops within loops: trips to the power of depth iterations."""
    node = _loop(trips, [helper.make_node("Neg", [f"v{depth}"], [f"w{depth}"])], f"v{depth - 1}", depth=depth)
    for at in range(depth - 1, -1, -1):
        body = [node, helper.make_node("Identity", [f"loop{at + 1}"], [f"w{at}"])]
        node = _loop(trips, body, f"v{at - 1}" if at else "x", depth=at)
    constants = [_scalar("yes", True, TensorProto.BOOL), _scalar("trips", trips)]
    return _model([node], constants=constants, output="loop0")


def _nested_ifs(depth: int) -> onnx.ModelProto:
    """Ifs within Ifs, by a condition that is known only at run time."""

    def branch(number: int, nodes: Sequence[onnx.NodeProto], name: str) -> onnx.GraphProto:
        return helper.make_graph(nodes, f"g{number}", [], [helper.make_tensor_value_info(name, _FLOAT, [2, 3])])

    node = helper.make_node("Neg", ["x"], ["y_0"])
    for number in range(1, depth + 1):
        other = branch(-number, [helper.make_node("Abs", ["x"], [f"z{number}"])], f"z{number}")
        then = branch(number, [node], node.output[0])
        node = helper.make_node("If", ["condition"], [f"y_{number}"], then_branch=then, else_branch=other)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["condition"], to=TensorProto.BOOL),
        node,
    ]
    return _model(nodes, output=node.output[0])


def _names(name: str) -> onnx.ModelProto:
    """Node, graph, input, inner value and output by this name, with something behind it."""
    nodes = [
        helper.make_node("Neg", [f"{name}x"], [f"{name}t"], name=f"{name}n"),
        helper.make_node("Exp", [f"{name}t"], [f"{name}y"], name=f"{name}m"),
    ]
    model = _model(nodes, output=f"{name}y")
    model.graph.input[0].name = f"{name}x"
    model.graph.name = name
    return model


def _chain(kind: str, count: int, twice: bool = False, **attributes: Any) -> onnx.ModelProto:
    nodes, value = [], "x"
    for number in range(count):
        nodes.append(helper.make_node(kind, [value] * (2 if twice else 1), [f"y{number}"], **attributes))
        value = f"y{number}"
    return _model(nodes, output=value)


def _cycle() -> onnx.ModelProto:
    return _model([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])], output="b")


def _cycle_of_one() -> onnx.ModelProto:
    return _model([helper.make_node("Add", ["x", "y"], ["y"])])


def _many_large_constants() -> onnx.ModelProto:
    """40 constants of 1 GiB each, which a file of 4 KB asks for."""
    nodes, value = [], "x"
    for number in range(40):
        nodes.append(helper.make_node("ConstantOfShape", ["size"], [f"c{number}"], value=_floats("v", number + 1.0)))
        nodes.append(helper.make_node("Exp", [f"c{number}"], [f"e{number}"]))
        nodes.append(helper.make_node("ReduceMax", [f"e{number}"], [f"m{number}"], keepdims=0))
        nodes.append(helper.make_node("Add", [value, f"m{number}"], [f"s{number}"]))
        value = f"s{number}"
    return _model(nodes, constants=[_ints("size", 1 << 28)], output=value)


def _sparse(indices: Sequence[int], dims: Sequence[int]) -> onnx.ModelProto:
    model = _model([helper.make_node("Add", ["x", "c"], ["y"])])
    values = _floats("c", *[1.0] * len(indices))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, _ints("", *indices), dims))
    return model


def _external(location: str) -> onnx.ModelProto:
    tensor = TensorProto(name="c", data_type=_FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="24")
    return _model([helper.make_node("Add", ["x", "c"], ["y"])], constants=[tensor])


def _recurrent(hidden: int) -> onnx.ModelProto:
    weights = [helper.make_tensor(name, _FLOAT, [1, 4, 3], [0.0] * 12) for name in ("w", "r")]
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=hidden)
    return _model([node], (2, 1, 3), weights)


def _many_dimensions(count: int) -> onnx.ModelProto:
    return _model([helper.make_node("Neg", ["x"], ["y"])], (1,) * count)


def _einsum(equation: str, operands: int = 1) -> onnx.ModelProto:
    return _model([helper.make_node("Einsum", ["x"] * operands, ["y"], equation=equation)])


HOSTILE: dict[str, Callable[[], onnx.ModelProto]] = {
    # Sizes that operators make.
    "expand": lambda: _inner("Expand", _ints("s", 2**20, 2**20, 2, 3)),
    "expand that overflows": lambda: _inner("Expand", _ints("s", 2**31, 2**33, 2, 3)),
    "constant of shape": lambda: _inner("ConstantOfShape", _ints("s", _LARGE), first=False),
    "constant of a shape that overflows": lambda: _inner("ConstantOfShape", _ints("s", 2**32, 2**32), first=False),
    "constant of shape 4 GiB": lambda: _inner("ConstantOfShape", _ints("s", 1 << 30), first=False),
    "many large constants": _many_large_constants,
    "range": lambda: _inner("Range", _scalar("a", 0), _scalar("b", _LARGE), _scalar("c", 1), first=False),
    "range by nothing": lambda: _inner("Range", _scalar("a", 0), _scalar("b", 1), _scalar("c", 0), first=False),
    "range in small steps": lambda: _inner(
        "Range", _scalar("a", 0.0, _FLOAT), _scalar("b", 3e38, _FLOAT), _scalar("c", 1e-38, _FLOAT), first=False
    ),
    "range to no number": lambda: _inner(
        "Range", _scalar("a", 0.0, _FLOAT), _scalar("b", float("nan"), _FLOAT), _scalar("c", 1.0, _FLOAT), first=False
    ),
    "tile": lambda: _inner("Tile", _ints("r", 2**20, 2**20)),
    "tile that overflows": lambda: _inner("Tile", _ints("r", 2**62, 2**62)),
    "pad": lambda: _inner("Pad", _ints("p", 0, 0, _LARGE, 0)),
    "pad that overflows": lambda: _inner("Pad", _ints("p", 2**62, 0, 2**62, 0)),
    "pad less than nothing": lambda: _inner("Pad", _ints("p", -(2**62), 0, 0, 0)),
    "one hot": lambda: _model(
        [
            helper.make_node("Cast", ["x"], ["i"], to=_INT64),
            helper.make_node("OneHot", ["i", "depth", "values"], ["o"]),
            helper.make_node("ReduceSum", ["o"], ["y"]),
        ],
        constants=[_scalar("depth", _LARGE), _floats("values", 0.0, 1.0)],
    ),
    "random": lambda: _inner("RandomNormal", first=False, shape=[2**20, 2**20]),
    "window": lambda: _inner("HannWindow", _scalar("n", _LARGE), first=False),
    "mel weights": lambda: _inner(
        "MelWeightMatrix", _scalar("a", 2**30), _scalar("b", _LARGE), _scalar("c", 8000),
        _scalar("d", 0.0, _FLOAT), _scalar("e", 4000.0, _FLOAT), first=False,
    ),
    "reshape": lambda: _inner("Reshape", _ints("s", 2**32, 2**32)),
    "reshape to several unknowns": lambda: _inner("Reshape", _ints("s", -1, -1)),
    "crop or pad": lambda: _inner("CenterCropPad", _ints("s", _LARGE, 3)),
    "split to a sequence": lambda: _model(
        [
            helper.make_node("ConstantOfShape", ["size"], ["c"]),
            helper.make_node("SplitToSequence", ["c"], ["s"]),
            helper.make_node("SequenceAt", ["s", "at"], ["y"]),
        ],
        constants=[_ints("size", 1 << 24), _scalar("at", 1)],
    ),
    "concatenations": lambda: _chain("Concat", 60, twice=True, axis=0),
    "outer products": lambda: _chain("MatMul", 20, twice=True),
    "gather": lambda: _inner("Gather", _ints("i", _LARGE)),
    "dft": lambda: _image("DFT", _scalar("n", _LARGE)),
    # Windows and images.
    "resize by scales": lambda: _image("Resize", _floats("r"), _floats("s", 1.0, 1.0, 1e9, 1e9)),
    "resize by no number": lambda: _image("Resize", _floats("r"), _floats("s", 1.0, 1.0, float("nan"), 1.0)),
    "resize to nothing": lambda: _image("Resize", _floats("r"), _floats("s", 1.0, 1.0, 1e-30, 1e-30)),
    "resize by sizes": lambda: _image("Resize", _floats("r"), _floats("s"), _ints("n", 1, 1, 2**31, 2**31)),
    "pool of a large window": lambda: _image("MaxPool", kernel_shape=[2**31, 2**31], pads=[2**30] * 4),
    "pool with large strides": lambda: _image("AveragePool", kernel_shape=[2, 2], strides=[2**62, 2**62]),
    "pool without strides": lambda: _image("MaxPool", kernel_shape=[2, 2], strides=[0, 0]),
    "pool with large pads": lambda: _image(
        "AveragePool", kernel_shape=[3, 3], pads=[2**40] * 4, count_include_pad=1
    ),
    "convolution with large dilations": lambda: _image("Conv", _kernel(1, 1, 3, 3), dilations=[2**62, 2**62]),
    "convolution with large pads": lambda: _image("Conv", _kernel(1, 1, 3, 3), pads=[2**40] * 4),
    "convolution in no groups": lambda: _image("Conv", _kernel(1, 1, 3, 3), group=0),
    "convolution in many groups": lambda: _image("Conv", _kernel(1, 1, 3, 3), group=2**62),
    "transposed with large strides": lambda: _image("ConvTranspose", _kernel(1, 1, 3, 3), strides=[2**40, 2**40]),
    "transposed with large pads": lambda: _image("ConvTranspose", _kernel(1, 1, 3, 3), output_padding=[2**40] * 2),
    "transposed to a large shape": lambda: _image("ConvTranspose", _kernel(1, 1, 3, 3), output_shape=[2**40, 2**40]),
    "blocks": lambda: _image("DepthToSpace", blocksize=2**31),
    "blocks of nothing": lambda: _image("SpaceToDepth", blocksize=0),
    "normalization of many": lambda: _image("LRN", size=2**62 + 1),
    "grid": lambda: _image("AffineGrid", _ints("s", 1, 1, 2**20, 2**20)),
    "regions": lambda: _image(
        "RoiAlign", helper.make_tensor("r", _FLOAT, [1, 4], [0.0, 0.0, 1.0, 1.0]), _ints("b", 0),
        output_height=2**31 - 1, output_width=2**31 - 1, sampling_ratio=2**31 - 1,
    ),
    "a window for each region": lambda: _image(
        "RoiAlign", helper.make_tensor("r", _FLOAT, [1, 4], [0.0, 0.0, 1e38, 1e38]), _ints("b", 2**40),
        output_height=2, output_width=2, sampling_ratio=0,
    ),
    "recurrent": lambda: _recurrent(_LARGE),
    # Time.
    "functions that double": _doubling_functions,
    "nested ifs, 20": lambda: _nested_ifs(20),
    "loops in loops": lambda: _nested_loops(8, 6),
    "deep loops": lambda: _nested_loops(2, 28),
    "a stack of slices": lambda: _one_loop(2**62, stacks=True),
    "a long chain": lambda: _chain("Neg", 3000),
    "an equation of many letters": lambda: _einsum("ab->" + "".join(chr(97 + i) for i in range(26))),
    "an equation of many operands": lambda: _einsum(",".join(["ab"] * 200) + "->ab", 200),
    "a long equation": lambda: _einsum("a" * 1_000_000),
    "cycle": _cycle,
    "cycle of one": _cycle_of_one,
    # What files say of themselves.
    "65 dimensions": lambda: _many_dimensions(65),
    "5000 dimensions": lambda: _many_dimensions(5000),
    "sparse constant": lambda: _sparse([0], [2**20, 2**20]),
    "sparse constant outside": lambda: _sparse([2**40], [2, 3]),
    "sparse constant before": lambda: _sparse([-1], [2, 3]),
    "names of 1 MB": lambda: _names("n" * 1_000_000),
    "names that are paths": lambda: _names("../../../outside/"),
    "names that are absolute paths": lambda: _names("/tmp/outside/"),
    "names with ends of lines": lambda: _names('a\n#include "b"\n*/ int x; /*\\'),
    "names with zeros": lambda: _names("a\0b"),
    "names with words of printf": lambda: _names("%s%n%d"),
    "external data above": lambda: _external("../../../../etc/hostname"),
    "external data elsewhere": lambda: _external("/etc/hostname"),
    "external data without end": lambda: _external("/dev/zero"),
    "external data of itself": lambda: _external("model.onnx"),
}  # fmt: skip
"""Each is compiled or refused, in little time and memory."""

NEVER_ENDING: dict[str, Callable[[], onnx.ModelProto]] = {
    "a loop of 2^62": lambda: _one_loop(2**62),
    "a loop by its condition alone": lambda: _one_loop(None),
}
"""These run, and do not end, as they say; compiling them does."""

SLOW = ("constant of shape 4 GiB", "many large constants", "a long chain", "a window for each region", "loops in loops",
        "an equation of many operands", "names of 1 MB")  # fmt: skip
"""Of these, what takes many seconds, as it should."""
