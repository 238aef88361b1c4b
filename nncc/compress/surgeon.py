"""Which weights of a layer go, and what those that are left become: optimal brain surgeon.

Without the weights S, a layer whose outputs have the second-order loss (W - W*)^T H (W - W*) loses at least
W*_S^T ((H^-1)_SS)^-1 W*_S, and does so at W = W* - (H^-1)_{:,S} ((H^-1)_SS)^-1 W*_S (Hassibi and Stork 1993). H is the
Gram matrix of the layer's inputs, so that rows of W are inputs and its columns, outputs, have an H in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RANKS", "Block", "Problem", "fitted", "keep_blocks", "keep_weights"]

RANKS = ("reconstruction", "activation", "magnitude")
"""What is least missed: by H; by its diagonal, that is by weights times the root mean square of their inputs; by the
weights alone."""
_MOST_OPERATIONS = 2e11
"""Of a layer; with more, a cheaper way is taken."""
_ROUND = 16
"""A round of the greedy removal takes one in so many of the blocks that are left."""
_COLUMNS = 128
"""Inputs among which single weights are compared."""
_ITERATIONS = 20
"""Of conjugate gradients."""


@dataclass(frozen=True)
class Problem:
    """The least (W - best)^T hessian (W - best), float64."""

    hessian: np.ndarray
    """[inputs, inputs], positive definite; a bias counts as the last input."""
    best: np.ndarray
    """[inputs, outputs]"""
    free: int
    """So many inputs, the first ones, may go; the bias stays."""

    @cached_property
    def inverse(self) -> np.ndarray:
        """Of the hessian."""
        import numpy as np

        return np.linalg.inv(self.hessian)


@dataclass(frozen=True)
class Block:
    """Weights that go as one: of `outputs` outputs and `inputs` channels, at one place of a window."""

    outputs: int
    inputs: int

    def rows(self, free: int, window: int) -> np.ndarray:
        """The rows of a matrix, which are channels by places of the window, by block: [blocks, inputs]. Where channels
        are missing in the last blocks, rows are `free` and above, each once."""
        import numpy as np

        channels = free // window
        padded = -(-channels // self.inputs) * self.inputs
        places = np.arange(padded * window).reshape(-1, self.inputs, window)
        return places.transpose(0, 2, 1).reshape(-1, self.inputs)

    def count(self, free: int, window: int) -> int:
        """Blocks of one row of blocks, that is of `outputs` outputs."""
        return -(-(free // window) // self.inputs) * window


def keep_blocks(problem: Problem, block: Block, window: int, count: int, rank: str = RANKS[0]) -> np.ndarray:
    """Which weights stay, bool[free, outputs], so that each row of blocks keeps `count` of them.

    The block that is least missed goes, the weights that are left are fitted, and so on, a sixteenth of what is left at
    a time. Where that takes too long, all are judged at once; so too with the other ranks of `RANKS`.
    """
    import numpy as np

    places = block.rows(problem.free, window)
    frame = _Frame(problem, places)
    outputs = problem.best.shape[1]
    spans = [slice(start, min(start + block.outputs, outputs)) for start in range(0, outputs, block.outputs)]
    inverse = frame.square(problem.inverse) if rank == "reconstruction" else None
    gone = (len(places) - count) * block.inputs
    slow = 2.0 * len(spans) * gone * len(problem.hessian) ** 2 > _MOST_OPERATIONS
    moments = np.diagonal(problem.hessian)[:, None]
    power = frame.rows(moments if rank == "activation" else np.ones_like(moments))
    mask = np.zeros((places.size, outputs), bool)
    for span in spans:
        best = frame.rows(problem.best[:, span])
        if inverse is None:
            losses = (np.square(best) * power)[: places.size].reshape(len(places), -1).sum(axis=1)
        elif slow:
            losses = _losses(inverse, best, len(places), block.inputs)
        if inverse is None or slow:
            stay = np.argsort(-losses, kind="stable")[:count]
        else:
            stay = _greedy(inverse, best, len(places), block.inputs, count)
        mask[places[stay].reshape(-1), span] = True
    return mask[: problem.free]


class _Frame:
    """Rows in the order of blocks, behind them the bias; inputs that are nothing where channels are missing."""

    def __init__(self, problem: Problem, places: np.ndarray) -> None:
        import numpy as np

        bias = np.arange(len(problem.hessian) - problem.free)
        self._real = np.concatenate([np.arange(problem.free), bias + places.size])
        self._order = np.concatenate([places.reshape(-1), bias + places.size])

    def rows(self, matrix: np.ndarray) -> np.ndarray:
        import numpy as np

        whole = np.zeros((len(self._order), matrix.shape[1]))
        whole[self._real] = matrix
        return whole[self._order]

    def square(self, matrix: np.ndarray) -> np.ndarray:
        import numpy as np

        whole = np.eye(len(self._order))
        whole[np.ix_(self._real, self._real)] = matrix
        return whole[np.ix_(self._order, self._order)]


def _losses(inverse: np.ndarray, best: np.ndarray, blocks: int, size: int) -> np.ndarray:
    """What each of the blocks, which come first, loses by itself."""
    import numpy as np

    rows = np.arange(blocks * size).reshape(blocks, size)
    weights = best[rows]
    return np.einsum("bij,bij->b", weights, np.linalg.solve(inverse[rows[:, :, None], rows[:, None]], weights))


def _greedy(inverse: np.ndarray, best: np.ndarray, blocks: int, size: int, count: int) -> np.ndarray:
    """The blocks that stay."""
    import numpy as np

    left = np.arange(blocks)
    weights = best
    while len(left) > count:
        rows = np.arange(len(left) * size).reshape(-1, size)
        losses = _losses(inverse, weights, len(left), size)
        number = min(max(1, len(left) // _ROUND), len(left) - count)
        stays = np.ones(len(left), bool)
        stays[np.argsort(losses, kind="stable")[:number]] = False
        kept = np.concatenate([rows[stays].reshape(-1), np.arange(rows.size, len(inverse))])
        gone = rows[~stays].reshape(-1)
        across = inverse[np.ix_(kept, gone)]
        both = np.concatenate([across.T, weights[gone]], axis=1)
        change = across @ np.linalg.solve(inverse[np.ix_(gone, gone)], both)
        inverse = inverse[np.ix_(kept, kept)] - change[:, : len(kept)]
        weights = weights[kept] - change[:, len(kept) :]
        left = left[stays]
    return left


def keep_weights(problem: Problem, part: float, rank: str = RANKS[0]) -> np.ndarray:
    """Which weights stay, bool[free, outputs], so that `part` of them does.

    Input after input, in the order in which they come, weights go and those of later inputs make up for them; which go
    is decided for 128 inputs at a time (SparseGPT, Frantar and Alistarh 2023, arXiv:2301.00774). The other ranks of
    `RANKS` judge all at once.
    """
    import numpy as np

    free = problem.free
    if rank != "reconstruction":
        power = np.square(problem.best[:free])
        return _largest(power * np.diagonal(problem.hessian)[:free, None] if rank == "activation" else power, part)
    factor = np.linalg.cholesky(problem.inverse).T
    weights = problem.best.copy()
    mask = np.zeros((free, weights.shape[1]), bool)
    for start in range(0, free, _COLUMNS):
        stop = min(start + _COLUMNS, free)
        pivots = np.diagonal(factor)[start:stop, None]
        mask[start:stop] = _largest(np.square(weights[start:stop] / pivots), part)
        errors = np.empty((stop - start, weights.shape[1]))
        for at in range(start, stop):
            error = np.where(mask[at], 0.0, weights[at]) / factor[at, at]
            weights[at:stop] -= factor[at, at:stop, None] * error
            errors[at - start] = error
        weights[stop:] -= factor[start:stop, stop:].T @ errors
    return mask


def _largest(scores: np.ndarray, part: float) -> np.ndarray:
    """Where the largest ones are, of which there are `part` of all."""
    import numpy as np

    count = max(1, round(scores.size * part))
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.reshape(-1), kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def fitted(problem: Problem, mask: np.ndarray) -> np.ndarray:
    """The best matrix [inputs, outputs] with zeros where `mask` is False; the bias is always free.

    Exact, by a solution for each set of outputs with the same zeros; where that takes too long, by 20 steps of
    conjugate gradients, each of which lowers the loss.
    """
    import numpy as np

    bias = np.ones((len(problem.hessian) - problem.free, mask.shape[1]), bool)
    whole = np.concatenate([mask, bias])
    target = problem.hessian @ problem.best
    sets = list(_alike(whole))
    if sum(float(whole[:, each[0]].sum()) ** 3 / 3 for each in sets) > _MOST_OPERATIONS:
        return _by_gradients(problem, whole, target)
    found = np.zeros(problem.best.shape)
    for outputs in sets:
        rows = np.flatnonzero(whole[:, outputs[0]])
        if len(rows):
            solution = np.linalg.solve(problem.hessian[np.ix_(rows, rows)], target[np.ix_(rows, outputs)])
            found[np.ix_(rows, outputs)] = solution
    return found


def _alike(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Sets of columns that are the same, by their first one."""
    import numpy as np

    sets: dict[bytes, list[int]] = {}
    for at, column in enumerate(np.packbits(mask, axis=0).T):
        sets.setdefault(column.tobytes(), []).append(at)
    yield from map(np.array, sets.values())


def _by_gradients(problem: Problem, mask: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Conjugate gradients on what `mask` leaves free, column by column, all at once; H is scaled to a unit diagonal."""
    import numpy as np

    scale = 1 / np.sqrt(np.diagonal(problem.hessian))[:, None]
    hessian = (problem.hessian * scale * scale.T).astype(np.float32)
    found = np.where(mask, problem.best / scale, 0).astype(np.float32)
    rest = np.where(mask, target * scale - hessian @ found, 0).astype(np.float32)
    step: np.ndarray = rest
    power: np.ndarray = np.square(rest).sum(axis=0)
    for _ in range(_ITERATIONS):
        turned = hessian @ step
        curve = (step * turned).sum(axis=0)
        length = np.where(curve > 0, power / np.where(curve > 0, curve, 1), 0)
        found = found + length * step
        rest = rest - np.where(mask, length * turned, 0)
        after = np.square(rest).sum(axis=0)
        step = rest + np.where(power > 0, after / np.where(power > 0, power, 1), 0) * step
        power = after
    return (found * scale).astype(np.float64)
