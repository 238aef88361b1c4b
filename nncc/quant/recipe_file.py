"""``quantize.toml``: a recipe as a file, which `nncc quantize` writes, a person edits, and `nncc quantize` follows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nncc.errors import UsageError, did_you_mean
from nncc.quant.recipe import Recipe
from nncc.whole_files import write_whole

__all__ = ["read_recipe", "recipe_text", "write_recipe"]


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in the file's table ``[recipe]``; what it leaves out has Recipe's default.

    Raises UsageError that names the file and the key.
    """
    from nncc.toml import tomllib

    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the recipe `{path}` does not exist", "`nncc quantize` writes one beside its model") from None
    except OSError as error:
        raise UsageError(f"the recipe `{path}` cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"the recipe `{path}` is not TOML: {error}", "`nncc quantize` writes one to start from"
        ) from error
    if unknown := [key for key in found if key != "recipe"]:
        raise UsageError(f"the recipe `{path}` has an unknown key `{unknown[0]}`", "a recipe is one table, `[recipe]`")
    table = found.get("recipe", {})
    if not isinstance(table, dict):
        raise UsageError(f"`recipe` in `{path}` is no table", "a recipe is one table, `[recipe]`")
    known = [field.name for field in fields(Recipe)]
    if unknown := [key for key in table if key not in known]:
        hint = did_you_mean(unknown[0], known) or f"the keys are {', '.join(known)}"
        raise UsageError(f"the recipe `{path}` has an unknown key `recipe.{unknown[0]}`", hint)
    names = table.get("float_nodes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"`float_nodes` in `{path}` is no list of names", 'for example `float_nodes = ["Conv_1"]`')
    if not isinstance(table.get("nodes", {}), dict):
        raise UsageError(f"`nodes` in `{path}` is no table", 'for example `nodes = { "Conv_1" = "weight_int8" }`')
    try:
        return Recipe(**table | {"float_nodes": tuple(names)})
    except UsageError as error:
        raise UsageError(f"`{path}`: {error.message}", error.hint) from error
    except TypeError as error:
        raise UsageError(f"`{path}`: {error}", "`nncc quantize` writes a recipe to start from") from error


def recipe_text(recipe: Recipe, head: Sequence[str] = (), notes: Mapping[str, str] | None = None) -> str:
    """The file's text: `head` as comments, each field, and beside nodes that stay float what `notes` say of them."""
    lines = [*(f"# {_one_line(line)}".rstrip() for line in head), *([""] if head else []), "[recipe]"]
    notes = notes or {}
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name == "float_nodes":
            if not value:
                lines.append("float_nodes = []")
                continue
            lines.append("float_nodes = [")
            for name in value:
                note = f"  # {_one_line(notes[name])}" if name in notes else ""
                lines.append(f"    {_toml(name)},{note}")
            lines.append("]")
        elif isinstance(value, Mapping):
            inside = ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
            lines.append(f"{field.name} = {{ {inside} }}" if inside else f"{field.name} = {{}}")
        else:
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _toml(value: Any) -> str:
    """A string, a number or a boolean. JSON's strings are TOML's but for DEL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def write_recipe(path: Path, text: str) -> None:
    """Write the file, all of it or nothing. Raises OutputError."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"), hint="choose another place with `-o`")
