"""The closed loop: which layers it ranks worst, how few it leaves float, and how rarely it asks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from quant_models import images, lopsided

from nncc.errors import ModelError
from nncc.frontend.read_graph import read_graph
from nncc.layer_time import LayerTimes, Product
from nncc.quant.closed_loop import Gate, closed_loop, gather
from nncc.quant.cost import gain, int8_share
from nncc.quant.metric import MaxDrop
from nncc.quant.quantize import Layer
from nncc.quant.recipe import Recipe
from nncc.quant.samples import input_specs, read_samples
from nncc.quant.search import Judge, rank, search
from nncc.target import Hardware

HARDWARE = Hardware(int8_dot="sdot")


@dataclass
class Pretended(Judge):
    """A judge that builds nothing: the score is 1 less what each int8 layer costs."""

    costs: tuple[tuple[str, float], ...] = ()

    def score(self, recipe, floats):
        key = frozenset(floats)
        self.scores.setdefault(key, 1.0 - sum(cost for name, cost in self.costs if name not in key))
        return self.scores[key]


def layer(name, macs):
    """A matrix product with 100x100 weights of so many multiplications."""
    rows = macs // 10_000
    return Layer(name, "MatMul", macs, 10_000, Product("matmul", rows, (), 100, 100, 100 * rows, 100 * rows))


def found(costs, macs, floor, most=30):
    layers = [layer(name, macs.get(name, 1_000_000)) for name in costs]
    judge = Pretended(None, None, None, floor, most, costs=tuple(costs.items()))
    return search(Recipe(), layers, costs, HARDWARE, judge), judge


COSTS = {f"l{n}": 0.001 for n in range(64)} | {"bad": 0.3, "worse": 0.5}


def test_the_fewest_layers_stay_float_and_the_metric_is_asked_rarely():
    result, judge = found(COSTS, {}, floor=0.9)
    assert result.floats == ("bad", "worse")
    assert result.score == pytest.approx(1 - 64 * 0.001)
    assert len(judge.scores) == result.evaluations <= 5
    result, judge = found({f"l{n}": 0.01 for n in range(100)}, {}, floor=0.635)
    assert len(result.floats) == 64 and len(judge.scores) <= 30


def test_all_int8_is_enough_where_it_holds():
    result, judge = found(COSTS, {}, floor=0.0)
    assert result.floats == () and len(judge.scores) == 1


def test_a_layer_that_costs_much_time_is_given_back_where_the_score_holds_without_it():
    costs = {"cheap": 0.2, "dear": 0.1, "small": 0.09}
    # By loss for each second the order is cheap, small, dear; two are not enough, and with all three `cheap` is needed.
    result, _ = found(costs, {"dear": 4_000_000}, floor=0.85)
    assert result.floats == ("cheap", "small")
    order, _ = found({"a": 0.05, "b": 0.04, "c": 0.5}, {"a": 100_000, "b": 90_000, "c": 50_000_000}, floor=0.9)
    assert order.floats == ("c",)


def test_no_more_is_asked_than_is_allowed():
    _, judge = found({f"l{n}": 0.01 for n in range(100)}, {}, floor=0.6, most=12)
    # Doubling and bisection are 2 log2(100) at most; nothing is given back any more.
    assert len(judge.scores) <= 14


def test_where_every_layer_would_stay_float_there_is_an_error():
    with pytest.raises(ModelError) as caught:
        found({"a": 0.5, "b": 0.5}, {}, floor=0.9)
    assert caught.value.message == "no layer may be int8: the best score is 0.5, at least 0.9 is asked for"
    assert caught.value.hint == ("allow more with `--max-drop`, or give more calibration samples")


def test_the_gain_is_that_of_the_processor():
    layers = [layer("a", 3_000_000), layer("b", 1_000_000)]
    whole = gain(layers, (), LayerTimes(HARDWARE))
    assert 3.0 < whole < 4.0, "four products an instruction, less what is widened and converted"
    assert gain(layers, ("a",), LayerTimes(HARDWARE)) == pytest.approx(4 / (3 + 1 / whole))
    assert 1.0 < gain(layers, (), LayerTimes(Hardware(int8_dot="smull", lane_operand=True))) < 2.0
    assert gain(layers, (), LayerTimes(Hardware())) == 1.0, "without instructions for it, layers are computed in float"
    assert gain([], (), LayerTimes(HARDWARE)) == 1.0
    assert int8_share(layers, ("a",)) == 0.25


# ---- a model that has one bad layer -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lopsided")
    graph = read_graph(lopsided(folder / "l.onnx"))
    return gather(graph, read_samples(images(folder / "c.npz"), input_specs(graph)), Recipe())


def test_the_layers_around_a_lopsided_tensor_are_ranked_worst(material):
    lost = rank(material.prepared, material.statistics, Recipe(), material.layers, material.noise, lambda *_: None)
    assert min(lost["first"], lost["second"]) > 0.5 > 1e-3 > lost["last"]


def test_the_loop_leaves_these_float_and_no_other(material):
    gate = Gate("sqnr", MaxDrop(0.001))
    outcome = closed_loop(material, Recipe(), gate, HARDWARE)
    assert outcome.recipe.float_nodes == ("first", "second")
    assert outcome.agreement["sqnr"] >= outcome.floor == pytest.approx(0.999)
    assert outcome.reasons["second"].startswith("by itself it leaves ")
    plain = closed_loop(material, Recipe(), Gate(), None)
    assert plain.recipe == Recipe() and plain.agreement["sqnr"] < 0.99


def test_the_observer_is_chosen_by_the_error_of_the_outputs(material):
    power = {}
    for name in ("minmax", "moving_average", "percentile", "entropy", "mse"):
        plain = Recipe(observer=name, correct_bias=False, reconstruct=False, equalize=False)
        power[name] = closed_loop(material, plain, Gate(), None).agreement["sqnr"]
    chosen = closed_loop(material, Recipe(), Gate(), None, choose_observer=True)
    assert power[chosen.recipe.observer] == max(power.values())
