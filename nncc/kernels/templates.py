"""Schedule templates, from their files: those of ``schedules/`` and the user's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any

from nncc.errors import UsageError
from nncc.resources import schedules_folder

__all__ = ["Template", "load_templates"]

_MODULE = "nncc_schedule_"


@dataclass(frozen=True)
class Template:
    """A compute definition and its schedule, from one file; `module` has what else passes ask it for: ``pack`` ..."""

    name: str
    compute: Callable[..., Any]
    schedule: Callable[..., tuple[list[Any], str]]
    path: Path
    module: ModuleType


def load_templates(extra: Iterable[Path] = ()) -> dict[str, Template]:
    """The templates of ``schedules/`` and, taking precedence, those in the files `extra`."""
    templates: dict[str, Template] = {}
    for path in [*sorted(schedules_folder().glob("*.py")), *map(Path, extra)]:
        spec = importlib.util.spec_from_file_location(f"{_MODULE}{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise UsageError(f"schedule template `{path}` is not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        required = {"NAME", "compute", "schedule"}
        replaced = templates.get(getattr(module, "NAME", ""))
        if replaced is not None:  # passes ask the template of this name for what the old one has
            required |= {
                word
                for word, value in vars(replaced.module).items()
                if not word.startswith("_") and getattr(value, "__module__", None) == replaced.module.__name__
            }
        missing = sorted(word for word in required if not hasattr(module, word))
        if missing:
            raise UsageError(
                f"schedule template `{path}` does not define {', '.join(missing)}",
                "a template has `NAME`, `compute(...)` and `schedule(sch, block, hardware, choose)`, one that replaces "
                "another all that the other has; see CONTRIBUTING.md",
            )
        if replaced is not None:
            _check_parameters(path, replaced.module, module)
        templates[module.NAME] = Template(module.NAME, module.compute, module.schedule, path, module)
    return templates


def _check_parameters(path: Path, old: ModuleType, new: ModuleType) -> None:
    """Passes call the functions of a template that replaces another as they call the other's: the first parameters by
    their place, those with a default and behind a star by their name."""
    for word, function in vars(old).items():
        given = getattr(new, word, None)
        if word.startswith("_") or not isfunction(function) or not isfunction(given):
            continue
        taken = signature(given).parameters
        if any(p.kind == p.VAR_KEYWORD for p in taken.values()):
            continue
        asked = [p for p in signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]
        by_name = [p.name for p in asked if p.kind == p.KEYWORD_ONLY or p.default is not p.empty]
        if missing := [name for name in by_name if name not in taken]:
            raise UsageError(
                f"`{word}` in schedule template `{path}` does not take {', '.join(missing)}",
                f"it is called as that of nncc's own template `{old.NAME}` is: give it the same parameters",
            )
