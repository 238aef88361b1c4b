"""The general form of a model with open dimensions: what the static pipeline made at some sizes, for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nncc.codegen.flatten import Walk, walk_of
from nncc.codegen.place import PendingCall, Value
from nncc.compat import IRModule
from nncc.dynamic.fit import BUCKETS_ONLY, Fitter, Point, largest
from nncc.dynamic.generalize import Mismatch, generalize_function
from nncc.errors import ModelError
from nncc.ir import Dim, Extent, Kernels, TensorSpec

__all__ = ["General", "Sample", "generalize"]

_FEWEST = 3
"""Samples that numbers are found from."""


@dataclass(frozen=True)
class Sample:
    """What the lower stage made at some sizes of the open dimensions."""

    point: Point
    kernels: Kernels
    clear: bool = True
    """Whether no open size is a static one too, which passes would take for open: else only its constants count."""


@dataclass(frozen=True)
class General:
    """Kernels with variables for the open dimensions, and the calls of them."""

    kernels: Kernels
    """Its module has TIR functions only."""
    dims: tuple[Dim, ...]
    calls: tuple[PendingCall, ...]
    results: tuple[Value, ...]
    sizes: tuple[int, ...]
    """Bytes of each buffer, at most."""
    inside: Mapping[int, tuple[int, int | Extent]]
    constants: Mapping[tuple[int, int], np.ndarray]
    """By call and argument."""
    unclear: tuple[Point, ...]
    """Sizes at which a further sample would tell apart expressions that have all the numbers that are known."""


def generalize(every: Sequence[Sample], dims: Sequence[Dim]) -> General:
    """The general form of samples; those that are not clear are left out.

    The first is what names and structure are taken from; the last has the largest sizes, which those constants are
    taken from that are longer at larger sizes. Raises ModelError where samples differ in more than numbers, or in
    numbers that no simple expression has.
    """
    samples = [sample for sample in every if sample.clear]
    if len(samples) < _FEWEST:
        raise ModelError("the open dimensions have sizes that others in the model have too", BUCKETS_ONLY)
    fit = Fitter([sample.point for sample in samples], dims)
    if any(sample.kernels.regions for sample in samples):
        raise ModelError("the model has control flow, which cannot be compiled for open dimensions", BUCKETS_ONLY)
    walks = [walk_of(sample.kernels, 1) for sample in samples]
    first = walks[0]
    if any(_skeleton(walk) != _skeleton(first) for walk in walks[1:]):
        raise ModelError(
            f"the model is made of other operators at {_spelled(samples, walks)} than at "
            f"{'x'.join(map(str, samples[0].point.values()))}, so there is no one form for all sizes",
            BUCKETS_ONLY,
        )
    sources = list(zip(samples, walks, strict=True))
    if not every[-1].clear:
        last = walk_of(every[-1].kernels, 1)
        sources += [(every[-1], last)] if _skeleton(last) == _skeleton(first) else []
    functions: dict[str, Any] = {}
    named: dict[tuple[Any, ...], str] = {}
    calls: list[PendingCall] = []
    constants: dict[tuple[int, int], np.ndarray] = {}
    for number, same in enumerate(zip(*map(_calls, walks), strict=True)):
        fit.what = f"the kernel `{same[0].kernel}`" if same[0].kernel else "a copy"
        args = [_value(values, fit) for values in zip(*(call.args for call in same), strict=True)]
        shapes: dict[int, tuple[int, ...]] = {}
        for at, arg in enumerate(args):
            if arg.space == "weights":
                arrays = [_constant(sample, walk, _calls(walk)[number], at) for sample, walk in sources]
                constants[number, at] = _covering(arrays, fit.what)
                if len({array.shape for array in arrays}) > 1:
                    if any(sources[-1][0].point[dim.name] < dim.high for dim in dims):
                        raise ModelError(f"{fit.what} has a constant that is longer at larger sizes", BUCKETS_ONLY)
                    shapes[at] = constants[number, at].shape
        if not same[0].kernel:
            calls.append(PendingCall("", args, _plain(fit([_fixed(call.nbytes) for call in same]))))
            continue
        key = (*(call.kernel for call in same), *sorted(shapes.items()))
        if key not in named:
            name = same[0].kernel if same[0].kernel not in functions else f"{same[0].kernel}_{len(functions)}"
            several = [sample.kernels.module[call.kernel] for sample, call in zip(samples, same, strict=True)]
            try:
                functions[name] = generalize_function(several, dims, samples[0].point, fit, shapes)
            except Mismatch:
                raise ModelError(
                    f"the kernel `{name}` is another at other sizes, so there is no one form for all of them",
                    BUCKETS_ONLY,
                ) from None
            named[key] = name
        calls.append(PendingCall(named[key], args))
    fit.what = "a buffer"
    sizes = [largest(fit(values), dims) for values in zip(*(walk.memory.sizes for walk in walks), strict=True)]
    inside = {
        buffer: (parent, _plain(fit([_fixed(walk.memory.inside[buffer][1]) for walk in walks])))
        for buffer, (parent, _) in first.memory.inside.items()
    }
    results = tuple(_value(values, fit) for values in zip(*(walk.results for walk in walks), strict=True))
    for number, values in enumerate(zip(*(walk.results for walk in walks), strict=True)):
        if values[0].space == "weights":
            arrays = [walk.memory.constants[value.at] for walk, value in zip(walks, values, strict=True)]
            if len({array.nbytes for array in arrays}) > 1:
                raise ModelError(f"output {number} is a constant of several sizes", BUCKETS_ONLY)
            constants[-1, number] = _covering([array.reshape(-1) for array in arrays], f"output {number}")
    kernels = replace(
        samples[0].kernels,
        module=IRModule(functions),
        inputs=_open_specs([sample.kernels.inputs for sample in samples], fit, dims),
        outputs=_open_specs([sample.kernels.outputs for sample in samples], fit, dims),
    )
    return General(kernels, tuple(dims), tuple(calls), results, tuple(sizes), inside, constants, fit.unclear())


def _calls(walk: Walk) -> list[PendingCall]:
    """The steps of a model without control flow."""
    return [step for step in walk.steps if isinstance(step, PendingCall)]


def _skeleton(walk: Walk) -> Any:
    """What has to be equal at all sizes: which buffers, inputs and outputs each call reads and writes."""

    def places(values: Sequence[Value]) -> list[tuple[str, int]]:
        return [(value.space, -1 if value.space == "weights" else value.at) for value in values]

    calls = [(bool(call.kernel), places(call.args)) for call in _calls(walk)]
    parents = [(buffer, parent) for buffer, (parent, _) in walk.memory.inside.items()]
    return calls, len(walk.memory.sizes), parents, places(walk.results)


def _spelled(samples: Sequence[Sample], walks: Sequence[Walk]) -> str:
    other = next(s for s, walk in zip(samples, walks, strict=True) if _skeleton(walk) != _skeleton(walks[0]))
    return "x".join(map(str, other.point.values()))


def _value(values: Sequence[Value], fit: Fitter) -> Value:
    return replace(values[0], offset=_plain(fit([_fixed(value.offset) for value in values])))


def _constant(sample: Sample, walk: Walk, call: PendingCall, at: int) -> np.ndarray:
    """A constant in the shape that the kernel has it in."""
    array = walk.memory.constants[call.args[at].at]
    if not call.kernel:
        return array.reshape(-1)
    return array.reshape(tuple(int(d) for d in sample.kernels.module[call.kernel].params[at].shape))


def _covering(arrays: Sequence[np.ndarray], what: str) -> np.ndarray:
    """The last array, if all others begin like it along each axis."""
    whole = arrays[-1]
    for array in arrays:
        fits_in = array.ndim == whole.ndim and all(a <= b for a, b in zip(array.shape, whole.shape, strict=True))
        if not fits_in or whole[tuple(map(slice, array.shape))].tobytes() != array.tobytes():
            raise ModelError(f"{what} has a constant whose values depend on the open dimensions", BUCKETS_ONLY)
    return whole


def _fixed(number: int | Extent) -> int:
    """A number of a static program."""
    assert isinstance(number, int)
    return number


def _plain(extent: Extent) -> int | Extent:
    return extent if extent.terms else extent.constant


def _open_specs(specs: Sequence[Sequence[TensorSpec]], fit: Fitter, dims: Sequence[Dim]) -> tuple[TensorSpec, ...]:
    found = []
    for same in zip(*specs, strict=True):
        fit.what = f"the shape of `{same[0].name}`"
        if len({len(spec.shape) for spec in same}) > 1:
            raise ModelError(f"`{same[0].name}` has another number of axes at other sizes", BUCKETS_ONLY)
        extents = tuple(fit(sizes) for sizes in zip(*(spec.shape for spec in same), strict=True))
        is_open = any(extent.terms for extent in extents)
        shape = tuple(largest(extent, dims) for extent in extents)
        found.append(replace(same[0], shape=shape, extents=extents if is_open else ()))
    return tuple(found)
