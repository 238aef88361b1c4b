"""Recipes as files: written, edited, read; and what is said of those that cannot be."""

from __future__ import annotations

import pytest

from nncc.errors import UsageError
from nncc.quant.recipe import Recipe
from nncc.quant.recipe_file import read_recipe, recipe_text, write_recipe

ODD = Recipe(
    observer="percentile",
    percentile=99.9,
    symmetric=True,
    per_channel=False,
    reconstruct="auto",
    nodes={'a "quoted"\\name\x7f': "weight_int8", "/path/ü": "float"},
    float_nodes=("Conv_1", "line\nbreak"),
    seed=7,
)


def test_what_is_written_is_read_back(tmp_path):
    for recipe in (Recipe(), ODD):
        write_recipe(tmp_path / "r.toml", recipe_text(recipe, ["made\nby a test"], {"Conv_1": "by itself\n31 dB"}))
        assert read_recipe(tmp_path / "r.toml") == recipe


def test_the_file_says_why_a_node_stays_float():
    text = recipe_text(ODD, ["head"], {"Conv_1": "by itself it leaves 12.5 dB"})
    assert text.startswith('# head\n\n[recipe]\nobserver = "percentile"\n')
    assert '    "Conv_1",  # by itself it leaves 12.5 dB\n' in text


def test_what_a_file_leaves_out_has_the_default(tmp_path):
    (tmp_path / "r.toml").write_text('[recipe]\nobserver = "mse"\n')
    assert read_recipe(tmp_path / "r.toml") == Recipe(observer="mse")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (None, "the recipe `r.toml` does not exist", "`nncc quantize` writes one beside its model"),
        ("[recipes]", "the recipe `r.toml` has an unknown key `recipes`", "a recipe is one table, `[recipe]`"),
        ("recipe = 1", "`recipe` in `r.toml` is no table", "a recipe is one table, `[recipe]`"),
        (
            "[recipe]\nobservr = 1",
            "the recipe `r.toml` has an unknown key `recipe.observr`",
            "did you mean `observer`?",
        ),
        (
            '[recipe]\nfloat_nodes = "Conv_1"',
            "`float_nodes` in `r.toml` is no list of names",
            'for example `float_nodes = ["Conv_1"]`',
        ),
        (
            "[recipe]\nnodes = []",
            "`nodes` in `r.toml` is no table",
            'for example `nodes = { "Conv_1" = "weight_int8" }`',
        ),
        (
            '[recipe]\nobserver = "minmx"',
            "`r.toml`: `observer` of a recipe is `minmx`, which nncc does not know",
            "did you mean `minmax`?",
        ),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, monkeypatch, text, message, hint):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_recipe("r.toml")
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_what_is_not_toml_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (b"[recipe", b"\xff\xfe"):
        (tmp_path / "r.toml").write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read_recipe("r.toml")
        assert caught.value.message.startswith("the recipe `r.toml` is not TOML: ")
        assert caught.value.hint == "`nncc quantize` writes one to start from"
