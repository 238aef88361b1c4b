"""From a generated C file, a kernel object and a weights blob to a library: finds a C compiler, calls it, checks."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nncc.codegen.objectfile import conceal, rename
from nncc.codegen.publish import workshop
from nncc.errors import OutputError, TargetError, ToolError, UsageError
from nncc.host import driver_problem
from nncc.resources import runtime_folder
from nncc.target import Target, host

__all__ = [
    "ACCELERATOR_FUNCTIONS",
    "CUDA_FUNCTIONS",
    "PUBLIC_FUNCTIONS",
    "RPC_FUNCTIONS",
    "RPC_GPU_FUNCTIONS",
    "Toolchain",
    "build_runner",
    "cache_folder",
    "call_tool",
    "emulator",
    "find_toolchain",
    "link",
    "static_names",
    "toolchains",
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


@dataclass(frozen=True)
class Toolchain:
    """A C compiler that makes code for one target."""

    name: str
    """``cc``, ``zig`` or the name of a cross compiler."""
    command: tuple[str, ...]
    """How a call begins, the choice of target included."""
    archiver: tuple[str, ...] = ("ar",)
    """How a call of its ``ar`` begins."""


def toolchains(target: Target) -> list[Toolchain]:
    """Every toolchain on this machine that can make code for `target`, the preferred one first.

    Raises ToolError if ``$CC`` is set and there is no such program.
    """
    found = []
    if (platform.system(), platform.machine()) == (target.link.system, target.link.machine):
        command = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(command[0]):
            found.append(Toolchain("cc", tuple(command)))
        elif os.environ.get("CC"):
            raise ToolError(f"there is no compiler `{os.environ['CC']}`, which $CC names", "unset CC, or correct it")
    if target.link.zig and importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang")
        found.append(Toolchain("zig", (*zig, "cc", "-target", target.link.zig), (*zig, "ar")))
    if target.link.gcc and shutil.which(target.link.gcc):
        found.append(Toolchain(target.link.gcc, (target.link.gcc,), (re.sub(r"gcc$", "ar", target.link.gcc),)))
    return found


def find_toolchain(target: Target) -> Toolchain:
    """The machine's own ``cc`` (or ``$CC``) where that makes code for `target`; else zig; else a cross gcc.

    Raises ToolError that says what was looked for and how to get it.
    """
    found = toolchains(target)
    if found:
        return found[0]
    looked, ways = [], []
    if (platform.system(), platform.machine()) == (target.link.system, target.link.machine):
        looked.append("`cc`")
        ways.append("install gcc or clang")
    if target.link.zig:
        looked.append("zig")
        ways.append("`pip install ziglang`")
    if target.link.gcc:
        looked.append(f"`{target.link.gcc}`")
        ways.append(f"install {target.link.gcc} (Debian: `apt install {_debian_compiler(target.link.gcc)}`)")
    if not looked:
        raise ToolError(f"target `{target.name}` names no C compiler", "its [link] needs `zig` or `gcc`")
    raise ToolError(f"no C compiler for target `{target.name}`: looked for {', '.join(looked)}", ", or ".join(ways))


def _debian_compiler(gcc: str) -> str:
    """``x86_64-linux-gnu-gcc`` is in the package gcc-x86-64-linux-gnu; mingw has names of its own."""
    triple = gcc.removesuffix("-gcc").replace("_", "-")
    return "gcc-mingw-w64" if "mingw" in triple else f"gcc-{triple}"


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


def build_runner(target: Target, folder: Path | None = None, *, toolchain: Toolchain | None = None) -> Path:
    """The program that loads, runs and times any library, compiled for `target`; made once, kept in `folder`.

    `folder` is by default the user's cache. Raises ToolError and OutputError as :func:`link`.
    """
    folder = folder or cache_folder()
    toolchain = toolchain or find_toolchain(target)
    runtime = runtime_folder()
    sources = ("bench_main.c", "clock.h", "nncc.h")
    text = b"".join((runtime / name).read_bytes() for name in sources)
    key = hashlib.sha256(text + repr((target.link, toolchain)).encode()).hexdigest()[:16]
    runner = folder / f"runner-{key}{'.exe' if target.link.format == 'coff' else ''}"
    if runner.is_file():
        return runner
    with workshop(folder) as work:
        for name in sources:
            shutil.copyfile(runtime / name, work / name)
        libraries = {"elf": ["-ldl", "-lm", "-lpthread"], "coff": [], "macho": []}[target.link.format]
        flags = ["-O2", "-std=gnu11", *target.link.cflags]
        call_tool([*toolchain.command, *flags, "bench_main.c", "-o", runner.name, *libraries], work)
        os.replace(work / runner.name, runner)
    return runner


def cache_folder() -> Path:
    """Where what can be made again is kept: ``$NNCC_CACHE_DIR``, else ``nncc`` in the user's cache."""
    if own := os.environ.get("NNCC_CACHE_DIR"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nncc"


def emulator(target: Target) -> list[str]:
    """The words to put before a program of `target` to run it here: none on a machine of its own kind.

    Raises TargetError if this machine cannot run it.
    """
    missing = host().missing(target)
    if missing == [] and target.hardware.multiprocessors and (reason := driver_problem()):
        raise TargetError(f"this machine cannot run target `{target.name}`: {reason}", "run it on one with such a GPU")
    if missing == []:
        return []
    if missing is not None:
        words = ", ".join(missing)
        raise TargetError(f"this machine cannot run target `{target.name}`: its processor lacks {words}")
    name, sysroot = target.link.emulator, target.link.sysroot
    hint = f"`apt install {target.link.packages}`, or run it on a machine of its own" if target.link.packages else None
    if not name:
        raise TargetError(f"this machine cannot run target `{target.name}`, and it names no emulator", hint)
    if not shutil.which(name):
        raise TargetError(f"this machine cannot run target `{target.name}`: there is no `{name}`", hint)
    if not sysroot or os.environ.get("QEMU_LD_PREFIX"):
        return [name]
    if not Path(sysroot).is_dir():
        raise TargetError(f"this machine cannot run target `{target.name}`: there is no `{sysroot}`", hint)
    return [name, "-L", sysroot]


# ---- calling tools ----------------------------------------------------------------------------------------------


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


def call_tool(command: Sequence[str], work: Path) -> None:
    """Run a tool in `work`.

    Raises ToolError with the command and what it said: its stderr whole, or the last 60 lines of it.
    """
    # zig keeps every object it makes, the weights too, in its local cache: that is to go with `work`.
    fixed = {"SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1", "LC_ALL": "C", "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    environment = os.environ | fixed
    try:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ToolError(f"cannot run `{command[0]}`: {error.strerror}: {shlex.join(command)}") from error
    if done.returncode == 0:
        return
    said = done.stderr.strip() or done.stdout.strip() or "(it said nothing)"
    if "No space left on device" in said:
        raise OutputError(f"the disk is full: {shlex.join(command)}", "free some space")
    lines = said.splitlines()
    if len(lines) > 60:
        lines = [f"({len(lines) - 60} lines before)", *lines[-60:]]
    how = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
    tool = next((Path(word).name for word in command if not word.startswith("-")), command[0])
    raise ToolError("\n".join([f"{tool} failed with {how}:", f"  {shlex.join(command)}", *lines]))
