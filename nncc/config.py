"""Every option of a compilation, documented where declared: one field = one keyword of `compile` = one flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Config", "Precision", "Tuning"]

Precision = Literal["float32", "tf32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Config:
    """What `nncc.compile` was asked for."""

    target: str = "native"
    """Target: a name that ``nncc targets`` lists, a TOML file, JSON, or ``name,mcpu=...,num-cores=...``."""
    output: Path | None = None
    """Folder for the artifact; by default ``<model>-<target>`` in the current folder."""
    name: str | None = None
    """Name of the model inside the library and of its files; by default the ONNX file's."""
    shape: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    """Shapes of inputs that have dynamic dimensions; one that has a name is open, and needs a range."""
    bind: Mapping[str, Any] = field(default_factory=dict)
    """Inputs that become constants, as ``axes=0,1`` or ``axes=@FILE.npy``: those that decide shapes have to."""
    range: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The lowest and the highest size of an open dimension: the library takes every size in between."""
    buckets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Sizes of open dimensions that get kernels of their own, as fast as those of a library for this size alone."""
    general: bool = True
    """Whether the library takes sizes that are no buckets: they have kernels for all sizes, which are slower."""
    threads: int | None = None
    """Threads that the kernels are scheduled for; by default the target's number of cores."""
    records: Sequence[str] = ()
    """Tuning records to take decisions from: a folder, or a place such as ``s3://bucket/nncc``; earlier ones win."""
    shipped_records: bool = True
    """Whether the records that come with nncc count too, behind all others."""
    lock: Path | None = None
    """A file with the decisions of every kernel: written if it does not exist, else followed to the byte."""
    schedules: Sequence[Path] = ()
    """Schedule templates of your own, Python files; they take precedence over nncc's."""
    emit: Sequence[str] = ("so",)
    """What to make: so (shared library), a (static archive), o (one object file)."""
    dump_code: Sequence[str] = ()
    """Code to write beside the library: asm, ll (LLVM), tir; of a GPU's kernels cu, ptx."""
    precision: Precision = "float32"
    """What products of float32 are computed in: float32, or on the tensor cores of GPUs tf32, of 10 bits of fraction,
    or float16 or bfloat16, in which activations between layers are stored too; sums are float32 always."""
    quantize: Path | None = None
    """Samples, by which the model becomes int8 first: see `nncc quantize --calibration`, which can do more."""
    recipe: Path | None = None
    """How to quantize: a file that `nncc quantize` wrote; by default all that can be int8 is."""
    compress_weights: str = "auto"
    """Whether constants are stored without their zeros: auto, where that saves a quarter of a constant, and a tenth of
    all, as in models pruned with `--structure unstructured`; or off. The library is smaller; but each running context
    expands them into memory of its own, while others stay in the file and are shared between processes."""
    until: str | None = None
    """Stop after this stage; nothing is built."""
    save_stages: Path | None = None
    """Folder to write every stage's value to, as text or ONNX."""
    verify: bool = True
    """Check the library against ONNX Runtime, here or in an emulator."""


@dataclass(frozen=True)
class Tuning:
    """What `nncc tune` was asked for, beside a compilation's options."""

    into: Path = Path("records")
    """Folder that the records are written to, and that earlier ones are read from."""
    seconds: float | None = None
    """How long to tune; 10 minutes where there is no limit of trials either."""
    trials: int | None = None
    """How many candidates to measure, at most."""
    runner: str = "local"
    """Where candidates run: local (this machine or its GPU), ``rpc://HOST:PORT/KEY`` (boards and machines with GPUs,
    by TVM's RPC), qemu (the flow, but no times), or sim (cycles of a simulated accelerator; what local is for targets
    with one)."""
    seed: int = 0
    """Of the search and of the inputs: the same seed tries the same things, as far as times agree."""
    by: str = ""
    """Who tunes, as the records will say."""
    tasks: str = ""
    """Tune only tasks with this in their text or at the start of their hash; `list` shows all tasks and tunes none."""
    graph: bool = True
    """Whether to try choices that change the graph: blocks of channels, Winograd or direct."""
