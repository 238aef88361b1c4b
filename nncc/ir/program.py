"""The program: no graph left, every address known; what it is made of besides steps, and the files that it becomes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.ir.extents import Dim, Extent
from nncc.ir.operations import Operations
from nncc.ir.steps import Call, Ref, Step, calls_of, lines_of, times_of
from nncc.ir.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from nncc.target import Target
    from nncc.vta.stream import Stream

__all__ = ["Artifact", "Launch", "Lowered", "Packed", "Program", "Variant", "symbol_prefix"]


@dataclass(frozen=True)
class Launch:
    """One launch of a device kernel: what a call of a program for a GPU is made of.

    `args` are the kernel's parameters, all pointers, in their order: the number of the call's argument that each points
    into, and at which byte of it.
    """

    symbol: str
    """Name of the kernel in the device code."""
    grid: tuple[int, int, int]
    """Blocks along x, y and z."""
    block: tuple[int, int, int]
    """Threads of a block along x, y and z."""
    args: tuple[tuple[int, int], ...]
    shared_bytes: int = 0
    """Dynamic shared memory of a block, beside what the kernel declares itself."""


@dataclass(frozen=True)
class Lowered:
    """What a backend makes of scheduled TIR functions, which it is given by name."""

    code: Any
    """`Program.kernels`."""
    workspace: dict[str, int]
    """Bytes by function: where not 0, a call has one argument more."""
    scratch: dict[str, int] = field(default_factory=dict)
    """Bytes by function that each thread needs besides."""
    launches: dict[str, tuple[Launch, ...]] = field(default_factory=dict)
    """`Program.launches`."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """`Program.streams`."""


@dataclass(frozen=True)
class Packed:
    """A constant that is stored without its zeros, and expanded into the arena: `nbytes` bytes of the weights from `at`
    on become `elements` elements of `width` bytes at byte `to` of the arena."""

    at: int
    nbytes: int
    to: int
    elements: int
    width: int

    def __str__(self) -> str:
        what = f"{self.elements} elements of {self.width} bytes"
        return f"arena+{self.to} = {what}, {self.nbytes} bytes at weights+{self.at}"


@dataclass(frozen=True)
class Variant:
    """Those steps of a program that are one way to run it: numbers `first` to `stop` - 1."""

    sizes: tuple[int, ...]
    """The sizes of the open dimensions that it is for; empty for one that takes all sizes."""
    first: int
    stop: int

    def __str__(self) -> str:
        return f"steps {self.first} to {self.stop - 1}: {'x'.join(map(str, self.sizes)) or 'all sizes'}"


@dataclass(frozen=True)
class Program:
    """Steps in order, arena offsets, constants: no graph left. Printable on a page, hashable to the byte.

    `weights` is the constant blob; `arena_bytes` what one context needs for activations, kernel workspaces and the
    constants that are `packed`, which stay there; `scratch_bytes` what each of its threads needs besides. `kernels` is
    backend-specific: for LLVM an IRModule of lowered functions with bare-pointer signatures, for GPUs the source of the
    device kernels.
    """

    name: str
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    weights: np.ndarray
    arena_bytes: int
    scratch_bytes: int
    kernels: Any
    schedules: dict[str, str] = field(default_factory=dict)
    operations: dict[str, Operations] = field(default_factory=dict)
    argument_bytes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    launches: dict[str, tuple[Launch, ...]] = field(default_factory=dict)
    """For a GPU, what each kernel of `calls` launches, in order."""
    packed: tuple[Packed, ...] = ()
    dims: tuple[Dim, ...] = ()
    """Open dimensions, in the order of the C interface."""
    variants: tuple[Variant, ...] = ()
    """The first that is for the sizes of a run is what runs. Empty without open dimensions: then all steps run."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """The kernels that an accelerator runs; their schedules say by which plans."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls, in the order in which profiles and errors number them."""
        return tuple(calls_of(self.steps))

    @property
    def times(self) -> tuple[int, ...]:
        """For each of `calls`, how often it runs in a run; iterations that are not known count as one, and each branch
        as if it were taken."""
        return tuple(times_of(self.steps))

    def call_bytes(self, call: Call, space: str = "") -> int:
        """How many bytes `call` reads and writes, at the largest sizes; of one `space` only, if it is given.

        A tensor that it is given twice counts once, its workspace not.
        """
        if not call.kernel:
            largest = {dim.name: dim.high for dim in self.dims}
            return (not space) * 2 * (call.nbytes.at(largest) if isinstance(call.nbytes, Extent) else call.nbytes)
        sizes: dict[Ref, int] = {}
        for ref, nbytes in zip(call.args, self.argument_bytes.get(call.kernel, ()), strict=False):
            sizes[ref] = max(nbytes, sizes.get(ref, 0))
        return sum(nbytes for ref, nbytes in sizes.items() if space in ("", ref.space))

    def text(self) -> str:
        """The whole program, one line an input, output or call."""
        lines = [f"program {self.name} for {self.target.name}"]
        lines += [f"  input  {i} {spec}" for i, spec in enumerate(self.inputs)]
        lines += [f"  output {i} {spec}" for i, spec in enumerate(self.outputs)]
        lines += [f"  weights {self.weights.nbytes} arena {self.arena_bytes} scratch {self.scratch_bytes}"]
        lines += [f"  dim    {i} {dim.name} {dim.low}..{dim.high}" for i, dim in enumerate(self.dims)]
        lines += [f"  packed {each}" for each in self.packed]
        lines += [f"  {each}" for each in self.variants]
        lines += lines_of(self.steps)
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """SHA-256 of the text, the kernels and the weights, in hexadecimal: equal digests, equal programs."""
        digest = hashlib.sha256(self.text().encode())
        digest.update(str(self.kernels).encode())
        digest.update(str(sorted(self.launches.items())).encode() if self.launches else b"")
        digest.update(self.weights.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Artifact:
    """The files of a compiled model. `description` is what ``model.json`` holds."""

    library: Path
    header: Path
    json: Path
    description: dict[str, Any]
    extras: tuple[Path, ...] = ()


def symbol_prefix(name: str) -> str:
    """The prefix of all symbols of a model: ``nncc_<name>_``, the name made a C identifier."""
    return f"nncc_{re.sub(r'[^0-9a-zA-Z]', '_', name)}_"
