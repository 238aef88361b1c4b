"""CPUs through LLVM: kernels to an object file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nncc.backends.library import Code, make_library
from nncc.codegen.emit_c import emit_source
from nncc.codegen.link import PUBLIC_FUNCTIONS, RPC_FUNCTIONS
from nncc.codegen.toolchains import find_toolchain
from nncc.errors import InternalError
from nncc.ir import Artifact, Lowered, Program
from nncc.kernels.dots import dots_of
from nncc.target import Target

__all__ = ["DUMPS", "EXPANDS_WEIGHTS", "build", "check", "code_of", "lower"]

DUMPS = ("asm", "ll", "tir")
"""Forms of code that can be written beside the library."""

EXPANDS_WEIGHTS = True
"""Whether constants may be packed: the runtime expands them when a context is made."""

_CODE = {"asm": "s", "ll": "ll"}
"""Forms of code that LLVM prints, and TVM's word for each."""


def check(target: Target) -> None:
    """Raise ToolError now, rather than after minutes of compilation, if no library for `target` can be linked here."""
    find_toolchain(target)


def lower(functions: dict[str, Any], target: Target, prefix: str) -> Lowered:
    """Scheduled TIR functions with C signatures; symbols are `prefix` + name."""
    from nncc.codegen.bare_pointers import chains_of, lower_kernels
    from nncc.scheduling import lookup_lanes

    chains, dots = chains_of(target.hardware), dots_of(target.hardware)
    lookups = lookup_lanes(target.hardware)
    return lower_kernels(functions, target.tvm_target(), prefix, chains=chains, dots=dots, lookups=lookups)


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
    return make_library(program, folder, stem, code_of(program, dump_code, rpc), emit)


def code_of(program: Program, dump_code: Sequence[str] = (), rpc: bool = False) -> Code:
    """The kernels' code, and the model's C around it; see `build`."""
    from nncc.compat import tvm

    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        kernels = Path(scratch) / "kernels.o"
        try:
            generated = tvm.get_global_func("target.build.llvm")(program.kernels, program.target.tvm_target())
            generated.write_to_file(str(kernels), "o")
        except (RuntimeError, ValueError) as error:
            raise InternalError(
                f"build: LLVM could not compile `{program.name}` for {program.target.name}: {error}"
            ) from error
        return Code(
            source=lambda build_hash, compiler: emit_source(program, build_hash, compiler, rpc),
            exports=(*PUBLIC_FUNCTIONS, *RPC_FUNCTIONS) if rpc else PUBLIC_FUNCTIONS,
            kernels=kernels.read_bytes(),
            dumps={
                form: program.kernels.script() if form == "tir" else generated.inspect_source(_CODE[form])
                for form in dump_code
            },
        )
