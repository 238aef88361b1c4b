"""Layers and their arguments for tests: random ones, and those of known networks."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from nncc.vta.layer import Layer
from nncc.vta.link import Located
from nncc.vta.lower_layer import argument_bytes, lower_layer
from nncc.vta.machine import Machine
from nncc.vta.plan import refusal
from nncc.vta.stream import Plan

__all__ = ["Node", "Placed", "arguments", "conv", "on", "placed", "resnet18", "small_layers", "small_plans"]


def arguments(layer: Layer, machine: Machine, seed: int) -> list[np.ndarray]:
    """All arguments but the output, as `golden` takes them; scales are so that results use all of int8."""
    random, block = np.random.default_rng(seed), machine.block
    made: list[np.ndarray] = [random.integers(-128, 128, (*layer.input, block), np.int8)]
    sizes = argument_bytes(layer, machine)
    blocks = layer.output[0]
    if layer.kind in ("conv2d", "depthwise"):
        weights = random.integers(-128, 128, sizes[1], np.int8).reshape(-1, block, block)
        if layer.residual and not machine.has("requantize"):
            weights[-1] = np.eye(block, dtype=np.int8)
        made.append(weights)
        inputs = layer.input[0] if layer.kind == "conv2d" else 1 / block
        spread = 74.0 * 74.0 * np.sqrt(layer.kernel[0] * layer.kernel[1] * inputs * block)
        bias = random.normal(0, spread / 2, (blocks, block)).astype(np.int32)
        made.append(_params(random, bias, spread, bool(layer.residual)) if machine.has("requantize") else bias)
    elif layer.kind == "add" and machine.has("requantize"):
        made.append(_params(random, np.zeros((0, block), np.int32), 1.0, True))
    if layer.residual or layer.kind == "add":
        made.append(random.integers(-128, 128, (*layer.output, block), np.int8))
    return made


def _params(random: np.random.Generator, bias: np.ndarray, spread: float, residual: bool) -> np.ndarray:
    """PAR elements, uint8 [blocks (+ 1), 8 block]."""
    blocks, block = bias.shape
    scale = (random.uniform(20, 100, (blocks + residual, block)) / spread).astype(np.float32)
    if residual:
        scale[blocks] = random.uniform(0.2, 1.2, block)
        scale[blocks, 2] = random.uniform(-60, 60)
        bias = np.concatenate([bias, np.zeros((1, block), np.int32)])
    return np.concatenate([bias.view(np.uint8), scale.view(np.uint8)], axis=1)


def conv(
    inputs: int, outputs: int, size: int, kernel: int = 3, stride: int = 1, residual: str = "", relu: bool = True
) -> Layer:
    """A convolution of square images that keeps their size, or divides it by the stride."""
    pad, result = (kernel - 1) // 2, size // stride
    return Layer(
        "conv2d", (inputs // 16, size, size), (outputs // 16, result, result), (kernel, kernel), (stride, stride),
        (pad, pad, pad, pad), relu=relu, residual=residual,
    )  # type: ignore[arg-type]  # fmt: skip


class Node(NamedTuple):
    """A layer of a network, the value that it reads, the one that it adds (or None), and the one that it makes."""

    layer: Layer
    data: str
    other: str | None
    result: str


def resnet18() -> list[Node]:
    """The residual blocks of ResNet-18 at 224 x 224: C2 to C11 as often as they are, with their sums."""
    nodes = []
    x = "x"
    shapes = [(64, 64, 56), (64, 64, 56), (64, 128, 56), (128, 128, 28)]
    shapes += [(128, 256, 28), (256, 256, 14), (256, 512, 14), (512, 512, 7)]
    for block, (inputs, outputs, size) in enumerate(shapes):
        stride, shortcut = outputs // inputs, x
        if stride == 2:
            shortcut = f"shortcut{block}"
            nodes.append(Node(conv(inputs, outputs, size, 1, 2, relu=False), x, None, shortcut))
        nodes.append(Node(conv(inputs, outputs, size, 3, stride), x, None, f"inner{block}"))
        last = conv(outputs, outputs, size // stride, residual="second")
        nodes.append(Node(last, f"inner{block}", shortcut, f"block{block}"))
        x = f"block{block}"
    return nodes


def on(machine: Machine, nodes: list[Node]) -> list[Node]:
    """The same network for a machine that may have no requantization: sums are shifted there."""
    if machine.has("requantize"):
        return nodes
    return [
        node._replace(layer=replace(node.layer, shift=12)) if node.layer.kind == "conv2d" else node for node in nodes
    ]


class Placed(NamedTuple):
    """A network in memory: its streams, the size of its constants and of its arena, and where each value lies."""

    streams: list[Located]
    constants: int
    arena: int
    values: dict[str, int]


def placed(nodes: list[Node], machine: Machine, plans: list[Plan] | None = None) -> Placed:
    """Streams with addresses; values that are no longer needed make room for others."""
    last = {name: index for index, node in enumerate(nodes) for name in (node.data, node.other) if name}
    live: dict[str, tuple[int, int]] = {}
    values: dict[str, int] = {}
    streams, constants, arena = [], 0, 0
    made = {node.result for node in nodes}
    for node in nodes:  # what comes from outside has its place from the beginning on
        for name, size in ((node.data, node.layer.input), (node.other, node.layer.output)):
            if name and name not in made and name not in values:
                values[name] = arena
                arena = (arena + prod(size) * machine.block + 63) // 64 * 64
                live[name] = (values[name], arena)
    for index, node in enumerate(nodes):
        stream = lower_layer(node.layer, plans[index] if plans else None, machine)
        sizes = stream.arguments
        needed = [(node.data, sizes[0]), (node.other, sizes[-2]), (node.result, sizes[-1])]
        for name, size in needed:
            if name and name not in values:
                values[name] = _free_place(sorted(live.values()), size)
                live[name] = (values[name], values[name] + size)
                arena = max(arena, live[name][1])
        addresses = [values[node.data]]
        for size in sizes[1 : len(sizes) - 1 - bool(node.other)]:
            addresses.append(constants)
            constants += (size + 4095) // 4096 * 4096
        addresses += [values[name] for name in (node.other, node.result) if name]
        streams.append(Located(stream, tuple(addresses)))
        live = {name: place for name, place in live.items() if last.get(name, len(nodes)) > index}
    return Placed(streams, constants, arena, values)


def _free_place(taken: list[tuple[int, int]], size: int) -> int:
    at = 0
    for begin, end in taken:
        if at + size <= begin:
            break
        at = max(at, (end + 63) // 64 * 64)
    return at


@st.composite
def small_layers(draw: st.DrawFn, machine: Machine, shape: tuple[int, int, int] | None = None) -> Layer:
    """Layers of any kind that a machine has, small enough to compute in Python; of `shape` if it is told."""
    own = machine.has("requantize")
    kind = draw(
        st.sampled_from(["conv2d", "conv2d", "depthwise", "max_pool", "add"] if own else ["conv2d", "max_pool", "add"])
    )
    blocks, *size = shape or draw(st.tuples(st.integers(1, 4), st.integers(1, 13), st.integers(1, 13)))
    if kind == "add":
        word = draw(st.sampled_from(["first", "second"])) if own else ""
        relu = False if own else draw(st.booleans())
        return Layer("add", (blocks, *size), (blocks, *size), residual=word, relu=relu)
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, max(0, min(size[i % 2] - 1, reach[i % 2])))) for i in range(4))
    result = [(size[i] + padding[i] + padding[i + 2] - reach[i] - 1) // stride[i] + 1 for i in (0, 1)]
    assume(min(result) > 0)
    outputs = draw(st.integers(1, 4)) if kind == "conv2d" else blocks
    window = (kernel, stride, padding, dilation, draw(st.integers(-128, 127)) if own else 0)
    if kind == "max_pool":
        return Layer(kind, (blocks, *size), (outputs, *result), *window)  # type: ignore[arg-type]
    return Layer(
        kind, (blocks, *size), (outputs, *result), *window,
        draw(st.integers(-128, 127)) if own else 0, draw(st.booleans()),
        draw(st.sampled_from(["", "first", "second"])), 0 if own else draw(st.integers(0, 15)),
    )  # type: ignore[arg-type]  # fmt: skip


@st.composite
def small_plans(draw: st.DrawFn, layer: Layer, machine: Machine) -> Plan:
    """Plans that a machine can follow."""
    tile = tuple(draw(st.integers(1, extent)) for extent in layer.output)
    reduction = draw(st.integers(1, layer.input[0])) if layer.kind == "conv2d" else 1
    order = draw(st.permutations("osc"))
    plan = Plan(tile, reduction, "".join(order), tuple(draw(st.integers(1, 9)) for _ in range(3)))  # type: ignore[arg-type]
    assume(not refusal(layer, plan, machine))
    return plan
