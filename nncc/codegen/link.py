"""From a generated C file, a kernel object and a weights blob to a library, by a C compiler."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from nncc.codegen.objectfile import conceal, rename
from nncc.codegen.publish import workshop
from nncc.codegen.toolchains import Toolchain, call_tool, find_toolchain
from nncc.errors import UsageError
from nncc.target import Target

__all__ = [
    "ACCELERATOR_FUNCTIONS",
    "CUDA_FUNCTIONS",
    "PUBLIC_FUNCTIONS",
    "RPC_FUNCTIONS",
    "RPC_GPU_FUNCTIONS",
    "link",
    "static_names",
]

PUBLIC_FUNCTIONS = (
    "nncc_describe", "nncc_create", "nncc_resize", "nncc_input_shape", "nncc_output_shape", "nncc_run", "nncc_profile",
    "nncc_destroy", "nncc_last_error",
)  # fmt: skip
"""All that a shared library exports."""

CUDA_FUNCTIONS = ("nncc_run_on",)
"""What a library for CUDA exports besides."""

ACCELERATOR_FUNCTIONS = ("nncc_create_on", "nncc_device_wanted", "nncc_device", "nncc_counters", "nncc_cycles")
"""What a library for an accelerator exports besides."""

RPC_FUNCTIONS = ("__tvm_ffi_nncc_facts", "__tvm_ffi_nncc_measure", "__tvm_ffi_nncc_run")
"""What runtime/rpc_shim.c adds, for TVM's RPC server to call."""

RPC_GPU_FUNCTIONS = (*RPC_FUNCTIONS, "__tvm_ffi_nncc_gpu")
"""What it adds to a library for GPUs."""

_RUNTIME_FUNCTIONS = {
    "NNCC_SYM_PARALLEL_LAUNCH": "TVMBackendParallelLaunch",
    "NNCC_SYM_PARALLEL_BARRIER": "TVMBackendParallelBarrier",
    "NNCC_SYM_ALLOC_WORKSPACE": "TVMBackendAllocWorkspace",
    "NNCC_SYM_FREE_WORKSPACE": "TVMBackendFreeWorkspace",
    "NNCC_SYM_RAISE": "TVMFFIErrorSetRaisedFromCStr",
    "NNCC_SYM_RAISE_PARTS": "TVMFFIErrorSetRaisedFromCStrParts",
    "NNCC_SYM_REGISTER_SYMBOL": "TVMFFIEnvModRegisterSystemLibSymbol",
}
"""What kernels call, and the macro of runtime/internal.h that gives the runtime's function another name."""

_COMPILE = ("-c", "-O2", "-g0", "-std=gnu11", "-fvisibility=hidden", "-fno-ident")
_SHARED = {
    "elf": (
        *("-shared", "-Wl,--version-script=exports.map", "-Wl,--as-needed", "-Wl,--no-undefined", "-Wl,--gc-sections"),
        *("-Wl,-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,relro"),
    ),
    "coff": ("-shared", "exports.def", "-Wl,-s", "-Wl,--gc-sections"),
    "macho": ("-dynamiclib", "-Wl,-dead_strip", "-Wl,-s"),
}
_SUFFIX = {"elf": ".so", "coff": ".dll", "macho": ".dylib"}
_BLOB = {
    "elf": """\
    .section .rodata.nncc,"a",%progbits
    .globl {symbol}
    .hidden {symbol}
    .type {symbol}, %object
    .balign 4096
{symbol}:
    .incbin "{file}"
    .size {symbol}, . - {symbol}
    .section .note.GNU-stack,"",%progbits
""",
    "coff": """\
    .section .rdata,"dr"
    .globl {symbol}
    .balign 4096
{symbol}:
    .incbin "{file}"
""",
    "macho": """\
    .section __TEXT,__const
    .globl _{symbol}
    .private_extern _{symbol}
    .p2align 12
_{symbol}:
    .incbin "{file}"
""",
}


def link(
    target: Target,
    folder: Path,
    *,
    source: Path,
    kernels: Path | None,
    weights: Path,
    stem: str,
    include: Sequence[Path],
    static_prefix: str,
    emit: Sequence[str],
    toolchain: Toolchain | None = None,
    exports: Sequence[str] = PUBLIC_FUNCTIONS,
    blobs: Mapping[str, Path] | None = None,
) -> dict[str, Path]:
    """Compile `source`, which includes the runtime, and link it with the kernel object and the weights.

    `emit` says what to make in `folder`: ``so`` the shared library `stem`.so (.dll, .dylib), which exports
    `exports` and nothing else; ``a`` the archive lib`stem`.a and ``o`` the object `stem`.o (ELF only), whose
    functions are ``nncc_<static_prefix>_create`` and so on and in which nothing clashes with another model's.
    `blobs` are files whose bytes the library has besides the weights: ``{"nncc_ptx": path}`` is the symbol that C
    finds by the macro ``NNCC_PTX``, which in an archive carries the prefix.
    The same inputs give the same bytes wherever they lie. A failure leaves `folder` as it was.

    Raises ToolError if there is no compiler or it fails, OutputError if `folder` cannot be written.
    """
    for kind in emit:
        if kind not in ("so", "a", "o"):
            raise UsageError(f"unknown kind of output `{kind}`", "known: so, a, o")
    if "o" in emit and target.link.format != "elf":
        raise UsageError(f"target `{target.name}` has no relocatable output", "use `a`, an archive")
    if not re.fullmatch(r"[A-Za-z0-9_]+", static_prefix):
        raise UsageError(f"`{static_prefix}` is not a prefix for C names", "use letters, digits and underscores")
    toolchain = toolchain or find_toolchain(target)
    with workshop(folder) as work:
        shutil.copyfile(source, work / "model.c")
        digests = {}
        for name, path in {"nncc_weights": weights, **(blobs or {})}.items():
            _borrow(path, work / f"{name.removeprefix('nncc_')}.bin")
            digests[name] = _sha256(path)
        made: dict[str, tuple[Path, str]] = {}
        if "so" in emit:
            parts = _objects(target, toolchain, work, kernels, include, digests, prefix=None)
            name = stem + _SUFFIX[target.link.format]
            _link_shared(target, toolchain, work, parts, name, exports)
            made["so"] = (work / name, name)
        if "a" in emit or "o" in emit:
            parts = _objects(target, toolchain, work, kernels, include, digests, prefix=static_prefix)
            if "o" in emit:
                call_tool([*toolchain.command, "-r", *parts, "-o", "whole.o"], work)
                made["o"] = (work / "whole.o", f"{stem}.o")
            if "a" in emit:
                call_tool(
                    [*toolchain.archiver, "rcs" if platform.system() == "Darwin" else "rcsD", "all.a", *parts], work
                )
                made["a"] = (work / "all.a", f"lib{stem}.a")
        for path, name in made.values():
            os.replace(path, folder / name)
    return {kind: folder / made[kind][1] for kind in emit}


def _objects(
    target: Target,
    toolchain: Toolchain,
    work: Path,
    kernels: Path | None,
    include: Sequence[Path],
    digests: Mapping[str, str],
    prefix: str | None,
) -> list[str]:
    """Names of the objects made in `work`; with a `prefix`, every name that others may see carries it."""
    tag = f"{prefix}_" if prefix is not None else ""
    names = static_names(prefix) if prefix is not None else {}
    parts = [f"{tag}model.o"]
    quoted = target.name.replace("\\", "\\\\").replace('"', '\\"')
    defines = [f'-DNNCC_TARGET="{quoted}"']
    for name, digest in digests.items():
        short = name.removeprefix("nncc_")
        symbol = f"nncc_{tag}{short}"
        # The digest is there for compilers that cache by the text they compile: they do not look into .incbin.
        text = f"// {digest}\n" if target.link.format == "macho" else f"/* {digest} */\n"
        text += _BLOB[target.link.format].format(symbol=symbol, file=f"{short}.bin")
        (work / f"{tag}{short}.s").write_text(text)
        defines.append(f"-D{name.upper()}={symbol}")
        parts.append(f"{tag}{short}.o")
    if prefix is not None:
        defines.append(f"-DNNCC_STATIC_PREFIX={prefix}")
        defines += [f"-D{macro}={names[name]}" for macro, name in _RUNTIME_FUNCTIONS.items()]
    position = [] if target.link.format == "coff" else ["-fPIC"]
    paths = [str(path.resolve()) for path in include]
    folders = [flag for path in paths for flag in ("-I", path)]
    maps = [f"-ffile-prefix-map={path}=." for path in (*paths, str(work))]
    base = [*toolchain.command, *_COMPILE, *position, *target.link.cflags]
    if target.link.format == "coff" and toolchain.name == "zig":
        base += ["-Xclang", "-object-file-name=model.o"]  # else it writes the path of its cache into the object
    call_tool([*base, *defines, *folders, *maps, "model.c", "-o", parts[0]], work)
    if target.link.format == "coff":
        # What it exports, exports.def says; a program with an archive inside exports nothing.
        (work / parts[0]).write_bytes(conceal((work / parts[0]).read_bytes()))
    for part in parts[1:]:
        assembly = str(Path(part).with_suffix(".s"))
        call_tool([*toolchain.command, "-c", *target.link.cflags, assembly, "-o", part], work)
    if kernels is not None:
        data = conceal(kernels.read_bytes())
        (work / f"{tag}kernels.o").write_bytes(rename(data, names) if names else data)
        parts.append(f"{tag}kernels.o")
    return parts


def _link_shared(
    target: Target, toolchain: Toolchain, work: Path, parts: list[str], name: str, exports: Sequence[str]
) -> None:
    form = target.link.format
    flags = list(_SHARED[form])
    if form == "elf":
        public = " ".join(f"{f};" for f in exports)
        (work / "exports.map").write_text(f"{{ global: {public} local: *; }};\n")
        if toolchain.name != "zig":
            flags.append("-static-libgcc")
    elif form == "coff":
        (work / "exports.def").write_text("EXPORTS\n" + "".join(f"  {f}\n" for f in exports))
        if toolchain.name != "zig":  # which writes no time of its own accord
            flags.append("-Wl,--no-insert-timestamp")
    else:
        (work / "exports.txt").write_text("".join(f"_{f}\n" for f in exports))
        flags += [f"-Wl,-install_name,@rpath/{name}", "-Wl,-exported_symbols_list,exports.txt"]
    # Libraries for CUDA and for accelerators open the driver: before glibc 2.34, dlopen is in a library of its own.
    libraries = ["-lm", "-lpthread", *(["-ldl"] if form == "elf" else [])]
    call_tool([*toolchain.command, *flags, *parts, "-o", name, *libraries], work)


def static_names(prefix: str) -> dict[str, str]:
    """For each runtime function that kernels call, a name of the same length that no other prefix has."""
    return {
        name: ("nncc_" + hashlib.sha256(f"{prefix}/{name}".encode()).hexdigest())[: len(name)]
        for name in _RUNTIME_FUNCTIONS.values()
    }


def _borrow(path: Path, to: Path) -> None:
    """Make the bytes of `path`, perhaps hundreds of megabytes, readable at `to`."""
    try:
        to.symlink_to(path.resolve(strict=True))
    except OSError:  # a file system without links
        shutil.copyfile(path, to)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
