"""A recipe refuses what makes no sense, in words."""

from __future__ import annotations

import pytest

from nncc.errors import UsageError
from nncc.quant.recipe import Recipe


@pytest.mark.parametrize(
    ("choice", "message", "hint"),
    [
        ({"observer": "percentil"}, "`observer` of a recipe is `percentil`, which nncc does not know",
         "did you mean `percentile`?"),
        ({"activations": "uint16"}, "`activations` of a recipe is `uint16`, which nncc does not know",
         "did you mean `uint8`?"),
        ({"equalize": "maybe"}, "`equalize` of a recipe is `maybe`", "give true, false or auto"),
        ({"per_channel": "auto"}, "`per_channel` of a recipe is `auto`", "give true or false"),
        ({"percentile": 40}, "`percentile` of a recipe is `40`", "give a number above 50, 100 at most"),
        ({"group_size": 1}, "`group_size` of a recipe is `1`", "give a whole number, 2 or more"),
        ({"seed": -1}, "`seed` of a recipe is `-1`", "give a whole number, 0 or more"),
        ({"nodes": {"Conv_3": "int7"}}, "`nodes.Conv_3` of a recipe is `int7`, which nncc does not know",
         "did you mean `int8`?"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(choice, message, hint):
    with pytest.raises(UsageError) as caught:
        Recipe(**choice)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_float_node_wins_over_its_precision():
    recipe = Recipe(precision="dynamic", nodes={"a": "int8", "b": "weight_int4"}, float_nodes=("b",))
    assert [recipe.precision_of(name) for name in "abc"] == ["int8", "float", "dynamic"]
