"""The Relax function becomes a list of calls with every address known: no graph left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nncc.codegen.memory import Lifetime, plan
from nncc.errors import InternalError
from nncc.ir import ALIGNMENT, CONCATENATION, Call, Kernels, Lowered, Program, Ref, TensorSpec, align
from nncc.target import Hardware

__all__ = ["flatten", "symbol_prefix"]


_PIECE_ALIGNMENT = 16
"""Bytes: on a GPU, what vectors of four floats may begin at, and so each piece of a concatenation that is written where
it belongs. Processors take any."""


def _alignments(hardware: Hardware) -> tuple[int, int]:
    """Bytes that pieces of a concatenation and constants begin at a multiple of: on an accelerator, its elements."""
    if (machine := hardware.accelerator) is not None:
        elements = [machine.element_bytes(memory.name) for memory in machine.description.memories]
        return machine.element_bytes("inp"), max(ALIGNMENT, *elements)
    return _PIECE_ALIGNMENT if hardware.multiprocessors else 1, ALIGNMENT


def symbol_prefix(name: str) -> str:
    """The prefix of all symbols of a model: ``nncc_<name>_``, the name made a C identifier."""
    return f"nncc_{re.sub(r'[^0-9a-zA-Z]', '_', name)}_"


def flatten(kernels: Kernels) -> Program:
    """Order the calls, plan the arena, lay the constants out, lower the kernels to bare pointers."""
    from nncc.backends import backend
    from nncc.compat import tirx

    module = _allocated(kernels)
    walk = _Walk(module, *_alignments(kernels.target.hardware))
    used = {call.kernel for call in walk.calls}
    functions = {
        variable.name_hint: f
        for variable, f in module.functions.items()
        if isinstance(f, tirx.PrimFunc) and variable.name_hint in used
    }
    lowered = backend(kernels.target).lower(functions, kernels.target, symbol_prefix(kernels.name))
    return _place(kernels, walk, lowered)


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


@dataclass(frozen=True)
class _Value:
    """What a Relax expression is, once there is no graph: a place, or several."""

    space: str  # input | buffer | weights | tuple | none
    at: int = 0
    offset: int = 0
    parts: tuple[_Value, ...] = ()


@dataclass
class _PendingCall:
    kernel: str
    args: list[_Value]
    nbytes: int = 0


_NONE = _Value("none")


class _Walk:
    """Reads ``main`` once: its buffers, calls, constants and results."""

    def __init__(self, module: Any, piece_alignment: int, constant_alignment: int) -> None:
        function = module["main"]
        self.piece_alignment = piece_alignment
        self.constant_alignment = constant_alignment
        self.module = module
        self.values: dict[Any, _Value] = {p: _Value("input", i) for i, p in enumerate(function.params)}
        self.sizes: list[int] = []
        self.inside: dict[int, tuple[int, int]] = {}
        """By buffer that is part of another: that one, and at which byte of it."""
        self.calls: list[_PendingCall] = []
        self.blobs: list[np.ndarray] = []
        self.weights_bytes = 0
        self._offsets: dict[bytes, int] = {}
        for block in function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self.value(binding.value)
        result = self.value(function.body.body)
        self.results = result.parts if result.space == "tuple" else (result,)

    def value(self, expr: Any) -> _Value:
        from nncc.compat import GenericConst, GlobalVar, constant_array, relax

        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, GenericConst):
            return self.constant(constant_array(expr))
        if isinstance(expr, relax.Tuple):
            return _Value("tuple", parts=tuple(self.value(f) for f in expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            return self.value(expr.tuple_value).parts[expr.index]
        if isinstance(expr, relax.Call):
            if isinstance(expr.op, GlobalVar):
                kernel = self.module[expr.op]
                args = [
                    leaf for number, a in enumerate(expr.args) for leaf in _leaves(self.argument(kernel, number, a))
                ]
                if not self._moves_nothing(kernel, args):
                    self.calls.append(_PendingCall(expr.op.name_hint, args))
                return _NONE
            name = getattr(expr.op, "name", str(expr.op))
            if name == "relax.builtin.alloc_tensor":
                spec = TensorSpec("", str(expr.ty.dtype), tuple(int(d) for d in expr.ty.shape))
                self.sizes.append(spec.nbytes)
                return _Value("buffer", len(self.sizes) - 1)
            if name in ("relax.reshape", "relax.memory.view"):
                return self.value(expr.args[0])
            raise InternalError(f"flatten: the operator `{name}` is still in the graph: {str(expr)[:200]}")
        raise InternalError(f"flatten: unexpected {type(expr).__name__}: {str(expr)[:200]}")

    def argument(self, kernel: Any, number: int, expr: Any) -> _Value:
        """The value of a kernel's argument; a constant in the layout that the kernel's schedule has given it."""
        from nncc.compat import GenericConst, constant_array

        if isinstance(expr, GenericConst):
            return self.constant(in_panels(constant_array(expr), tuple(int(d) for d in kernel.params[number].shape)))
        return self.value(expr)

    def _moves_nothing(self, kernel: Any, args: list[_Value]) -> bool:
        """Whether a call that only moves elements needs no call: a reshape, or a concatenation of whole pieces, whose
        pieces are written where they belong; those that cannot be are copied there.
        """
        from nncc.compat import relax

        *sources, target = args
        if len(sources) == 1 and sources[0].space == "buffer" and relax.analysis.has_reshape_pattern(kernel):
            self.inside[target.at] = sources[0].at, 0
            return True
        if CONCATENATION not in (kernel.attrs or {}):
            return False
        offset = 0
        for number, source in enumerate(sources):
            nbytes = TensorSpec(
                "", str(kernel.params[number].dtype), tuple(map(int, kernel.params[number].shape))
            ).nbytes
            buffer, start = self.root(source.at) if source.space == "buffer" else (-1, 0)
            alone = buffer >= 0 and start == 0 and self.sizes[buffer] == nbytes and offset % self.piece_alignment == 0
            if alone and self.root(target.at)[0] != buffer:
                self.inside[buffer] = target.at, offset
            else:
                self.calls.append(_PendingCall("", [source, replace(target, offset=offset)], nbytes))
            offset += nbytes
        return True

    def root(self, buffer: int) -> tuple[int, int]:
        """The buffer that is part of no other and has `buffer` in it, and at which byte."""
        offset = 0
        while buffer in self.inside:
            buffer, more = self.inside[buffer]
            offset += more
        return buffer, offset

    def constant(self, array: np.ndarray) -> _Value:
        """Append a constant to the weights, once."""
        array = np.ascontiguousarray(array)
        key = hashlib.sha256(array.view(np.uint8).reshape(-1).data if array.size else b"").digest()
        if key not in self._offsets:
            self._offsets[key] = self.weights_bytes
            self.blobs.append(array)
            self.weights_bytes += align(array.nbytes, self.constant_alignment)
        return _Value("weights", self._offsets[key])


def in_panels(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in the layout of `panels` in `nncc.scheduling`, if `shape` is one of that; else as it is.

    P[.., o, .., j, l] = W[.., o v + j, .., l]
    """
    if array.ndim != len(shape) - 1:
        return array
    axis = next(a for a, (old, new) in enumerate(zip(array.shape, shape, strict=False)) if old != new)
    split = (*array.shape[:axis], shape[axis], shape[-2], *array.shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(array.reshape(split), axis + 1, -2))


def _leaves(value: _Value) -> list[_Value]:
    return [leaf for part in value.parts for leaf in _leaves(part)] if value.space == "tuple" else [value]


def _in_arena(walk: _Walk, streams: Collection[str], inputs: Sequence[TensorSpec]) -> set[int]:
    """The buffers that `streams` of an accelerator read and write, which knows the arena and no memory of the caller;
    inputs of the model that they read are copied before."""
    calls: list[_PendingCall] = []
    copies: dict[_Value, _Value] = {}
    for call in walk.calls:
        if call.kernel in streams:
            for value in [arg for arg in call.args if arg.space == "input" and arg not in copies]:
                copies[value] = _Value("buffer", len(walk.sizes))
                walk.sizes.append(inputs[value.at].nbytes)
                calls.append(_PendingCall("", [value, copies[value]], inputs[value.at].nbytes))
            call.args = [copies.get(arg, arg) for arg in call.args]
        calls.append(call)
    walk.calls = calls
    used = [arg for call in calls if call.kernel in streams for arg in call.args if arg.space == "buffer"]
    return {walk.root(arg.at)[0] for arg in used}


def _place(kernels: Kernels, walk: _Walk, lowered: Lowered) -> Program:
    shared = _in_arena(walk, lowered.streams, kernels.inputs)
    arguments = [list(call.args) for call in walk.calls]
    sizes = list(walk.sizes)
    for number, call in enumerate(walk.calls):
        workspace = lowered.workspace.get(call.kernel, 0)
        if workspace:
            arguments[number].append(_Value("buffer", len(sizes)))
            sizes.append(workspace)
    spans: dict[int, tuple[int, int]] = {}
    for number, args in enumerate(arguments):
        for leaf in args:
            if leaf.space == "buffer":
                buffer = walk.root(leaf.at)[0]
                spans[buffer] = (spans.get(buffer, (number, number))[0], number)

    pinned: dict[int, int] = {}
    copies: list[tuple[_Value, int]] = []
    for output, result in enumerate(walk.results):
        buffer, offset = walk.root(result.at) if result.space == "buffer" else (0, 0)
        whole = result.space == "buffer" and offset == 0 and sizes[buffer] == kernels.outputs[output].nbytes
        if whole and buffer not in pinned and buffer not in shared:
            pinned[buffer] = output
        else:
            if result.space == "buffer":  # it is read after the last call
                spans[buffer] = (spans[buffer][0], len(arguments))
            copies.append((result, output))

    planned = sorted(set(spans) - set(pinned))
    offsets, arena = plan([Lifetime(sizes[b], *spans[b]) for b in planned])
    place = dict(zip(planned, offsets, strict=True))

    def ref(leaf: _Value) -> Ref:
        if leaf.space == "buffer":
            buffer, offset = walk.root(leaf.at)
            offset += leaf.offset
            return Ref("output", pinned[buffer], offset) if buffer in pinned else Ref("arena", place[buffer] + offset)
        return Ref(leaf.space, leaf.at)  # type: ignore[arg-type]

    calls = [Call(c.kernel, tuple(map(ref, args)), c.nbytes) for c, args in zip(walk.calls, arguments, strict=True)]
    calls += [Call("", (ref(value), Ref("output", o)), kernels.outputs[o].nbytes) for value, o in copies]
    weights = np.zeros(walk.weights_bytes, np.uint8)
    offset = 0
    for blob in walk.blobs:
        weights[offset : offset + blob.nbytes] = blob.reshape(-1).view(np.uint8)
        offset += align(blob.nbytes, walk.constant_alignment)
    return Program(
        kernels.name,
        kernels.target,
        kernels.inputs,
        kernels.outputs,
        tuple(calls),
        weights,
        arena,
        max(lowered.scratch.values(), default=0),
        lowered.code,
        kernels.schedules,
        kernels.flops,
        kernels.argument_bytes,
        kernels.sources,
        lowered.launches,
        streams=lowered.streams,
    )
