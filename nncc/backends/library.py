"""What all backends end with: the program's C, its weights and the backend's own code become one library."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nncc.codegen.emit_c import emit_header
from nncc.codegen.link import link
from nncc.codegen.publish import publish
from nncc.codegen.toolchains import find_toolchain
from nncc.ir import Artifact, Program, TensorSpec, symbol_prefix
from nncc.resources import runtime_folder
from nncc.version import VERSION

__all__ = ["Code", "make_library"]


@dataclass(frozen=True)
class Code:
    """What a backend has made of a program's kernels."""

    source: Callable[[str, str], str]
    """The program's C, by the hash of the build and the compiler's name."""
    exports: Sequence[str]
    """The functions that the library has for others."""
    kernels: bytes | None = None
    """An object file."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """Read-only data by the symbol that the C code knows it by."""
    dumps: Mapping[str, str] = field(default_factory=dict)
    """What is written beside the library, by suffix."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the description says besides."""


def make_library(program: Program, folder: Path, stem: str, code: Code, emit: Sequence[str]) -> Artifact:
    """Write the library (and what else `emit` asks for), ``<stem>.h``, ``<stem>.json`` and the dumps into `folder`.

    Raises ToolError and OutputError.
    """
    compiler = f"nncc {VERSION}"
    build_hash = _build_hash(program, code, compiler)
    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        work = Path(scratch)
        (work / "linked").mkdir()
        program.weights.tofile(work / "weights.bin")
        (work / "model.c").write_text(code.source(build_hash, compiler))
        if code.kernels is not None:
            (work / "kernels.o").write_bytes(code.kernels)
        for symbol, data in code.blobs.items():
            (work / f"{symbol}.bin").write_bytes(data)
        files = link(
            program.target,
            work / "linked",
            source=work / "model.c",
            kernels=work / "kernels.o" if code.kernels is not None else None,
            weights=work / "weights.bin",
            stem=stem,
            include=[runtime_folder()],
            static_prefix=symbol_prefix(program.name)[len("nncc_") : -1],
            emit=emit,
            toolchain=find_toolchain(program.target),
            exports=code.exports,
            blobs={symbol: work / f"{symbol}.bin" for symbol in code.blobs},
        )
        header = work / f"{stem}.h"
        header.write_text(emit_header(program, (runtime_folder() / "nncc.h").read_text()))
        facts = describe(program, build_hash, compiler) | dict(code.facts)
        description = work / f"{stem}.json"
        description.write_text(json.dumps(facts, indent=2) + "\n")
        extras = []
        for suffix, text in code.dumps.items():
            extras.append(work / f"{stem}.{suffix}")
            extras[-1].write_text(text)
        linked, *rest = files.values()
        published = publish([linked, header, description, *rest, *extras], folder)
    return Artifact(published[0], published[1], published[2], facts, tuple(published[3:]))


def _build_hash(program: Program, code: Code, compiler: str) -> str:
    digest = hashlib.sha256(code.kernels or b"")
    parts = [program.text().encode(), compiler.encode(), json.dumps(program.target.tvm, sort_keys=True).encode()]
    for part in (*parts, *code.blobs.values()):
        digest.update(hashlib.sha256(part).digest())
    digest.update(program.weights.data if program.weights.size else b"")
    return digest.hexdigest()[:32]


def describe(program: Program, build_hash: str, compiler: str) -> dict[str, Any]:
    """What the library says of itself, and what only the compiler knows: schedules."""

    numbers = {dim.name: number for number, dim in enumerate(program.dims)}

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "nbytes": s.nbytes}
            | ({"dims": [numbers.get(extent.dim or "", -1) for extent in s.extents]} if s.extents else {})
            for s in specs
        ]

    return {
        "name": program.name,
        "target": program.target.name,
        "build": build_hash,
        "compiler": compiler,
        "features": list(program.target.hardware.features),
        "inputs": tensors(program.inputs),
        "outputs": tensors(program.outputs),
        "weights_bytes": program.weights.nbytes,
        "packed_bytes": sum(each.nbytes for each in program.packed),
        "expanded_bytes": sum(each.elements * each.width for each in program.packed),
        "arena_bytes": program.arena_bytes,
        "scratch_bytes": program.scratch_bytes,
        "dims": [
            {"name": dim.name, "low": dim.low, "high": dim.high, "from_data": dim.from_data} for dim in program.dims
        ],
        "variants": [list(variant.sizes) or [0] * len(program.dims) for variant in program.variants],
        "calls": [call.kernel or "copy" for call in program.calls],
        "schedules": {name: _schedule(program, name) for name in sorted(program.schedules)},
    }


def _schedule(program: Program, kernel: str) -> str:
    """What a kernel's template says, and the record that made it say so."""
    source = program.sources.get(kernel, "default")
    return program.schedules[kernel] + ("" if source == "default" else f" ({source})")
