"""Targets, and what this machine can do for them, as text and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nncc.codegen.toolchains import find_toolchain, toolchains
from nncc.emulation import emulator
from nncc.errors import NnccError
from nncc.reports import plural, table
from nncc.target import Target

__all__ = ["target_facts", "target_line", "target_table", "target_text"]


def target_facts(target: Target) -> dict[str, Any]:
    """What `nncc targets --json` and `nncc compile --json` say of a target, and what this machine can do for it."""
    try:
        linkers = [each.name for each in toolchains(target)]
    except NnccError:
        linkers = []
    try:
        words = emulator(target)
        run, why = (Path(words[0]).name if words else "here"), ""
    except NnccError as error:
        run, why = "", f"{error.message} ({error.hint})" if error.hint else error.message
    hardware = target.hardware
    return {
        "name": target.name,
        "doc": target.doc,
        "mcpu": target.tvm.get("mcpu", target.tvm.get("arch", "")),
        "multiprocessors": hardware.multiprocessors,
        "vector_bits": hardware.vector_bits,
        "cores": hardware.cores,
        "features": list(hardware.features),
        "tvm": target.tvm,
        "links_with": linkers,
        "runs": run,
        "simulated": hardware.drives_accelerator,
        "why_not": why,
    }


def target_line(target: Target) -> str:
    """The resolved target in a few words."""
    hardware = target.hardware
    if hardware.multiprocessors:
        return f"{target.name}: {target.tvm['arch']}, {plural(hardware.multiprocessors, 'multiprocessor')}"
    vector = f"{hardware.vector_bits}-bit vectors" if hardware.vector_bits > 32 else "no vectors"
    # A native target keeps the doc of the file that was chosen: "this machine: x86-64-v3, 8 cores".
    parts = [target.tvm.get("mcpu", ""), vector, plural(hardware.cores, "core")]
    return f"{target.name}: {', '.join(filter(None, parts))}"


def target_table(facts: Sequence[Mapping[str, Any]]) -> str:
    """One line a target, of the facts of `target_facts`."""
    rows = [["name", "processor", "vector", "cores", "links with", "runs", "what it is"]]
    for each in facts:
        vector = f"{each['vector_bits']} bit" if each["vector_bits"] > 32 else "none"
        if each["multiprocessors"]:
            vector = ""
        links = each["links_with"][0] if each["links_with"] else "no"
        run = each["runs"] or "no"
        cores = str(each["multiprocessors"] or each["cores"])
        rows.append([each["name"], each["mcpu"], vector, cores, links, run, each["doc"]])
    return table(rows, "<<>><<<")


def target_text(target: Target) -> str:
    """A target in full."""
    facts = target_facts(target)
    hardware, link = target.hardware, target.link
    rows = [[key, _words(value)] for key, value in target.tvm.items()]
    lines = [f"{target.name}: {target.doc}\n", "\ntvm\n", table(rows, indent="  "), "\nhardware\n"]
    vector = f"{hardware.vector_registers} registers of {hardware.vector_bits} bits"
    if hardware.multiprocessors:
        rows = [["multiprocessors", str(hardware.multiprocessors)], ["l2", f"{hardware.l2_kib} KiB"]]
        rows.append(["shared memory", f"{hardware.shared_kib} KiB a block"])
    else:
        rows = [["vector", vector + (", fused multiply-add" if hardware.fma else "")], ["int8_dot", hardware.int8_dot]]
        rows += [["cores", str(hardware.cores)], ["l1", f"{hardware.l1_kib} KiB"], ["l2", f"{hardware.l2_kib} KiB"]]
    if hardware.peak_gflops:
        rows.append(
            ["peak", f"{hardware.peak_gflops:g} GFLOP/s{'' if hardware.multiprocessors else ' a core'} (float32)"]
        )
    for word, peak in (("tf32", hardware.tensor_tf32_gflops), ("float16", hardware.tensor_fp16_gflops)):
        if peak:
            rows.append([f"peak, {word}", f"{peak:g} GFLOP/s (tensor cores)"])
    if hardware.tensor_int8_gops:
        rows.append(["peak, int8", f"{hardware.tensor_int8_gops:g} GOP/s (tensor cores)"])
    if hardware.dram_gbps:
        rows.append(["memory", f"{hardware.dram_gbps:g} GB/s"])
    rows.append(["features", " ".join(hardware.features) or "the architecture's baseline"])
    if (machine := hardware.accelerator) is not None:
        words = f"{machine.configuration}, {machine.clock_beside_memory_mhz} MHz, memory {machine.memory}"
        rows.append(["accelerator", words + (", its layers run on the processor" if hardware.golden else "")])
    lines += [table(rows, indent="  "), "\nthis machine\n"]
    rows = [["links", f"yes, with {', '.join(facts['links_with'])}" if facts["links_with"] else "no"]]
    if not facts["links_with"]:
        try:
            find_toolchain(target)
        except NnccError as error:
            rows[0][1] += f": {error.message} ({error.hint})" if error.hint else f": {error.message}"
    how = {"here": "yes, as it is", "": f"no: {facts['why_not']}"}.get(facts["runs"], f"yes, in {facts['runs']}")
    rows += [["runs", how], ["library", {"elf": ".so", "coff": ".dll", "macho": ".dylib"}[link.format]]]
    return "".join([*lines, table(rows, indent="  ")])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
