"""Models that are graphs: of ONNX, of Relax operators, of calls of TIR kernels; and the control flow beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nncc.ir.findings import Acceleration, Decision, Quantization
from nncc.ir.operations import Operations
from nncc.ir.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir
    import tvm

    from nncc.target import Target

__all__ = ["CONCATENATION", "COUNT", "IN_PLACE", "Kernels", "Model", "Network", "Region"]

COUNT = "nncc.count"
"""The attribute of TIR functions whose last argument gets how much they selected, an int64: the dimension's name."""
IN_PLACE = "nncc.in_place"
"""The attribute of such functions: whether what is selected lies where it would if all were, not densely packed."""
CONCATENATION = "nncc.concatenation"
"""The attribute of TIR functions that write their arguments one after the other into the last one."""


@dataclass(frozen=True)
class Model:
    """An ONNX graph, valid at every step: what the portable stages read and return."""

    graph: onnx_ir.Model
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Region:
    """Control flow that a graph calls like a function: its bodies run under a condition, or again and again.

    A branch is called with the condition and what the bodies capture; both bodies, then and else, take all of that and
    give the outputs. A loop is called with its number of iterations and its condition (where it has them), then the
    carried values, those that are scanned, and the captured ones. Its body takes the iteration's number (int64) in
    front of carried values, slices and captured ones, and gives the next condition (where it has one), the carried
    values and slices of what is stacked; the outputs are the carried values, then all slices of each kind.
    """

    kind: Literal["branch", "loop"]
    bodies: tuple[Any, ...]
    """A Model each, later a Network, then Kernels."""
    outputs: tuple[TensorSpec, ...]
    trips: int | None = None
    """Iterations of a loop, where they are known; else an argument says, or only the condition does."""
    has_trips: bool = False
    """Whether the first argument is the most iterations, an int64."""
    has_condition: bool = False
    """Whether there is a condition, a byte, which is looked at before each iteration."""
    carried: int = 0
    scanned: tuple[bool, ...] = ()
    """For each scanned argument, whether its slices along the first axis are taken from the end."""
    stacked: tuple[bool, ...] = ()
    """For each stacked output, whether its slices are put from the end."""


@dataclass(frozen=True)
class Network:
    """A Relax function ``main`` for one target, its constants inside."""

    module: tvm.IRModule
    name: str
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decisions: tuple[Decision, ...] = ()
    """Where there were several ways."""
    quantization: Quantization | None = None
    """None where nothing is quantized."""
    acceleration: Acceleration | None = None
    """None where the target has no accelerator."""
    regions: Mapping[str, Region] = field(default_factory=dict)
    """By the name under which ``main`` calls it; the bodies are Networks."""


@dataclass(frozen=True)
class Kernels:
    """A Relax function ``main`` that only calls TIR kernels, and the kernels.

    The schedule stage fills in, for each kernel, where its schedule came from (``conv2d tile 6x2``), how many
    floating-point operations one call performs and how many bytes of each argument it reads or writes.
    """

    module: tvm.IRModule
    name: str
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    schedules: dict[str, str] = field(default_factory=dict)
    operations: dict[str, Operations] = field(default_factory=dict)
    argument_bytes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    """The network's, and those of the kernels that had a choice, in the order of the kernels."""
    sources: dict[str, str] = field(default_factory=dict)
    """By kernel, the source of its decision."""
    quantization: Quantization | None = None
    """The network's."""
    acceleration: Acceleration | None = None
    """The network's."""
    regions: Mapping[str, Region] = field(default_factory=dict)
    """The network's, with bodies that are Kernels."""
