"""Targets as data: reads ``targets/*.toml``, one level of ``extends``; also a path, JSON, or ``name,key=value``."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import TargetError, did_you_mean
from nncc.host import Host, host, llvm_features, system_of
from nncc.resources import targets_folder
from nncc.target_words import check_keys, parse_overrides, parse_tvm_string, value_text

if TYPE_CHECKING:
    from tvm.target import Target as TvmTarget

    from nncc.vta.machine import Machine

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
    lane_operand: bool = False
    """Whether a multiply-add takes one lane of a register as its factor (Arm), rather than a broadcast from memory."""
    int8_dot: str = "none"
    """How int8 is multiplied: none | sdot | smull | vnni512 | vnni256 | avxvnni | pmaddwd; see `nncc.dots`."""
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
    multiprocessors: int = 0
    """Of a GPU, its streaming multiprocessors; 0 on a processor. `peak_gflops` is then that of the whole GPU."""
    shared_kib: int = 0
    """Shared memory that one block may have, opted in, in KiB."""
    multiprocessor_shared_kib: int = 0
    """Shared memory of one multiprocessor, which its resident blocks share."""
    multiprocessor_threads: int = 0
    """Threads that may reside on one multiprocessor."""
    tensor_tf32_gflops: float = 0.0
    """Dense peak of the tensor cores on float32 rounded to TF32; 0 where they do not take it."""
    tensor_fp16_gflops: float = 0.0
    """Dense peak of the tensor cores on float16, accumulated in float32; 0 where there are none."""
    tensor_int8_gops: float = 0.0
    """Dense peak of the tensor cores on int8, in 10^9 operations a second."""
    accelerator: Machine | None = None
    """The accelerator beside the processor: the table ``[accelerator]`` of a description."""
    golden: bool = False
    """Whether the layers of the accelerator are compiled for the processor, by their definition: slow, and exact; to
    find out who errs."""

    @property
    def drives_accelerator(self) -> bool:
        """Whether libraries have programs for an accelerator."""
        return self.accelerator is not None and not self.golden

    @property
    def bytes_per_flop(self) -> float:
        """What one core reads from memory while it could do one float32 operation; where not known, 0.2, which is
        between servers with one busy core (0.06 to 0.25) and boards (0.4)."""
        return self.dram_gbps / self.peak_gflops if self.dram_gbps and self.peak_gflops else 0.2


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
            hint = did_you_mean(mcpu, known) or f"`mcpu` is a name of LLVM for the triple `{mtriple}`"
            raise TargetError(f"target `{self.name}`: LLVM knows no processor `{mcpu}` for `{mtriple}`", hint)
        return target


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
        return _from_tvm(parse_tvm_string(text))
    base, *words = text.split(",")
    target = _load(base.strip())
    machine = {f.name: type(f.default) for f in _fields(target.hardware.accelerator)}
    return _override(target, parse_overrides(words, text, _types(Hardware) | machine))


def available() -> list[Target]:
    """Every target of ``targets/``, by name; without ``native`` where this machine is none of them."""
    targets = []
    for path in sorted(targets_folder().glob("*.toml"), key=lambda path: path.stem):
        description = _read(path)
        if (chosen := _chosen(description)) is None or _choose(chosen["choose"]) is not None:
            targets.append(_load(path.stem))
    return targets


_SECTIONS: dict[str, type] = {"doc": str, "extends": str, "choose": list, "tvm": dict, "hardware": dict, "link": dict}
_SECTIONS |= {"accelerator": dict}


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
            raise TargetError(f"unknown target `{name}`", f"{did_you_mean(name, known)} {hint}".strip())
        path = known[name]
    description = _read(path)
    if "choose" in description:
        return _native(path.stem, description, path)
    if "accelerator" in description and _chosen(description) is not None:
        return _hosted(path.stem, description, str(path))
    return _target(path.stem, _extended(description, str(path)), str(path))


def _chosen(description: dict[str, Any]) -> dict[str, Any] | None:
    """The description that chooses the processor: this one, or the one that it extends; None where none does."""
    path = targets_folder() / f"{description.get('extends', '')}.toml"
    found = description if "choose" in description or not path.is_file() else _read(path)
    return found if "choose" in found else None


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
    check_keys(description, _SECTIONS, where, "a target")
    for section, kind in (("hardware", Hardware), ("link", Link)):
        check_keys(description.get(section, {}), _types(kind), where, f"[{section}]")
    if "extends" in description and "choose" in description:
        raise TargetError(f"{where}: has both `extends` and `choose`", "keep one of them")
    return description


def _types(kind: type[Hardware] | type[Link]) -> dict[str, type]:
    return {f.name: type(f.default) for f in fields(kind) if f.default is not MISSING and f.default is not None}


def _fields(machine: Machine | None) -> tuple[Any, ...]:
    return () if machine is None else fields(machine)


def _extended(description: dict[str, Any], where: str) -> dict[str, Any]:
    """`description` over the one it extends: table by table, key by key."""
    if "extends" not in description:
        return description
    path = targets_folder() / f"{description['extends']}.toml"
    if not path.is_file():
        hint = did_you_mean(path.stem, (other.stem for other in path.parent.glob("*.toml")))
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
    doc, facts = description.get("doc", ""), Hardware(**_frozen(hardware), accelerator=_machine(description, where))
    return Target(name, doc, tvm, facts, Link(**_frozen(description.get("link", {}))), name)


def _machine(description: Mapping[str, Any], where: str) -> Machine | None:
    if "accelerator" not in description:
        return None
    from nncc.vta.machine import Machine

    return Machine.from_table(description["accelerator"], where)


def _hosted(name: str, description: Mapping[str, Any], where: str) -> Target:
    """This machine with an accelerator beside it, and with other facts where the description has some."""
    for key in ("tvm", "link"):
        if key in description:
            raise TargetError(f"{where}: [{key}] is that of this machine", "leave it out, or extend another target")
    target = _load(description["extends"])
    facts = _frozen(description.get("hardware", {})) | {"accelerator": _machine(description, where)}
    doc = f"{description.get('doc', name)}; host: {target.doc}"
    return replace(target, name=name, doc=doc, hardware=replace(target.hardware, **facts), base=name)


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
    check_keys(description, {key: _SECTIONS[key] for key in ("extends", "tvm", "hardware")}, text, "a target in JSON")
    if "extends" not in description:
        hint = "a target of TVM has a `kind`, a target of nncc an `extends`"
        raise TargetError(f"{text}: has neither `kind` nor `extends`", hint)
    _checked(description, text)
    return _override(_load(description["extends"]), description.get("tvm", {}) | description.get("hardware", {}))


def _from_tvm(tvm: dict[str, Any]) -> Target:
    """A target for a dictionary of TVM: the nearest that is known, with what differs as overrides."""
    if tvm["kind"] != "llvm":
        native = _load("native")
        name = ",".join(f"{key}={value_text(value)}" for key, value in tvm.items())
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
    features = set(llvm_features(tvm))
    kin = [
        t for t in available() if t.name == t.base and system_of(t.tvm.get("mtriple", "")) == system_of(tvm["mtriple"])
    ]
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


def _override(target: Target, changes: Mapping[str, Any]) -> Target:
    """`target` with other values of ``[tvm]`` and ``[hardware]``; an empty text removes a key of ``[tvm]``."""
    if not changes:
        return target
    tvm = dict(target.tvm)
    facts: dict[str, Any] = {}
    machine = target.hardware.accelerator
    own = {f.name for f in _fields(machine)} & changes.keys()
    if machine is not None and own:
        facts["accelerator"] = replace(machine, **{key: changes[key] for key in own})
    for key, value in changes.items():
        if key in own:
            continue
        if key in _types(Hardware):
            facts[key] = tuple(value) if isinstance(value, list) else value
        elif value in ("", []):
            tvm.pop(key, None)
        else:
            tvm[key] = value
    if "num-cores" in changes:
        facts.setdefault("cores", tvm.get("num-cores", 1))
    if tvm["kind"] == "llvm" and any(key in changes for key in ("mcpu", "mattr", "mtriple")):
        facts.setdefault("features", llvm_features(tvm))
    name = ",".join([target.name, *(f"{key}={value_text(value)}" for key, value in changes.items())])
    doc = f"{target.doc}, with changes"
    return replace(target, name=name, doc=doc, tvm=tvm, hardware=replace(target.hardware, **facts))
