"""The general form of a model with open dimensions: what the static pipeline made at some sizes, for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from nncc.choices import Choices
from nncc.codegen.flatten import Walk, in_panels, symbol_prefix, walk_of
from nncc.codegen.infinite_maxima import infinite_maxima
from nncc.codegen.place import Memory, PendingCall, Value, place
from nncc.compat import IRModule, tvm
from nncc.dynamic.fit import Point, fits
from nncc.dynamic.generalize import Mismatch, dims_of, generalize_function
from nncc.errors import ModelError
from nncc.ir import Dim, Extent, Kernels, Lowered, Program, TensorSpec
from nncc.templates import Template, schedule_kernel

__all__ = ["General", "Sample", "flatten_general", "generalize"]

_MOST_SIZES = 1 << 16
"""Of all sizes together, so many are looked at."""
_FEWEST = 3
"""Samples that numbers are found from."""
_MOST_POINTS = 600
"""And so many where several expressions are compared."""


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


class _Fitter:
    """Finds expressions for the numbers of the samples, and remembers which were not the only ones."""

    def __init__(self, points: Sequence[Point], dims: Sequence[Dim]) -> None:
        self.points = points
        self.dims = dims
        self.what = ""
        """The kernel or buffer that is being looked at."""
        self._found: dict[tuple[int, ...], list[Extent]] = {}

    def __call__(self, values: Sequence[int]) -> Extent:
        key = tuple(values)
        if key not in self._found:
            self._found[key] = fits(self.points, key)
            if not self._found[key]:
                sizes = ", ".join(
                    f"{value} at {'x'.join(map(str, point.values()))}"
                    for value, point in zip(key, self.points, strict=True)
                )
                raise ModelError(
                    f"{self.what} depends on the open dimensions in no simple way: a size is {sizes}", _BUCKETS_ONLY
                )
        return self._found[key][0]

    def unclear(self) -> tuple[Point, ...]:
        """Sizes at which expressions that have the same numbers so far differ, those where most do first."""
        several = [candidates for candidates in self._found.values() if len(candidates) > 1]
        sizes = _sizes(self.dims)
        some = sizes[:: max(1, len(sizes) // _MOST_POINTS)]
        told = [sum(len({each.at(point) for each in candidates}) - 1 for candidates in several) for point in some]
        order = sorted((at for at, number in enumerate(told) if number), key=lambda at: -told[at])
        return tuple(some[at] for at in order)


_BUCKETS_ONLY = "compile for some sizes only: `--buckets`, and `--no-general`"


def _sizes(dims: Sequence[Dim]) -> list[dict[str, int]]:
    """All sizes, or if there are too many, those of each dimension with the others at their lowest and highest."""
    count = prod(dim.high - dim.low + 1 for dim in dims)
    names = [dim.name for dim in dims]
    ranges = [range(dim.low, dim.high + 1) for dim in dims]
    if count <= _MOST_SIZES:
        return [dict(zip(names, sizes, strict=True)) for sizes in itertools.product(*ranges)]
    found = []
    for at, dim in enumerate(dims):
        step = max(1, (dim.high - dim.low + 1) // (_MOST_SIZES // 4))
        ends = [(dim.low, dim.high) if other != at else ranges[at][::step] for other, dim in enumerate(dims)]
        found += [dict(zip(names, sizes, strict=True)) for sizes in itertools.product(*ends)]
    return found


def generalize(every: Sequence[Sample], dims: Sequence[Dim]) -> General:
    """The general form of samples; those that are not clear are left out.

    The first is what names and structure are taken from; the last has the largest sizes, which those constants are
    taken from that are longer at larger sizes. Raises ModelError where samples differ in more than numbers, or in
    numbers that no simple expression has.
    """
    samples = [sample for sample in every if sample.clear]
    if len(samples) < _FEWEST:
        raise ModelError("the open dimensions have sizes that others in the model have too", _BUCKETS_ONLY)
    fit = _Fitter([sample.point for sample in samples], dims)
    if any(sample.kernels.regions for sample in samples):
        raise ModelError("the model has control flow, which cannot be compiled for open dimensions", _BUCKETS_ONLY)
    walks = [walk_of(sample.kernels, 1) for sample in samples]
    first = walks[0]
    if any(_skeleton(walk) != _skeleton(first) for walk in walks[1:]):
        raise ModelError(
            f"the model is made of other operators at {_spelled(samples, walks)} than at "
            f"{'x'.join(map(str, samples[0].point.values()))}, so there is no one form for all sizes",
            _BUCKETS_ONLY,
        )
    sources = list(zip(samples, walks, strict=True))
    if not every[-1].clear:
        largest = walk_of(every[-1].kernels, 1)
        sources += [(every[-1], largest)] if _skeleton(largest) == _skeleton(first) else []
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
                        raise ModelError(f"{fit.what} has a constant that is longer at larger sizes", _BUCKETS_ONLY)
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
                    _BUCKETS_ONLY,
                ) from None
            named[key] = name
        calls.append(PendingCall(named[key], args))
    fit.what = "a buffer"
    sizes = [_most(fit(values), dims) for values in zip(*(walk.memory.sizes for walk in walks), strict=True)]
    inside = {
        buffer: (parent, _plain(fit([_fixed(walk.memory.inside[buffer][1]) for walk in walks])))
        for buffer, (parent, _) in first.memory.inside.items()
    }
    results = tuple(_value(values, fit) for values in zip(*(walk.results for walk in walks), strict=True))
    for number, values in enumerate(zip(*(walk.results for walk in walks), strict=True)):
        if values[0].space == "weights":
            arrays = [walk.memory.constants[value.at] for walk, value in zip(walks, values, strict=True)]
            if len({array.nbytes for array in arrays}) > 1:
                raise ModelError(f"output {number} is a constant of several sizes", _BUCKETS_ONLY)
            constants[-1, number] = _covering([array.reshape(-1) for array in arrays], f"output {number}")
    kernels = replace(
        samples[0].kernels,
        module=IRModule(functions),
        inputs=_open_specs([sample.kernels.inputs for sample in samples], fit, dims),
        outputs=_open_specs([sample.kernels.outputs for sample in samples], fit, dims),
    )
    return General(kernels, tuple(dims), tuple(calls), results, tuple(sizes), inside, constants, fit.unclear())


def _lowered(
    general: General, scheduled: Kernels, templates: Mapping[str, Template]
) -> tuple[Kernels, dict[str, Any], Lowered]:
    """The kernels, their functions, and the code of these.

    One whose schedule cannot be lowered, because TVM cannot prove of an open dimension what it relies on, gets its
    template's next tile with which it can; where there is none, it keeps the loops that it came with: right beats fast.
    """
    from nncc.backends import backend

    def lower(some: dict[str, Any]) -> Lowered:
        return backend(scheduled.target).lower(some, scheduled.target, symbol_prefix(scheduled.name))

    functions = {variable.name_hint: function for variable, function in scheduled.module.functions.items()}
    try:
        return scheduled, functions, lower(functions)
    except _FAILURES:
        words = dict(scheduled.schedules)
        for name, function in functions.items():
            try:
                lower({name: function})
            except _FAILURES:
                functions[name], words[name] = general.kernels.module[name], "plain: TVM cannot lower its schedule"
                for other, word in _other_tiles(general.kernels.module[name], name, scheduled, templates):
                    try:
                        lower({name: other})
                    except _FAILURES:
                        continue
                    functions[name], words[name] = other, word
                    break
        return replace(scheduled, schedules=words), functions, lower(functions)


def _other_tiles(
    function: Any, name: str, scheduled: Kernels, templates: Mapping[str, Template]
) -> Iterator[tuple[Any, str]]:
    """The function scheduled with its template's other tiles, the cheapest first, and what is said of each."""
    hardware, asked = scheduled.target.hardware, Choices()
    with scheduled.target.tvm_target():
        schedule_kernel(function, templates, hardware, asked)
        for tile in asked.options.get("tile", [])[1:]:
            other, word = schedule_kernel(function, templates, hardware, Choices({"tile": tile}))
            yield infinite_maxima(other).with_attr("global_symbol", name), word


_FAILURES = (tvm.error.InternalError, ValueError, RuntimeError)


def flatten_general(general: General, scheduled: Kernels, templates: Mapping[str, Template]) -> Program:
    """The program of the general form with scheduled kernels: arena and workspaces for the largest sizes."""
    scheduled, functions, lowered = _lowered(general, scheduled, templates)
    memory = Memory()
    memory.sizes += general.sizes
    memory.inside |= general.inside
    calls = []
    for number, call in enumerate(general.calls):
        args = list(call.args)
        for at, arg in enumerate(args):
            if arg.space == "weights":
                array = general.constants[number, at]
                if call.kernel:
                    shape = functions[call.kernel].params[at].shape
                    array = in_panels(array, tuple(int(d) for d in shape))
                args[at] = memory.constant(array)
        if call.kernel:
            args += [Value("dim", dim) for dim in dims_of(functions[call.kernel])]
        calls.append(replace(call, args=args))
    results = []
    for number, result in enumerate(general.results):
        constant = general.constants.get((-1, number))
        results.append(result if constant is None else memory.constant(constant))
    return replace(place(scheduled, memory, calls, results, lowered), dims=general.dims)


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


def _value(values: Sequence[Value], fit: _Fitter) -> Value:
    return replace(values[0], offset=_plain(fit([_fixed(value.offset) for value in values])))


def _constant(sample: Sample, walk: Walk, call: PendingCall, at: int) -> np.ndarray:
    """A constant in the shape that the kernel has it in."""
    array = walk.memory.constants[call.args[at].at]
    if not call.kernel:
        return array.reshape(-1)
    return array.reshape(tuple(int(d) for d in sample.kernels.module[call.kernel].params[at].shape))


def _covering(arrays: Sequence[np.ndarray], what: str) -> np.ndarray:
    """The last array, if all others begin like it along each axis."""
    largest = arrays[-1]
    for array in arrays:
        fits_in = array.ndim == largest.ndim and all(a <= b for a, b in zip(array.shape, largest.shape, strict=True))
        if not fits_in or largest[tuple(map(slice, array.shape))].tobytes() != array.tobytes():
            raise ModelError(f"{what} has a constant whose values depend on the open dimensions", _BUCKETS_ONLY)
    return largest


def _fixed(number: int | Extent) -> int:
    """A number of a static program."""
    assert isinstance(number, int)
    return number


def _plain(extent: Extent) -> int | Extent:
    return extent if extent.terms else extent.constant


def _most(extent: Extent, dims: Sequence[Dim]) -> int:
    """The largest value."""
    if all(coefficient > 0 for coefficient, _ in extent.terms):
        return extent.at({dim.name: dim.high for dim in dims})
    return max(extent.at(sizes) for sizes in _sizes(dims))


def _open_specs(specs: Sequence[Sequence[TensorSpec]], fit: _Fitter, dims: Sequence[Dim]) -> tuple[TensorSpec, ...]:
    found = []
    for same in zip(*specs, strict=True):
        fit.what = f"the shape of `{same[0].name}`"
        if len({len(spec.shape) for spec in same}) > 1:
            raise ModelError(f"`{same[0].name}` has another number of axes at other sizes", _BUCKETS_ONLY)
        extents = tuple(fit(sizes) for sizes in zip(*(spec.shape for spec in same), strict=True))
        is_open = any(extent.terms for extent in extents)
        shape = tuple(_most(extent, dims) for extent in extents)
        found.append(replace(same[0], shape=shape, extents=extents if is_open else ()))
    return tuple(found)
