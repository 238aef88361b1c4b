"""What is written on blocks and kernels for those who schedule them."""

from __future__ import annotations

__all__ = [
    "AHEAD",
    "ANCHOR",
    "BORDERS",
    "DIMS",
    "FLOPS",
    "KEPT",
    "LAID",
    "PART",
    "PHASES",
    "TASK",
    "anchor",
    "borders",
    "kept",
    "part",
    "phases",
]

AHEAD = "nncc.ahead"
"""The annotation of a loop that asks for weights before they are used: the kernel's argument, and how many elements
before."""
BORDERS = "nncc.borders"
"""The annotation of a block of which so many elements at either end of its innermost axis are made otherwise."""
ANCHOR = "nncc.template"
"""The annotation of the block that a template schedules."""
KEPT = "nncc.kept"
"""The annotation of a block that is computed once: it would cost more to compute it again where it is read."""
PHASES = "nncc.phases"
"""The annotation of a block whose innermost axis goes on in steps of so many elements; its `borders` count steps."""
FLOPS = "nncc.flops"
"""The annotation of a block that is loops already: its floating-point operations."""
PART = "nncc.part"
"""The annotation of other blocks of a template."""
TASK = "nncc.task"
"""The annotation of an anchor that is one of several ways: see `nncc.kernels.choices.GraphChoices`."""
DIMS = "nncc.dims"
"""The attribute of kernels with open dimensions: by variable, the size that schedules take it for, and its bounds."""
LAID = "nncc.laid"
"""The attribute of kernels whose weights other forms of the model have too: in panels of so many vectors."""


def anchor(name: str, task: str = "") -> dict[str, str]:
    """Attributes of the block that the template `name` schedules.

    `task` is the hash of the graph's task of which the template is one way, if there are others.
    """
    return {ANCHOR: name} | ({TASK: task} if task else {})


def part(name: str) -> dict[str, str]:
    """Attributes of a block that belongs to the template `name` beside its anchor: it is left for the template."""
    return {PART: name}


def borders(front: int, back: int) -> dict[str, list[int]]:
    """Attributes of a block whose innermost axis has `front` elements, and `back` at its end, with conditions."""
    return {BORDERS: [front, back]} if front or back else {}


def kept() -> dict[str, int]:
    """Attributes of a block that is not to be inlined."""
    return {KEPT: 1}


def phases(count: int) -> dict[str, int]:
    """Attributes of a block whose innermost axis is written `count` elements at a time."""
    return {PHASES: count}
