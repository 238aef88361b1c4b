"""The Relax function becomes a list of steps with every address known: no graph left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from nncc.codegen.place import REGION, Memory, PendingCall, PendingStep, Value, pending_calls, place
from nncc.codegen.regions import Body, branch_steps, loop_steps
from nncc.codegen.shared_memory import buffers_of, with_copies
from nncc.errors import InternalError, ModelError
from nncc.ir import (
    ALIGNMENT,
    CONCATENATION,
    COUNT,
    IN_PLACE,
    Dim,
    Extent,
    Kernels,
    Program,
    Region,
    TensorSpec,
    symbol_prefix,
)
from nncc.target import Hardware

__all__ = ["flatten", "in_panels", "walk_of"]

_PIECE_ALIGNMENT = 16
"""Bytes: on a GPU, what vectors of four floats may begin at, and so each piece of a concatenation that is written where
it belongs. Processors take any."""


def _alignments(hardware: Hardware) -> tuple[int, int]:
    """Bytes that pieces of a concatenation and constants begin at a multiple of: on an accelerator, its elements."""
    if (machine := hardware.accelerator) is not None:
        elements = [machine.element_bytes(memory.name) for memory in machine.description.memories]
        return machine.element_bytes("inp"), max(ALIGNMENT, *elements)
    return _PIECE_ALIGNMENT if hardware.multiprocessors else 1, ALIGNMENT


def flatten(kernels: Kernels) -> Program:
    """Order the calls, plan the arena, lay the constants out, lower the kernels to bare pointers."""
    from nncc.backends import backend

    walk = walk_of(kernels, *_alignments(kernels.target.hardware))
    used = {call.kernel for call in pending_calls(walk.steps)}
    functions = {name: function for name, function in walk.functions.items() if name in used}
    lowered = backend(kernels.target).lower(functions, kernels.target, symbol_prefix(kernels.name))
    dims = _selected(kernels)
    _count(walk, kernels, dims)
    steps = with_copies(walk.steps, lowered.streams, walk.memory)
    shared = buffers_of(steps, lowered.streams, walk.memory)
    return replace(place(with_bodies(kernels), walk.memory, steps, walk.results, lowered, shared), dims=dims)


def _selected(kernels: Kernels) -> tuple[Dim, ...]:
    """The open dimensions whose sizes kernels say: those of outputs that are selections."""
    found: dict[str, Dim] = {}
    for spec in kernels.outputs:
        for extent, size in zip(spec.extents, spec.shape, strict=False):
            if extent.dim is not None:
                found[extent.dim] = Dim(extent.dim, 0, size, from_data=True)
    return tuple(found.values())


def _count(walk: Walk, kernels: Kernels, dims: Sequence[Dim]) -> None:
    """Put a copy of the size behind each call that selects: its last argument, to the open dimension.

    Outputs that lie as if all were selected are packed densely behind the last step.
    """
    numbers = {dim.name: number for number, dim in enumerate(dims)}
    dense: list[Value] = []
    for at, step in reversed(list(enumerate(walk.steps))):
        if not isinstance(step, PendingCall) or not step.kernel:
            continue
        attributes = walk.functions[step.kernel].attrs or {}
        if COUNT not in attributes:
            continue
        dense += [] if attributes[IN_PLACE] else step.args
        number = numbers.pop(str(attributes[COUNT]), None)
        if number is not None:
            walk.steps.insert(at + 1, PendingCall("", [step.args[-1], Value("dim", number)], 8))
    if numbers:
        raise InternalError(f"flatten: no kernel says how large `{next(iter(numbers))}` is")
    results = list(walk.results)
    for number, (spec, result) in enumerate(zip(kernels.outputs, walk.results, strict=True)):
        axis = next((axis for axis, extent in enumerate(spec.extents) if extent.dim is not None), 0)
        pieces = prod(spec.shape[:axis])
        if pieces > 1 and result not in dense:
            walk.steps += _pieces(spec, result, axis, pieces, number)
            results[number] = Value("output", number)
    walk.results = tuple(results)


def _pieces(spec: TensorSpec, source: Value, axis: int, pieces: int, number: int) -> Iterator[PendingStep]:
    """Copies of what is selected along an axis behind others, to output `number`, one for each place of those."""
    if pieces > _MOST_PIECES:
        raise ModelError(
            f"output `{spec.name}` has {pieces:,} rows of as many elements as the data say; nncc takes {_MOST_PIECES}",
            "transpose it, so that this axis comes first",
        )
    step = spec.nbytes // pieces
    actual = spec.extents[axis] * Extent(step // spec.shape[axis])
    for piece in range(pieces):
        target = Value("output", number, offset=actual * Extent(piece) if piece else 0)
        yield PendingCall("", [replace(source, offset=source.offset + piece * step), target], actual)


_MOST_PIECES = 256


def with_bodies(kernels: Kernels, prefix: str = "") -> Kernels:
    """The kernels with what is known of those in bodies, by the names that they have in the program."""
    found = replace(
        kernels,
        schedules={prefix + name: text for name, text in kernels.schedules.items()},
        operations={prefix + name: each for name, each in kernels.operations.items()},
        argument_bytes={prefix + name: sizes for name, sizes in kernels.argument_bytes.items()},
        sources={prefix + name: text for name, text in kernels.sources.items()},
    )
    for name, region in kernels.regions.items():
        for number, body in enumerate(region.bodies):
            inside = with_bodies(body, f"{prefix}{body_prefix(name, number)}")
            found = replace(
                found,
                schedules=found.schedules | inside.schedules,
                operations=found.operations | inside.operations,
                argument_bytes=found.argument_bytes | inside.argument_bytes,
                sources=found.sources | inside.sources,
            )
    return found


def body_prefix(region: str, number: int) -> str:
    """What the names of the kernels in body `number` of a region begin with."""
    return f"{region}_{('then', 'else')[number]}_" if region.startswith("if") else f"{region}_"


def _allocated(kernels: Kernels) -> Any:
    """The module with calls that write where they are told, into buffers that are allocated one by one."""
    from nncc.compat import relax, tvm

    transform = relax.transform
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(
            [
                transform.RewriteDataflowReshape(),
                transform.ToNonDataflow(),
                transform.RemovePurityChecking(),
                transform.CallTIRRewrite(),
                transform.CanonicalizeBindings(),
                transform.DeadCodeElimination(["main"]),
            ]
        )(kernels.module)


_NONE = Value("none")


def walk_of(kernels: Kernels, piece_alignment: int, constant_alignment: int = ALIGNMENT) -> Walk:
    """The steps of a model whose inputs are given to ``main``."""
    inputs = [Value("input", number) for number in range(len(kernels.inputs))]
    return Walk(kernels, Memory(constant_alignment), inputs, piece_alignment)


class Walk:
    """Reads a ``main`` once: its steps and results, where its parameters are `given`.

    `memory` gets its buffers and constants, `functions` its kernels and those of the bodies that it calls, by names
    that begin with `prefix`.
    """

    def __init__(
        self, kernels: Kernels, memory: Memory, given: Sequence[Value], piece_alignment: int, prefix: str = ""
    ) -> None:
        from nncc.compat import tirx

        self.module = module = _allocated(kernels)
        function = module["main"]
        self.memory, self.piece_alignment, self.prefix, self.regions = memory, piece_alignment, prefix, kernels.regions
        self.functions: dict[str, Any] = {
            prefix + variable.name_hint: f for variable, f in module.functions.items() if isinstance(f, tirx.PrimFunc)
        }
        self.values: dict[Any, Value] = dict(zip(function.params, given, strict=True))
        self.steps: list[PendingStep] = []
        self.owned: set[int] = set()
        """The buffers that were made here: those of others are not moved into a concatenation."""
        for block in function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self.value(binding.value)
        result = self.value(function.body.body)
        self.results = result.parts if result.space == "tuple" else (result,)

    def value(self, expr: Any) -> Value:
        from nncc.compat import GenericConst, GlobalVar, constant_array, relax

        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, GenericConst):
            return self.memory.constant(constant_array(expr))
        if isinstance(expr, relax.Tuple):
            return Value("tuple", parts=tuple(self.value(f) for f in expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            return self.value(expr.tuple_value).parts[expr.index]
        if isinstance(expr, relax.Call):
            if isinstance(expr.op, GlobalVar):
                kernel = self.module[expr.op]
                args = [
                    leaf for number, a in enumerate(expr.args) for leaf in _leaves(self.argument(kernel, number, a))
                ]
                if not self._moves_nothing(kernel, args):
                    self.steps.append(PendingCall(self.prefix + expr.op.name_hint, args))
                return _NONE
            if isinstance(expr.op, relax.ExternFunc) and str(expr.op.global_symbol) == REGION:
                name, *args = expr.args
                return self.region(str(name.value), [self.value(a) for a in args])
            name = getattr(expr.op, "name", str(expr.op))
            if name == "relax.builtin.alloc_tensor":
                spec = TensorSpec("", str(expr.ty.dtype), tuple(int(d) for d in expr.ty.shape))
                return self.buffer(spec.nbytes)
            if name in ("relax.reshape", "relax.memory.view"):
                return self.value(expr.args[0])
            raise InternalError(f"flatten: the operator `{name}` is still in the graph: {str(expr)[:200]}")
        raise InternalError(f"flatten: unexpected {type(expr).__name__}: {str(expr)[:200]}")

    def buffer(self, nbytes: int) -> Value:
        """A new buffer of the arena, of this function."""
        made = self.memory.buffer(nbytes)
        self.owned.add(made.at)
        return made

    def region(self, name: str, args: list[Value]) -> Value:
        """The steps of a branch or a loop; the tuple of its outputs."""
        region: Region = self.regions[name]
        outputs = [self.buffer(spec.nbytes) for spec in region.outputs]

        def body(number: int, given: Sequence[Value]) -> Body:
            inner = body_prefix(name, number)
            walk = Walk(region.bodies[number], self.memory, given, self.piece_alignment, self.prefix + inner)
            self.functions |= walk.functions
            return Body(walk.steps, walk.results, walk.owned)

        steps = branch_steps if region.kind == "branch" else loop_steps
        self.steps += steps(region, args, outputs, body, self.memory)
        return Value("tuple", parts=tuple(outputs))

    def argument(self, kernel: Any, number: int, expr: Any) -> Value:
        """The value of a kernel's argument; a constant in the layout that the kernel's schedule has given it."""
        from nncc.compat import GenericConst, constant_array

        if isinstance(expr, GenericConst):
            return self.memory.constant(
                in_panels(constant_array(expr), tuple(int(d) for d in kernel.params[number].shape))
            )
        return self.value(expr)

    def _moves_nothing(self, kernel: Any, args: list[Value]) -> bool:
        """Whether a call that only moves elements needs no call: a reshape, or a concatenation of whole pieces, whose
        pieces are written where they belong; those that cannot be are copied there.
        """
        from nncc.compat import relax

        *sources, target = args
        memory = self.memory
        if len(sources) == 1 and sources[0].space == "buffer" and relax.analysis.has_reshape_pattern(kernel):
            memory.inside[target.at] = sources[0].at, 0
            return True
        if CONCATENATION not in (kernel.attrs or {}):
            return False
        offset = 0
        for number, source in enumerate(sources):
            nbytes = TensorSpec(
                "", str(kernel.params[number].dtype), tuple(map(int, kernel.params[number].shape))
            ).nbytes
            buffer, start = memory.root(source.at) if source.space == "buffer" else (-1, 0)
            alone = buffer in self.owned and start == 0 and memory.sizes[buffer] == nbytes
            if alone and offset % self.piece_alignment == 0 and memory.root(target.at)[0] != buffer:
                memory.inside[buffer] = target.at, offset
            else:
                self.steps.append(PendingCall("", [source, replace(target, offset=offset)], nbytes))
            offset += nbytes
        return True


def in_panels(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in the layout of `panels` in `nncc.scheduling`, if `shape` is one of that; else as it is.

    P[.., o, .., j, l] = W[.., o v + j, .., l]
    """
    if array.ndim != len(shape) - 1:
        return array
    axis = next(a for a, (old, new) in enumerate(zip(array.shape, shape, strict=False)) if old != new)
    split = (*array.shape[:axis], shape[axis], shape[-2], *array.shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(array.reshape(split), axis + 1, -2))


def _leaves(value: Value) -> list[Value]:
    return [leaf for part in value.parts for leaf in _leaves(part)] if value.space == "tuple" else [value]
