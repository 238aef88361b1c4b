"""The models that are measured: `models.toml`, and where their files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nncc.toml import tomllib

FILE = Path(__file__).resolve().parent / "models.toml"


def models() -> dict[str, dict[str, Any]]:
    """`models.toml`, in its order."""
    with FILE.open("rb") as file:
        return tomllib.load(file)


def chosen(names: Sequence[str] | None, zoo: Path) -> tuple[dict[str, Path], list[str]]:
    """The files of `names`, of all models without, and a line for each that this machine does not have.

    ValueError for a name that `models.toml` does not have.
    """
    known = models()
    wanted = list(known) if names is None else names
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no model `{name}` in benchmarks/{FILE.name}; it has {', '.join(known)}")
    files = {name: _file(known[name], zoo) for name in wanted}
    missing = [f"{name}: {path} is not there: left out" for name, path in files.items() if not path.is_file()]
    return {name: path for name, path in files.items() if path.is_file()}, missing


def _file(entry: dict[str, Any], zoo: Path) -> Path:
    if "light" in entry:
        import onnx

        return Path(onnx.__file__).parent / "backend/test/data/light" / entry["light"]
    return zoo / entry["file"]
