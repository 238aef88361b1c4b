"""What the passes of the target half may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nncc.config import Precision
from nncc.kernels.choices import GraphChoices
from nncc.passes.offload import Offload
from nncc.passes.product_layers import ProductLayers
from nncc.target import Target

if TYPE_CHECKING:
    from nncc.kernels.templates import Template

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """The facts of one compilation that a pass of `SPECIALIZE` gets beside the module."""

    name: str
    """Of the model."""
    target: Target
    templates: Mapping[str, Template] = field(default_factory=dict)
    """By name; a pass that makes calls to a template takes it from here."""
    graph: GraphChoices = field(default_factory=GraphChoices)
    """Asked where there are several ways, of which measuring knows the fastest."""
    precision: Precision = "float32"
    """What products of float32 are computed in."""
    open_sizes: frozenset[int] = frozenset()
    """Sizes that stand for those of open dimensions: what is made must do for all others too."""
    layers: ProductLayers = field(default_factory=ProductLayers)
    """Told which convolutions and matrix products run on integers, and why others do not."""
    offload: Offload = field(default_factory=Offload)
    """Told which of those on integers run on an accelerator, and why others do not."""
