"""`nncc.compile`: the pipeline as one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nncc.config import Config
from nncc.instruments import wanted
from nncc.ir import Artifact
from nncc.pipeline import Instrument, plan, run

__all__ = ["compile"]


def compile(
    path: str | Path,
    target: str = "native",
    output: str | Path | None = None,
    shape: Mapping[str, Sequence[int | str]] | None = None,
    threads: int | None = None,
    records: Sequence[str | Path] = (),
    *,
    instruments: Iterable[Instrument] = (),
    **options: Any,
) -> Artifact:
    """Compile an ONNX file to a self-contained shared library.

    Parameters
    ----------
    path
        The ``.onnx`` file.
    target
        A name that ``nncc targets`` lists, the path of a TOML file, JSON, or ``name,mcpu=...``.
    output
        Folder for the library, header and description; by default ``<name>-<target>``.
    shape
        Shapes of the inputs that have dynamic dimensions: ``{"input": (1, 3, 224, 224)}``. One that has a name stays
        open, and needs a range among the options: ``range={"N": (1, 16)}``.
    threads
        Threads that the kernels are scheduled for; by default the target's number of cores.
    records
        Folders, or places such as ``s3://bucket/nncc``, with tuning records to take decisions from.
    instruments
        Watchers of the stages beside those that the options ask for; see `nncc.pipeline.Instrument`.
    options
        The other fields of `nncc.config.Config`.

    Returns
    -------
    Artifact
        ``artifact.library`` is the path of the shared library.

    Raises
    ------
    NnccError
        ModelError, TargetError, ToolError or OutputError, each with a hint; InternalError for a defect of nncc.
    """
    config = Config(
        target=target,
        output=None if output is None else Path(output),
        shape=dict(shape or {}),
        threads=threads,
        records=tuple(map(str, records)),
        **options,
    )
    return run(plan(path, config), [*wanted(config), *instruments])
