"""Which micro-operations are on the chip when, and what is loaded for that.

Lists fill the memory in turn, and wrap around at its end. What an instruction needs and is not there is loaded with all
that the same layer will need and miss later on, as far as half the memory holds it: a load costs the latency of DRAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Cached", "UopLoad", "cached"]

Lists = npt.NDArray[np.uint32]


class UopLoad(NamedTuple):
    """Micro-operations that are loaded: `size` of them, from `source` in the image to `target` on the chip."""

    before: int
    """The instruction that they are loaded for."""
    source: int
    target: int
    size: int


class Cached(NamedTuple):
    """All lists as they are in DRAM, where each instruction finds its own on the chip, and the loads in order."""

    image: Lists
    places: list[int]
    loads: list[UopLoad]


def cached(lists: Sequence[Lists], layers: Sequence[int], depth: int) -> Cached:
    """The lists of instructions in order, each of a layer, for a memory of `depth`; none is longer than that."""
    keys = [each.tobytes() for each in lists]
    held: dict[bytes, tuple[int, int]] = {}
    sources: dict[bytes, int] = {}
    image: list[Lists] = []
    places: list[int] = []
    loads: list[UopLoad] = []
    end = length = 0
    for index, key in enumerate(keys):
        if key not in held:
            batch = _missing(lists, keys, layers, index, held, depth // 2)
            content = np.concatenate([lists[each] for each in batch])
            target = end if end + len(content) <= depth else 0
            end = target + len(content)
            held = {name: (a, b) for name, (a, b) in held.items() if b <= target or a >= end}
            at = target
            for each in batch:
                held[keys[each]] = (at, at + len(lists[each]))
                at += len(lists[each])
            source = sources.setdefault(content.tobytes(), length)
            if source == length:
                image.append(content)
                length += len(content)
            loads.append(UopLoad(index, source, target, len(content)))
        places.append(held[key][0])
    return Cached(np.concatenate(image) if image else np.zeros(0, np.uint32), places, loads)


def _missing(
    lists: Sequence[Lists],
    keys: list[bytes],
    layers: Sequence[int],
    first: int,
    held: dict[bytes, tuple[int, int]],
    room: int,
) -> list[int]:
    """Instructions whose lists are loaded together: the first one, and later ones of its layer."""
    batch, names, size = [first], {keys[first]}, len(lists[first])
    for index in range(first + 1, len(keys)):
        if layers[index] != layers[first]:
            break
        if keys[index] not in held and keys[index] not in names:
            size += len(lists[index])
            if size > room:
                break
            batch.append(index)
            names.add(keys[index])
    return batch
