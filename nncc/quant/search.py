"""Mixed precision by a closed loop: layers are ranked by what they cost in accuracy, and the worst stay float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from nncc.errors import ModelError
from nncc.layer_time import LayerTimes
from nncc.quant.cost import float_cost, int8_cost
from nncc.quant.quantize import Layer, quantize
from nncc.quant.recipe import Observer, Recipe

if TYPE_CHECKING:
    import onnx_ir

    from nncc.quant.calibrate import Statistics
    from nncc.quant.request import Tell
    from nncc.target import Hardware

__all__ = ["Found", "Judge", "best_observer", "rank", "search"]

Score = Callable[["onnx_ir.Model"], float]
"""A figure for a quantized graph."""


@dataclass
class Judge:
    """The metric, asked once for each recipe, and for no more recipes than `most`."""

    graph: onnx_ir.Model
    """Prepared."""
    statistics: Statistics
    metric: Score
    floor: float
    """The least score that holds."""
    most: int
    progress: Tell = lambda done, total, what: None
    scores: dict[frozenset[str], float] = field(default_factory=dict)
    """By the nodes that stayed float."""

    @property
    def left(self) -> int:
        """How many more recipes may be asked for."""
        return self.most - len(self.scores)

    def score(self, recipe: Recipe, floats: Iterable[str]) -> float:
        """The score of the recipe with these nodes float too."""
        key = frozenset(floats)
        if key not in self.scores:
            self.progress(len(self.scores), self.most, f"with {len(key)} float")
            self.scores[key] = self.metric(quantize(self.graph, self.statistics, with_floats(recipe, key)))
        return self.scores[key]

    def holds(self, recipe: Recipe, floats: Iterable[str]) -> bool:
        """Whether that score is no less than the floor."""
        return self.score(recipe, floats) >= self.floor


@dataclass(frozen=True)
class Found:
    """What the loop came to."""

    floats: tuple[str, ...]
    """Layers that stay float beside those of the recipe, in the order of the model."""
    score: float
    evaluations: int


def with_floats(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe with these nodes float as well, in the order of their names."""
    return replace(recipe, float_nodes=tuple(sorted({*recipe.float_nodes, *names})))


def best_observer(graph: onnx_ir.Model, statistics: Statistics, recipe: Recipe, loss: Score, progress: Tell) -> Recipe:
    """The recipe with the observer that loses least; the earlier in `Observer` where several do."""
    known = get_args(Observer)
    losses = []
    for at, name in enumerate(known):
        progress(at, len(known), f"observer {name}")
        losses.append(loss(quantize(graph, statistics, replace(_plain(recipe), observer=name))))
    return replace(recipe, observer=known[losses.index(min(losses))])


def _plain(recipe: Recipe) -> Recipe:
    """The recipe without the steps that take long, for scores that are only compared with each other."""
    return replace(recipe, equalize=False, correct_bias=False, reconstruct=False)


def rank(
    graph: onnx_ir.Model,
    statistics: Statistics,
    recipe: Recipe,
    layers: Sequence[Layer],
    loss: Score,
    progress: Tell,
) -> dict[str, float]:
    """What each product loses by itself: `loss` (0 is none) of the graph in which it is the only one in int8.

    Layers that stay float by the recipe are left out. Steps that take long are, too: they would be done anew for each.
    """
    products = [layer.name for layer in layers if layer.macs and recipe.precision_of(layer.name) == "int8"]
    everything = {layer.name for layer in layers}
    lost: dict[str, float] = {}
    for at, name in enumerate(products):
        progress(at, len(products), name)
        lost[name] = loss(quantize(graph, statistics, with_floats(_plain(recipe), everything - {name})))
    return lost


def search(
    recipe: Recipe, layers: Sequence[Layer], lost: Mapping[str, float], hardware: Hardware, judge: Judge
) -> Found:
    """Fewest seconds in float for a score that holds.

    Layers become float in the order of what they lose for each second that int8 saves: first the least number of them
    that holds, by doubling and then bisection; then the costly ones among them become int8 again where the score still
    holds, as long as the judge may be asked. Raises ModelError where no layer may be in int8.
    """
    times = LayerTimes(hardware)
    saved = {layer.name: float_cost(layer, times) - int8_cost(layer, times) for layer in layers}
    order = sorted(lost, key=lambda name: (-lost[name] / max(saved[name], 1e-15), name))
    least, enough = -1, 0
    while enough < len(order) and not judge.holds(recipe, order[:enough]):
        least, enough = enough, min(len(order), max(1, 2 * enough))
    while enough - least > 1:
        middle = (least + enough) // 2
        if judge.holds(recipe, order[:middle]):
            enough = middle
        else:
            least = middle
    kept = order[:enough]
    needed = order[enough - 1 : enough] if enough < len(order) else []  # without it, the score did not hold
    for name in sorted(kept, key=lambda name: (-saved[name], name)):
        if judge.left <= 0:
            break
        fewer = [each for each in kept if each != name]
        if name not in needed and judge.holds(recipe, fewer):
            kept = fewer
    if len(kept) == len(order):
        best = max(judge.scores.values(), default=float("nan"))
        raise ModelError(
            f"no layer may be int8: the best score is {best:.6g}, at least {judge.floor:.6g} is asked for",
            "allow more with `--max-drop`, or give more calibration samples",
        )
    names = [layer.name for layer in layers if layer.name in set(kept)]
    return Found(tuple(names), judge.score(recipe, kept), len(judge.scores))
