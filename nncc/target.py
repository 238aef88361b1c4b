"""Targets as data: reads ``targets/*.toml``, one level of ``extends``; also a path, JSON, or ``name,key=value``."""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import TargetError
from nncc.resources import targets_folder

if TYPE_CHECKING:
    from tvm.target import Target as TvmTarget

__all__ = ["Hardware", "Host", "Link", "Target", "available", "host", "resolve"]


@dataclass(frozen=True)
class Hardware:
    """Facts that passes, templates and reports may read; the only way know-how asks about a processor."""

    vector_bits: int = 128
    """Width of the vector registers that kernels are compiled for; 32, one float, where there are none."""
    vector_registers: int = 32
    """Number of architectural vector registers."""
    fma: bool = True
    """Whether multiply and add is one instruction."""
    int8_dot: str = "none"
    """none | sdot | vnni512 | vnni256 | avxvnni"""
    l1_kib: int = 32
    l2_kib: int = 512
    cores: int = 1
    """Number of cores; where a description leaves it out, the ``num-cores`` of its ``[tvm]``."""
    peak_gflops: float = 0.0
    """Float32 peak of one core in GFLOP/s; 0 where not known."""
    dram_gbps: float = 0.0
    """Sustained memory bandwidth in GB/s; 0 where not known."""
    features: tuple[str, ...] = ()
    """Processor features (/proc/cpuinfo words) that kernels need beyond the architecture's baseline."""


@dataclass(frozen=True)
class Link:
    """How a shared library for this target is linked and, on another machine, run."""

    format: str = "elf"
    """elf | coff | macho"""
    zig: str = ""
    """Triple for ``zig cc -target``, with the glibc floor: ``aarch64-linux-gnu.2.28``."""
    gcc: str = ""
    """Name of a cross gcc to use where zig is absent: ``aarch64-linux-gnu-gcc``."""
    emulator: str = ""
    """A user-mode emulator that runs this target's programs here: ``qemu-aarch64``."""
    sysroot: str = ""
    """Where Debian's cross libc lives, for the emulator: ``/usr/aarch64-linux-gnu``."""
    packages: str = ""
    """Debian packages that bring the emulator and the sysroot: ``qemu-user libc6-arm64-cross``."""
    machine: str = ""
    """``platform.machine()`` of a machine that runs it natively: ``x86_64``."""
    system: str = "Linux"
    """``platform.system()`` of such a machine."""
    cflags: tuple[str, ...] = ()
    """Flags for the runtime's C code beside the triple's own: ``-march=armv7-a``."""


@dataclass(frozen=True)
class Target:
    """A machine that code is compiled for. `tvm` is handed to ``tvm.target.Target`` unchanged."""

    name: str
    """What :func:`resolve` makes this target from, unless it came from a file outside ``targets/``."""
    doc: str
    tvm: dict[str, Any] = field(default_factory=dict)
    hardware: Hardware = field(default_factory=Hardware)
    link: Link = field(default_factory=Link)
    base: str = ""
    """Name of the file that describes it, without overrides: where its tuning records are."""

    def tvm_target(self) -> TvmTarget:
        """The target as TVM wants it.

        Raises TargetError if TVM does not take the keys, or LLVM does not know the processor (TVM would go on
        with the architecture's baseline without a word).
        """
        import tvm
        from tvm.target import codegen

        try:
            target = tvm.target.Target(self.tvm)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).strip().split(" Target creation from config dict failed")[0]
            raise TargetError(f"target `{self.name}`: TVM does not take {json.dumps(self.tvm)}: {reason}") from error
        mcpu, mtriple = self.tvm.get("mcpu"), self.tvm.get("mtriple")
        if target.kind.name == "llvm" and mcpu and not codegen.llvm_is_valid_cpu(mcpu, mtriple):
            known = (str(cpu) for cpu in codegen.llvm_get_cpu_archlist(target))
            hint = _suggest(mcpu, known) or f"`mcpu` is a name of LLVM for the triple `{mtriple}`"
            raise TargetError(f"target `{self.name}`: LLVM knows no processor `{mcpu}` for `{mtriple}`", hint)
        return target


@dataclass(frozen=True)
class Host:
    """What this machine says of itself."""

    system: str
    machine: str
    features: frozenset[str]
    cores: int
    l1_kib: int = 0
    """0 where not known."""
    l2_kib: int = 0

    def missing(self, target: Target) -> list[str] | None:
        """The features that `target` needs and this machine lacks; None if it is another kind of machine."""
        if (self.system, self.machine) != (target.link.system, target.link.machine):
            return None
        return [word for word in target.hardware.features if word not in self.features]


def resolve(text: str) -> Target:
    """The target that `text` names.

    `text` is a name (``native``), a path to a TOML file, either followed by overrides of ``[tvm]`` and
    ``[hardware]`` (``name,mcpu=...,num-cores=4,vector_bits=256``), a JSON object (TVM's own with ``kind``, or
    ``{"extends": ..., "tvm": {}, "hardware": {}}``), or a target string of earlier TVM (``llvm -mcpu=...``).
    Only a change of ``mcpu`` or ``mattr`` imports TVM: LLVM is asked which processor features follow.
    """
    text = text.strip()
    if text.startswith("{"):
        return _from_json(text)
    if re.match(r"llvm$|\w+\s+-", text):
        return _from_tvm(_parse_tvm_string(text))
    base, *words = text.split(",")
    return _override(_load(base.strip()), _parse_overrides(words, text))


def available() -> list[Target]:
    """Every target of ``targets/``, by name; without ``native`` where this machine is none of them."""
    targets = []
    for path in sorted(targets_folder().glob("*.toml"), key=lambda path: path.stem):
        description = _read(path)
        if "choose" not in description or _choose(description["choose"]) is not None:
            targets.append(_load(path.stem))
    return targets


def host() -> Host:
    """This machine. Reads ``/proc`` and ``/sys`` on Linux; elsewhere asks LLVM for the features."""
    system, machine = platform.system(), platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if system != "Linux":
        return Host(system, machine, frozenset(_llvm_features(None)), cores)
    features: frozenset[str] = frozenset()
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            features = frozenset(_CPUINFO_WORDS.get(word, word) for word in value.split())
            break
    caches = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            caches[level] = int(size[:-1])
    return Host(system, machine, features, cores, caches.get("1", 0), caches.get("2", 0))


_CPUINFO_WORDS = {"pni": "sse3", "abm": "lzcnt"}
"""Words of /proc/cpuinfo that the C runtime, and so `Hardware.features`, spells otherwise."""

_LLVM_WORDS = {
    "x86": {
        "sse3": "sse3",
        "ssse3": "ssse3",
        "sse4.1": "sse4_1",
        "sse4.2": "sse4_2",
        "popcnt": "popcnt",
        "cx16": "cx16",
        "avx": "avx",
        "avx2": "avx2",
        "fma": "fma",
        "f16c": "f16c",
        "bmi": "bmi1",
        "bmi2": "bmi2",
        "lzcnt": "lzcnt",
        "movbe": "movbe",
        "avx512f": "avx512f",
        "avx512bw": "avx512bw",
        "avx512cd": "avx512cd",
        "avx512dq": "avx512dq",
        "avx512vl": "avx512vl",
        "avx512vnni": "avx512_vnni",
        "avxvnni": "avx_vnni",
    },
    "aarch64": {"dotprod": "asimddp", "fullfp16": "asimdhp", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve"},
    "arm": {"neon": "neon", "vfp4": "vfpv4"},
    "riscv": {"v": "v"},
}
"""For each architecture: LLVM's features that kernels may use, in the words of `Hardware.features`."""

_TVM_TYPES: dict[str, type] = {
    **dict.fromkeys(("mattr", "keys", "libs", "cl-opt"), list),
    **dict.fromkeys(("num-cores", "opt-level", "vector-width", "max_num_threads", "thread_warp_size"), int),
    **dict.fromkeys(("max_shared_memory_per_block", "max_threads_per_block", "registers_per_block"), int),
    **dict.fromkeys(("fast-math", "fast-math-nnan", "fast-math-ninf", "fast-math-nsz"), bool),
    **dict.fromkeys(("fast-math-arcp", "fast-math-contract", "fast-math-reassoc"), bool),
    **dict.fromkeys(("mcpu", "mtriple", "mabi", "mfloat-abi", "arch", "device", "model", "jit"), str),
}
"""TVM's target options that can be given as text, and what they are in its dictionary."""

_CHOICES = {
    "int8_dot": ("none", "sdot", "vnni512", "vnni256", "avxvnni"),
    "format": ("elf", "coff", "macho"),
}
_SECTIONS: dict[str, type] = {"doc": str, "extends": str, "choose": list, "tvm": dict, "hardware": dict, "link": dict}
_TYPE_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "a table"}
_TYPE_NAMES |= {list: "a list of strings", tuple: "a list of strings"}


def _load(name: str) -> Target:
    """The target of a file of ``targets/``, or of a path, without overrides."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise TargetError(f"there is no target file `{name}`")
    else:
        known = {path.stem: path for path in targets_folder().glob("*.toml")}
        if name not in known:
            hint = "`nncc targets` lists all of them"
            raise TargetError(f"unknown target `{name}`", f"{_suggest(name, known)} {hint}".strip())
        path = known[name]
    description = _read(path)
    if "choose" in description:
        return _native(path.stem, description, path)
    return _target(path.stem, _extended(description, str(path)), str(path))


def _read(path: Path) -> dict[str, Any]:
    """The checked contents of one file, without what it extends."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        description = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TargetError(f"{path}: {error}") from error
    return _checked(description, str(path))


def _checked(description: dict[str, Any], where: str) -> dict[str, Any]:
    _check_keys(description, _SECTIONS, where, "a target")
    for section, kind in (("hardware", Hardware), ("link", Link)):
        _check_keys(description.get(section, {}), _types(kind), where, f"[{section}]")
    if "extends" in description and "choose" in description:
        raise TargetError(f"{where}: has both `extends` and `choose`", "keep one of them")
    return description


def _check_keys(table: Mapping[str, Any], types: Mapping[str, type], where: str, what: str) -> None:
    for key, value in table.items():
        if key not in types:
            hint = " ".join(filter(None, (_suggest(key, types), f"known keys: {', '.join(types)}")))
            raise TargetError(f"{where}: {what} has no key `{key}`", hint)
        if not _is_a(value, types[key]):
            raise TargetError(f"{where}: `{key}` is {value!r}, not {_TYPE_NAMES[types[key]]}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise TargetError(f"{where}: `{key}` is {value!r}, not one of {', '.join(_CHOICES[key])}")


def _is_a(value: object, kind: type) -> bool:
    if kind in (list, tuple):
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _types(kind: type[Hardware] | type[Link]) -> dict[str, type]:
    return {f.name: type(f.default) for f in fields(kind) if f.default is not MISSING}


def _extended(description: dict[str, Any], where: str) -> dict[str, Any]:
    """`description` over the one it extends: table by table, key by key."""
    if "extends" not in description:
        return description
    path = targets_folder() / f"{description['extends']}.toml"
    if not path.is_file():
        hint = _suggest(path.stem, (other.stem for other in path.parent.glob("*.toml")))
        raise TargetError(f"{where}: `extends` names the unknown target `{path.stem}`", hint)
    base = _read(path)
    for key in ("extends", "choose"):
        if key in base:
            hint = "only one level: extend a target that stands by itself"
            raise TargetError(f"{where}: `extends` names `{path.stem}`, which has `{key}` itself", hint)
    tables = {key: base.get(key, {}) | description.get(key, {}) for key in ("tvm", "hardware", "link")}
    return base | description | tables


def _target(name: str, description: Mapping[str, Any], where: str) -> Target:
    tvm = dict(description.get("tvm", {}))
    if "kind" not in tvm:
        raise TargetError(f"{where}: [tvm] has no `kind`", 'TVM\'s kind of target: `kind = "llvm"` for processors')
    if tvm["kind"] == "llvm" and "mtriple" not in tvm:
        raise TargetError(f"{where}: [tvm] has no `mtriple`", 'for example `mtriple = "aarch64-unknown-linux-gnu"`')
    hardware = dict(description.get("hardware", {}))
    hardware.setdefault("cores", tvm.get("num-cores", 1))
    doc = description.get("doc", "")
    return Target(name, doc, tvm, Hardware(**_frozen(hardware)), Link(**_frozen(description.get("link", {}))), name)


def _frozen(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _choose(names: Iterable[str]) -> Target | None:
    """The first of the targets that this machine can run."""
    machine = host()
    return next((target for target in map(_load, names) if machine.missing(target) == []), None)


def _native(name: str, description: Mapping[str, Any], path: Path) -> Target:
    """The best of ``choose``, with this machine's own number of cores and cache sizes."""
    target = _choose(description["choose"])
    if target is None:
        message = f"this machine ({platform.system()} on {platform.machine()}) is none of the targets of {path.name}"
        raise TargetError(message, "name the target, or describe it in a TOML file")
    machine = host()
    hardware = replace(
        target.hardware,
        cores=machine.cores,
        l1_kib=machine.l1_kib or target.hardware.l1_kib,
        l2_kib=machine.l2_kib or target.hardware.l2_kib,
    )
    tvm = target.tvm | {"num-cores": machine.cores}
    doc = f"{description.get('doc', 'this machine')}: {target.name}, {machine.cores} cores"
    return replace(target, name=name, doc=doc, tvm=tvm, hardware=hardware)


def _from_json(text: str) -> Target:
    try:
        description = json.loads(text)
    except ValueError as error:
        raise TargetError(f"the target is not valid JSON: {error}: {text}") from error
    if "kind" in description:
        return _from_tvm(description)
    _check_keys(description, {key: _SECTIONS[key] for key in ("extends", "tvm", "hardware")}, text, "a target in JSON")
    if "extends" not in description:
        hint = "a target of TVM has a `kind`, a target of nncc an `extends`"
        raise TargetError(f"{text}: has neither `kind` nor `extends`", hint)
    _checked(description, text)
    return _override(_load(description["extends"]), description.get("tvm", {}) | description.get("hardware", {}))


def _from_tvm(tvm: dict[str, Any]) -> Target:
    """A target for a dictionary of TVM: the nearest that is known, with what differs as overrides."""
    if tvm["kind"] != "llvm":
        native = _load("native")
        name = ",".join(f"{key}={_text(value)}" for key, value in tvm.items())
        tvm = {"host": native.tvm} | tvm
        return replace(native, name=name, doc=f"TVM's `{tvm['kind']}`", tvm=tvm, base=tvm["kind"])
    if "mtriple" not in tvm:
        own = _load("native").tvm
        tvm = {key: own[key] for key in ("mtriple", "mabi", "mfloat-abi", "num-cores") if key in own} | tvm
    machine, *rest = tvm["mtriple"].split("-")
    if rest[0:1] in (["linux"], ["windows"]):
        # LLVM takes the second word for the vendor whatever it is, and then knows of no system.
        tvm = tvm | {"mtriple": "-".join([machine, "unknown", *rest])}
    nearest = _nearest(tvm)
    kept = {"num-cores"}  # a fact of the board rather than of its code: what is not said stays
    changes = {key: tvm.get(key, "") for key in nearest.tvm | tvm if key in tvm or key not in kept}
    return _override(nearest, {key: value for key, value in changes.items() if value != nearest.tvm.get(key, "")})


def _nearest(tvm: dict[str, Any]) -> Target:
    """The target for the same processor, else the first of ``native``'s choice that its features allow."""
    features = set(_llvm_features(tvm))
    kin = [t for t in available() if t.name == t.base and _system(t.tvm.get("mtriple", "")) == _system(tvm["mtriple"])]
    allowed = [t for t in kin if features.issuperset(t.hardware.features)]
    exact = [t for t in allowed if t.tvm.get("mcpu", "") == tvm.get("mcpu")]
    if exact:
        return max(exact, key=lambda t: len(t.hardware.features))
    order = _read(targets_folder() / "native.toml")["choose"]
    general = [t for t in allowed if t.name in order]
    if not general:
        known = sorted({t.tvm["mtriple"] for t in available() if "mtriple" in t.tvm})
        hint = f"describe the machine in a TOML file; known triples: {', '.join(known)}"
        raise TargetError(f"no target is like `{json.dumps(tvm)}`", hint)
    return min(general, key=lambda t: order.index(t.name))


def _system(mtriple: str) -> tuple[str, str]:
    """Architecture and system of a triple, by one name each."""
    machine = mtriple.split("-")[0]
    for prefix, name in (("arm64", "aarch64"), ("armv7", "arm"), ("thumbv7", "arm"), ("amd64", "x86_64")):
        if machine.startswith(prefix):
            machine = name
    systems = {"linux": "linux", "windows": "windows", "mingw": "windows", "apple": "macos", "darwin": "macos"}
    return machine, next((name for word, name in systems.items() if word in mtriple), "")


def _parse_tvm_string(text: str) -> dict[str, Any]:
    """``llvm -mcpu=x -num-cores=4`` as a dictionary: TVM itself no longer reads such strings."""
    try:
        kind, *options = shlex.split(text)
    except ValueError as error:
        raise TargetError(f"the target `{text}` cannot be split into words: {error}") from error
    tvm: dict[str, Any] = {"kind": kind}
    for option in options:
        key, equals, value = option.lstrip("-").partition("=")
        if not option.startswith("-") or not key or not (equals or _TVM_TYPES.get(key) is bool):
            raise TargetError(f"the target `{text}` has the word `{option}`, which is not `-option=value`")
        tvm[key] = _parse_value(key, value if equals else "1", _TVM_TYPES, text)
    return tvm


def _parse_overrides(words: list[str], text: str) -> dict[str, Any]:
    """``["num-cores=4", "mattr=+a", "+b"]`` as values of the right types."""
    joined: list[str] = []
    for word in words:
        if joined and "=" not in word and word.strip()[:1] in ("+", "-"):
            joined[-1] += word
        else:
            joined.append(word)
    overrides = {}
    for word in joined:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise TargetError(f"the target `{text}` has the word `{word}`, which is not `key=value`")
        overrides[key] = _parse_value(key, value, _TVM_TYPES | _types(Hardware), text)
        if key in _CHOICES and value not in _CHOICES[key]:
            raise TargetError(f"the target `{text}` has `{word}`: not one of {', '.join(_CHOICES[key])}")
    return overrides


def _parse_value(key: str, value: str, types: Mapping[str, type], text: str) -> Any:
    if key not in types:
        hint = " ".join(filter(None, (_suggest(key, types), f"known keys: {', '.join(types)}")))
        raise TargetError(f"the target `{text}` has the unknown key `{key}`", hint)
    kind = types[key]
    try:
        if kind is bool:
            return {"1": True, "true": True, "0": False, "false": False}[value.lower()]
        if kind in (list, tuple):
            # `+a -b`, `+a,-b` and `+a-b` are one list; other lists are separated by spaces or commas.
            return kind(re.findall(r"[+-][^\s,+-][^\s,+]*" if key == "mattr" else r"[^\s,+]+", value))
        return kind(value)
    except (KeyError, ValueError) as error:
        raise TargetError(f"the target `{text}` has `{key}={value}`: not {_TYPE_NAMES[kind]}") from error


def _text(value: object) -> str:
    """A value as :func:`_parse_value` reads it."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _override(target: Target, changes: Mapping[str, Any]) -> Target:
    """`target` with other values of ``[tvm]`` and ``[hardware]``; an empty text removes a key of ``[tvm]``."""
    if not changes:
        return target
    tvm = dict(target.tvm)
    facts: dict[str, Any] = {}
    for key, value in changes.items():
        if key in _types(Hardware):
            facts[key] = tuple(value) if isinstance(value, list) else value
        elif value in ("", []):
            tvm.pop(key, None)
        else:
            tvm[key] = value
    if "num-cores" in changes:
        facts.setdefault("cores", tvm.get("num-cores", 1))
    if tvm["kind"] == "llvm" and any(key in changes for key in ("mcpu", "mattr", "mtriple")):
        facts.setdefault("features", _llvm_features(tvm))
    name = ",".join([target.name, *(f"{key}={_text(value)}" for key, value in changes.items())])
    doc = f"{target.doc}, with changes"
    return replace(target, name=name, doc=doc, tvm=tvm, hardware=replace(target.hardware, **facts))


def _llvm_features(tvm: dict[str, Any] | None) -> tuple[str, ...]:
    """What LLVM may use for this dictionary, or for this machine, in the words of `Hardware.features`."""
    import tvm as tvm_package
    from tvm.target import codegen

    if tvm is None:
        tvm = {"kind": "llvm", "mtriple": codegen.llvm_get_system_triple(), "mcpu": codegen.llvm_get_system_cpu()}
    options = {key: value for key, value in tvm.items() if key in ("kind", "mtriple", "mcpu", "mattr")}
    try:
        features = {str(feature) for feature in codegen.llvm_get_cpu_features(tvm_package.target.Target(options))}
    except (ValueError, TypeError, RuntimeError) as error:
        raise TargetError(f"LLVM does not take {json.dumps(options)}: {str(error).strip()}") from error
    machine = _system(tvm["mtriple"])[0]
    family = "x86" if machine in ("x86_64", "i686", "i386") else re.sub(r"(32|64)$", "", machine)
    words = _LLVM_WORDS.get(machine, _LLVM_WORDS.get(family, {}))
    return tuple(word for feature, word in words.items() if feature in features)


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""
