"""What a converter gets to know of a node beside its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Attributes", "word"]


def word(value: Any) -> str:
    """Text of an attribute, which may be bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Attributes(dict[str, Any]):
    """The attributes that a node has, by name, as the file has them: text as bytes, lists as tuples.

    `name` is the node's, or that of its first output; `opset` the version of the standard domain; `outputs` counts how
    many results the node has, one that is left out at the end not among them.
    """

    def __init__(self, given: Mapping[str, Any], *, name: str = "", opset: int, outputs: int = 1) -> None:
        super().__init__(given)
        self.name, self.opset, self.outputs = name, opset, outputs

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        return word(self.get(name, default))

    def ints(self, name: str, default: Sequence[int]) -> list[int]:
        """An attribute that is a list of integers."""
        return [int(value) for value in self.get(name, default)]
