"""Samples as batches: stacked where a model takes several at once, one by one where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from nncc.errors import NnccError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Feeds", "Run", "batches", "held_out", "in_memory", "one_by_one", "stack", "takes_batches"]

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], "list[Tensor]"]
"""Results for a stack of samples, stacked in turn along their first axis."""

MOST_BYTES = 4 * 2**30
"""Samples of no more are kept in memory."""
_LEAST_HELD_OUT, _MOST_HELD_OUT = 32, 2000


def in_memory(samples: Sequence[Feeds]) -> Sequence[Feeds]:
    """The samples as a list, where they are not too large: their files are then read once."""
    if len(samples) * sum(array.nbytes for array in samples[0].values()) > MOST_BYTES:
        return samples
    return [samples[at] for at in range(len(samples))]


def held_out(count: int, seed: int, wanted: int | None = None) -> tuple[list[int], list[int]]:
    """Which of `count` samples are trained with, and which `wanted` ones are judged by; all serve both ends where that
    is 0, or leaves none to train with. By default a tenth is: 2000 at most, and 32 at least or, of fewer than 128, a
    quarter; of fewer than 32 none.
    """
    default = min(_MOST_HELD_OUT, max(count // 10, min(_LEAST_HELD_OUT, count // 4))) if count >= 32 else 0
    cut = default if wanted is None else wanted
    if not 0 < cut < count:
        return list(range(count)), list(range(count))
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[cut:].tolist()), sorted(order[:cut].tolist())


def batches(
    samples: Sequence[Feeds], indices: Sequence[int], size: int, random: np.random.Generator | None
) -> Iterator[list[int]]:
    """The samples at `indices` in batches of at most `size`, each of samples of the same shapes, and for each shape as
    equal in size as can be; in random order, or in theirs.
    """
    order = list(indices) if random is None else [indices[at] for at in random.permutation(len(indices))]
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at in order:
        groups.setdefault(tuple(array.shape for array in samples[at].values()), []).append(at)
    found = [part.tolist() for g in groups.values() for part in np.array_split(np.array(g), -(-len(g) // size))]
    yield from (found if random is None else [found[at] for at in random.permutation(len(found))])


def stack(samples: Sequence[Feeds]) -> dict[str, np.ndarray]:
    """Samples of the same shapes as one batch: along the first axis, scalars along a new one."""
    join = {name: np.concatenate if array.ndim else np.stack for name, array in samples[0].items()}
    return {name: join[name]([sample[name] for sample in samples]) for name in samples[0]}


def one_by_one(run: Run, like: Feeds) -> Run:
    """`run` for batches of samples shaped like `like`, by a run for each; results are stacked."""

    def loop(feeds: Feeds) -> list[Tensor]:
        first = next(iter(like))
        count = len(feeds[first]) // max(1, len(like[first]) if like[first].ndim else 1)
        found = []
        for at in range(count):
            rows = {name: len(array) if array.ndim else 0 for name, array in like.items()}
            found.append(run({n: a[at * rows[n] : (at + 1) * rows[n]] if rows[n] else a[at] for n, a in feeds.items()}))
        return [torch.cat([torch.atleast_1d(each) for each in column]) for column in zip(*found, strict=True)]

    return loop


def takes_batches(run: Run, samples: Sequence[Feeds]) -> bool:
    """Whether `run` gives for a stack of two samples what it gives for each.

    The first sample is compared with the first of the same shapes that differs from it; without one, with itself
    reversed in sign.
    """
    first = samples[0]
    shapes = {name: array.shape for name, array in first.items()}
    other = next(
        (
            s
            for s in samples[1:64]
            if {n: a.shape for n, a in s.items()} == shapes and any((s[n] != first[n]).any() for n in first)
        ),
        {name: -array if array.dtype.kind == "f" else array for name, array in first.items()},
    )
    with torch.no_grad():
        single = one_by_one(run, first)(stack([first, other]))
        try:
            both = run(stack([first, other]))
        except (NnccError, RuntimeError, IndexError, ValueError):  # torch and ONNX Runtime refuse shapes like this
            return False
    return all(a.shape == b.shape and _close(a, b) for a, b in zip(single, both, strict=True))


def _close(a: Tensor, b: Tensor) -> bool:
    """By the size of what is finite; what is no number is so in both."""
    a, b = a.double(), b.double()
    size = float(a[torch.isfinite(a)].abs().max()) if torch.isfinite(a).any() else 0.0
    return bool(torch.allclose(a, b, rtol=1e-2, atol=1e-2 * size, equal_nan=True))
