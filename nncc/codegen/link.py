"""From a generated C file, a kernel object and a weights blob to a library: finds a C compiler, calls it, checks."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nncc.errors import InternalError, OutputError, TargetError, ToolError, UsageError
from nncc.target import Target, host

__all__ = [
    "PUBLIC_FUNCTIONS",
    "Toolchain",
    "build_runner",
    "cache_folder",
    "conceal",
    "emulator",
    "find_toolchain",
    "link",
    "rename",
    "static_names",
    "toolchains",
]

PUBLIC_FUNCTIONS = ("nncc_describe", "nncc_create", "nncc_run", "nncc_profile", "nncc_destroy", "nncc_last_error")
"""All that a shared library exports."""

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
_WEIGHTS = {
    "elf": """\
    .section .rodata.nncc,"a",%progbits
    .globl {symbol}
    .hidden {symbol}
    .type {symbol}, %object
    .balign 4096
{symbol}:
    .incbin "weights.bin"
    .size {symbol}, . - {symbol}
    .section .note.GNU-stack,"",%progbits
""",
    "coff": """\
    .section .rdata,"dr"
    .globl {symbol}
    .balign 4096
{symbol}:
    .incbin "weights.bin"
""",
    "macho": """\
    .section __TEXT,__const
    .globl _{symbol}
    .private_extern _{symbol}
    .p2align 12
_{symbol}:
    .incbin "weights.bin"
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
) -> dict[str, Path]:
    """Compile `source`, which includes the runtime, and link it with the kernel object and the weights.

    `emit` says what to make in `folder`: ``so`` the shared library `stem`.so (.dll, .dylib), which exports
    PUBLIC_FUNCTIONS and nothing else; ``a`` the archive lib`stem`.a and ``o`` the object `stem`.o (ELF only), whose
    functions are ``nncc_<static_prefix>_create`` and so on and in which nothing clashes with another model's.
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
    with _workshop(folder) as work:
        shutil.copyfile(source, work / "model.c")
        _borrow(weights, work / "weights.bin")
        digest = _sha256(weights)
        made: dict[str, tuple[Path, str]] = {}
        if "so" in emit:
            parts = _objects(target, toolchain, work, kernels, include, digest, prefix=None)
            name = stem + _SUFFIX[target.link.format]
            _link_shared(target, toolchain, work, parts, name)
            made["so"] = (work / name, name)
        if "a" in emit or "o" in emit:
            parts = _objects(target, toolchain, work, kernels, include, digest, prefix=static_prefix)
            if "o" in emit:
                _call([*toolchain.command, "-r", *parts, "-o", "whole.o"], work)
                made["o"] = (work / "whole.o", f"{stem}.o")
            if "a" in emit:
                _call([*toolchain.archiver, "rcs" if platform.system() == "Darwin" else "rcsD", "all.a", *parts], work)
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
    digest: str,
    prefix: str | None,
) -> list[str]:
    """Names of the objects made in `work`; with a `prefix`, every name that others may see carries it."""
    tag = f"{prefix}_" if prefix is not None else ""
    names = static_names(prefix) if prefix is not None else {}
    symbol = f"nncc_{tag}weights"
    parts = [f"{tag}model.o", f"{tag}weights.o"]
    # The digest is there for compilers that cache by the text they compile: they do not look into .incbin.
    text = f"// {digest}\n" if target.link.format == "macho" else f"/* {digest} */\n"
    (work / f"{tag}weights.s").write_text(text + _WEIGHTS[target.link.format].format(symbol=symbol))
    quoted = target.name.replace("\\", "\\\\").replace('"', '\\"')
    defines = [f'-DNNCC_TARGET="{quoted}"', f"-DNNCC_WEIGHTS={symbol}"]
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
    _call([*base, *defines, *folders, *maps, "model.c", "-o", parts[0]], work)
    if target.link.format == "coff":
        # What it exports, exports.def says; a program with an archive inside exports nothing.
        (work / parts[0]).write_bytes(conceal((work / parts[0]).read_bytes()))
    _call([*toolchain.command, "-c", *target.link.cflags, f"{tag}weights.s", "-o", parts[1]], work)
    if kernels is not None:
        data = conceal(kernels.read_bytes())
        (work / f"{tag}kernels.o").write_bytes(rename(data, names) if names else data)
        parts.append(f"{tag}kernels.o")
    return parts


def _link_shared(target: Target, toolchain: Toolchain, work: Path, parts: list[str], name: str) -> None:
    form = target.link.format
    flags = list(_SHARED[form])
    if form == "elf":
        public = " ".join(f"{f};" for f in PUBLIC_FUNCTIONS)
        (work / "exports.map").write_text(f"{{ global: {public} local: *; }};\n")
        if toolchain.name != "zig":
            flags.append("-static-libgcc")
    elif form == "coff":
        (work / "exports.def").write_text("EXPORTS\n" + "".join(f"  {f}\n" for f in PUBLIC_FUNCTIONS))
        if toolchain.name != "zig":  # which writes no time of its own accord
            flags.append("-Wl,--no-insert-timestamp")
    else:
        (work / "exports.txt").write_text("".join(f"_{f}\n" for f in PUBLIC_FUNCTIONS))
        flags += [f"-Wl,-install_name,@rpath/{name}", "-Wl,-exported_symbols_list,exports.txt"]
    _call([*toolchain.command, *flags, *parts, "-o", name, "-lm", "-lpthread"], work)


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
    runtime = Path(__file__).resolve().parent.parent / "runtime"
    text = (runtime / "bench_main.c").read_bytes() + (runtime / "nncc.h").read_bytes()
    key = hashlib.sha256(text + repr((target.link, toolchain)).encode()).hexdigest()[:16]
    runner = folder / f"runner-{key}{'.exe' if target.link.format == 'coff' else ''}"
    if runner.is_file():
        return runner
    with _workshop(folder) as work:
        shutil.copyfile(runtime / "bench_main.c", work / "runner.c")
        shutil.copyfile(runtime / "nncc.h", work / "nncc.h")
        libraries = {"elf": ["-ldl", "-lm", "-lpthread"], "coff": [], "macho": []}[target.link.format]
        flags = ["-O2", "-std=gnu11", *target.link.cflags]
        _call([*toolchain.command, *flags, "runner.c", "-o", runner.name, *libraries], work)
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


# ---- object files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Symbol:
    at: int
    """Where in the file its record begins."""
    name_at: int
    """Where in the file its name begins; -1 for a name inside the record (COFF, at most 8 bytes)."""
    name: bytes
    exported: bool
    """Defined here and visible to the linker."""


def conceal(data: bytes) -> bytes:
    """The object file with what it defines hidden: seen by the linker, never exported from a library.

    TVM gives every kernel default visibility; on COFF it says ``-export`` in the section ``.drectve``.
    """
    out = bytearray(data)
    form = _format(data)
    if form == "coff":
        for place, size in _drectve(data):
            out[place : place + size] = b" " * size
        return bytes(out)
    for symbol in _SYMBOLS[form](data):
        if symbol.exported and form == "macho":
            out[symbol.at + 4] |= 0x10  # n_type: N_PEXT
        elif symbol.exported:
            other = symbol.at + (5 if data[4] == 2 else 13)  # st_other
            out[other] = out[other] & ~3 | 2  # STV_HIDDEN
    return bytes(out)


def rename(data: bytes, names: dict[str, str]) -> bytes:
    """The object file with symbols renamed in place; each new name is as long as the old one."""
    out = bytearray(data)
    form = _format(data)
    lead = b"_" if form == "macho" else b""
    wanted = {lead + old.encode(): lead + new.encode() for old, new in names.items()}
    for symbol in _SYMBOLS[form](data):
        new = wanted.get(symbol.name)
        if new is None:
            continue
        # A string table may hold a name once more as the tail of a longer one.
        if len(new) != len(symbol.name) or symbol.name_at < 0 or data[symbol.name_at - 1] not in (0, None):
            raise InternalError(f"link: the kernel object's symbol `{symbol.name.decode()}` cannot be renamed in place")
        out[symbol.name_at : symbol.name_at + len(new)] = new
    return bytes(out)


def _format(data: bytes) -> str:
    if data[:4] == b"\x7fELF" and data[5] == 1:
        return "elf"
    if data[:4] == b"\xcf\xfa\xed\xfe":
        return "macho"
    if data[:2] in (b"\x64\x86", b"\x64\xaa", b"\x4c\x01"):
        return "coff"
    raise InternalError(f"link: the kernel object begins with {data[:8]!r}: neither ELF, Mach-O nor COFF")


def _text_at(data: bytes, at: int) -> bytes:
    return data[at : data.index(b"\0", at)]


def _elf_symbols(data: bytes) -> Iterator[_Symbol]:
    wide = data[4] == 2
    table, size, count = (
        (*struct.unpack_from("<Q", data, 0x28), *struct.unpack_from("<HH", data, 0x3A))
        if wide
        else (*struct.unpack_from("<I", data, 0x20), *struct.unpack_from("<HH", data, 0x2E))
    )
    if count == 0:  # more than 65279 sections: the number is in the first section's sh_size
        (count,) = struct.unpack_from("<Q" if wide else "<I", data, table + (0x20 if wide else 0x14))
    # type, offset, size and link of every section
    heads = [
        (
            *struct.unpack_from("<I", data, table + i * size + 4),
            *struct.unpack_from("<QQI" if wide else "<III", data, table + i * size + (0x18 if wide else 0x10)),
        )
        for i in range(count)
    ]
    for kind, offset, length, strings in heads:
        if kind != 2:  # SHT_SYMTAB
            continue
        for at in range(offset, offset + length, 24 if wide else 16):
            (name,) = struct.unpack_from("<I", data, at)
            info = data[at + (4 if wide else 12)]
            (section,) = struct.unpack_from("<H", data, at + (6 if wide else 14))
            name_at = heads[strings][1] + name
            yield _Symbol(at, name_at, _text_at(data, name_at), info >> 4 in (1, 2) and section != 0)


def _macho_symbols(data: bytes) -> Iterator[_Symbol]:
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command == 2:  # LC_SYMTAB
            symbols, count, strings, _ = struct.unpack_from("<IIII", data, at + 8)
            for record in range(symbols, symbols + 16 * count, 16):
                name, kind = struct.unpack_from("<IB", data, record)
                exported = bool(kind & 1) and kind & 0x0E != 0 and not kind & 0xE0  # N_EXT, defined, not N_STAB
                yield _Symbol(record, strings + name, _text_at(data, strings + name), exported)
        at += size


def _coff_symbols(data: bytes) -> Iterator[_Symbol]:
    table, count = struct.unpack_from("<II", data, 8)
    strings, index = table + 18 * count, 0
    while index < count:
        at = table + 18 * index
        zeros, offset = struct.unpack_from("<II", data, at)
        (section,) = struct.unpack_from("<h", data, at + 12)
        name_at = strings + offset if zeros == 0 else -1
        name = _text_at(data, name_at) if zeros == 0 else data[at : at + 8].rstrip(b"\0")
        yield _Symbol(at, name_at, name, data[at + 16] == 2 and section > 0)
        index += 1 + data[at + 17]


def _drectve(data: bytes) -> Iterator[tuple[int, int]]:
    """Place and size of the linker directives of a COFF object."""
    sections, optional = struct.unpack_from("<H", data, 2)[0], struct.unpack_from("<H", data, 16)[0]
    for at in range(20 + optional, 20 + optional + 40 * sections, 40):
        if data[at : at + 8] == b".drectve":
            size, place = struct.unpack_from("<II", data, at + 16)
            yield place, size


_SYMBOLS: dict[str, Callable[[bytes], Iterator[_Symbol]]] = {
    "elf": _elf_symbols,
    "macho": _macho_symbols,
    "coff": _coff_symbols,
}


# ---- calling tools ----------------------------------------------------------------------------------------------


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, gone at the end; what cannot be written is an OutputError."""
    work = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".nncc-", dir=folder)).resolve()
        yield work
    except OSError as error:
        hint = "free some space" if error.errno == errno.ENOSPC else "choose another folder, or its permissions"
        raise OutputError(f"cannot write to `{folder}`: {error.strerror or error}", hint) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


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


def _call(command: Sequence[str], work: Path) -> None:
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
