"""What the stages found out about a model: what was chosen, and what runs on integers or on an accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Acceleration", "Decision", "Fallback", "Quantization"]


@dataclass(frozen=True)
class Decision:
    """What was chosen for a task, which is a kernel or a choice that changes the graph."""

    task: str
    """Its hash."""
    kind: str
    """kernel | algorithm | layout"""
    text: str
    """For people."""
    taken: Mapping[str, Any]
    source: str
    """``default``, or the record that says so."""

    @property
    def tuned(self) -> bool:
        """Whether a record or a lock decided."""
        return not self.source.startswith("default")


@dataclass(frozen=True)
class Fallback:
    """Convolutions or matrix products, alike, that are not computed where others of their kind are."""

    text: str
    """The operator and its shapes: ``conv2d 1x64x56x56*64x64x3x3``."""
    reason: str
    count: int
    """How many there are."""


@dataclass(frozen=True)
class Quantization:
    """What runs on integers in a model that has quantized tensors."""

    integer_macs: int
    """Multiply-adds of convolutions and matrix products on integers."""
    macs: int
    """All multiply-adds of convolutions and matrix products."""
    float_layers: tuple[Fallback, ...] = ()
    """Those in float32 whose input or weights are quantized."""


@dataclass(frozen=True)
class Acceleration:
    """What of a model's integers an accelerator computes."""

    layers: int
    """Convolutions and matrix products on it."""
    macs: int
    """Their multiply-adds."""
    host_macs: int
    """Those of the products of integers on the host."""
    host_layers: tuple[Fallback, ...] = ()
    """Those of integers on the host."""
