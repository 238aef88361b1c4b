"""CPUs through LLVM: kernels to an object file, the program to C, both and the weights into one library."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nncc.codegen.emit_c import emit_header, emit_source
from nncc.codegen.flatten import symbol_prefix
from nncc.codegen.link import PUBLIC_FUNCTIONS, RPC_FUNCTIONS, find_toolchain, link
from nncc.codegen.publish import publish
from nncc.errors import InternalError
from nncc.ir import Artifact, Program, TensorSpec
from nncc.resources import runtime_folder
from nncc.target import Target
from nncc.version import VERSION

__all__ = ["build", "check"]

EXPANDS_WEIGHTS = True
"""Whether constants may be packed: the runtime expands them when a context is made."""
_CODE = {"asm": "s", "ll": "ll"}
"""Forms of code that LLVM prints, and TVM's word for each."""


def check(target: Target) -> None:
    """Raise ToolError now, rather than after minutes of compilation, if no library for `target` can be linked here."""
    find_toolchain(target)


def build(
    program: Program,
    folder: Path,
    stem: str,
    emit: Sequence[str] = ("so",),
    dump_code: Sequence[str] = (),
    rpc: bool = False,
) -> Artifact:
    """Write the library (and what else `emit` asks for), ``<stem>.h`` and ``<stem>.json`` into `folder`.

    `dump_code` writes ``<stem>.s``, ``.ll`` or ``.tir`` beside them. With `rpc`, for which `emit` is ``so`` alone, the
    library has what TVM's RPC server needs to measure it (runtime/rpc_shim.c). Raises ToolError and OutputError.
    """
    from nncc.compat import tvm

    compiler = f"nncc {VERSION}"
    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        work = Path(scratch)
        target = program.target.tvm_target()
        try:
            generated = tvm.get_global_func("target.build.llvm")(program.kernels, target)
            kernels = work / "kernels.o"
            generated.write_to_file(str(kernels), "o")
        except (RuntimeError, ValueError) as error:
            raise InternalError(
                f"build: LLVM could not compile `{program.name}` for {program.target.name}: {error}"
            ) from error
        weights = work / "weights.bin"
        program.weights.tofile(weights)
        digest = hashlib.sha256(kernels.read_bytes())
        for part in (
            program.text().encode(),
            compiler.encode(),
            json.dumps(program.target.tvm, sort_keys=True).encode(),
        ):
            digest.update(hashlib.sha256(part).digest())
        digest.update(program.weights.data if program.weights.size else b"")
        build_hash = digest.hexdigest()[:32]
        source = work / "model.c"
        (work / "linked").mkdir()
        source.write_text(emit_source(program, build_hash, compiler, rpc))
        toolchain = find_toolchain(program.target)
        header = work / f"{stem}.h"
        header.write_text(emit_header(program, (runtime_folder() / "nncc.h").read_text()))
        extras = []
        for form in dump_code:
            dump = work / f"{stem}.{form}"
            text = program.kernels.script() if form == "tir" else generated.inspect_source(_CODE[form])
            dump.write_text(text)
            extras.append(dump)
        files = link(
            program.target,
            work / "linked",
            source=source,
            kernels=kernels,
            weights=weights,
            stem=stem,
            include=[runtime_folder()],
            static_prefix=symbol_prefix(program.name)[len("nncc_") : -1],
            emit=emit,
            toolchain=toolchain,
            exports=(*PUBLIC_FUNCTIONS, *RPC_FUNCTIONS) if rpc else PUBLIC_FUNCTIONS,
        )
        facts = describe(program, build_hash, compiler)
        description = work / f"{stem}.json"
        description.write_text(json.dumps(facts, indent=2) + "\n")
        linked, *rest = files.values()
        published = publish([linked, header, description, *rest, *extras], folder)
    return Artifact(published[0], published[1], published[2], facts, tuple(published[3:]))


def describe(program: Program, build_hash: str, compiler: str) -> dict[str, Any]:
    """What the library says of itself, and what only the compiler knows: schedules."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "nbytes": s.nbytes} for s in specs]

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
        "calls": [call.kernel or "copy" for call in program.calls],
        "schedules": {name: _schedule(program, name) for name in sorted(program.schedules)},
    }


def _schedule(program: Program, kernel: str) -> str:
    """What a kernel's template says, and the record that made it say so."""
    source = program.sources.get(kernel, "default")
    return program.schedules[kernel] + ("" if source == "default" else f" ({source})")
