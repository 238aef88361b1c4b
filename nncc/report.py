"""Results as text: aligned columns, units that fit, nothing that a terminal narrower than 100 columns would break."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.text import size

if TYPE_CHECKING:
    import numpy as np

    from nncc.doctor import Row
    from nncc.instruments import Verify
    from nncc.ir import Artifact
    from nncc.target import Target

__all__ = [
    "clipped",
    "compile_facts",
    "compile_text",
    "description_text",
    "doctor_text",
    "duration",
    "json_text",
    "output_facts",
    "output_text",
    "plural",
    "table",
    "target_facts",
    "target_line",
    "target_text",
]


def table(rows: Sequence[Sequence[str]], align: str = "", indent: str = "") -> str:
    """Rows as columns two blanks apart; `align` has ``<`` or ``>`` for each column, ``<`` where it ends early."""
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows), default=0))]
    lines = []
    for row in rows:
        cells = [f"{cell:{align[at] if at < len(align) else '<'}{widths[at]}}" for at, cell in enumerate(row)]
        lines.append((indent + "  ".join(cells)).rstrip() + "\n")
    return "".join(lines)


def duration(seconds: float) -> str:
    """``12.3 us``, ``4.56 ms``, ``1.23 s``, ``2 min 5 s``: three digits that count."""
    if seconds >= 99.95:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    unit, factor = ("s", 1.0) if seconds >= 0.9995 else ("ms", 1e3) if seconds >= 0.9995e-3 else ("us", 1e6)
    value = seconds * factor
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def json_text(value: Any) -> str:
    """JSON, indented, with lists of plain values on one line."""
    text = json.dumps(value, indent=2)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text) + "\n"


def clipped(text: str, most: int) -> str:
    """The text, or as much of it as `most` characters hold with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# ---- targets ----------------------------------------------------------------------------------------------------


def target_facts(target: Target) -> dict[str, Any]:
    """What `nncc targets --json` and `nncc compile --json` say of a target, and what this machine can do for it."""
    from nncc.codegen.link import emulator, toolchains
    from nncc.errors import NnccError

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
        from nncc.codegen.link import find_toolchain
        from nncc.errors import NnccError

        try:
            find_toolchain(target)
        except NnccError as error:
            rows[0][1] += f": {error.message} ({error.hint})" if error.hint else f": {error.message}"
    how = {"here": "yes, as it is", "": f"no: {facts['why_not']}"}.get(facts["runs"], f"yes, in {facts['runs']}")
    rows += [["runs", how], ["library", {"elf": ".so", "coff": ".dll", "macho": ".dylib"}[link.format]]]
    return "".join([*lines, table(rows, indent="  ")])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# ---- doctor -----------------------------------------------------------------------------------------------------


def doctor_text(rows: Sequence[Row]) -> str:
    """One line a check; the targets, of which `nncc targets` tells, only where something is wrong."""
    shown = [row for row in rows if row.status != "ok" or not row.check.startswith("target ")]
    lines = table([[f"{row.status:<4}", row.check, row.detail] for row in shown]).splitlines()
    text = ""
    for row, line in zip(shown, lines, strict=True):
        text += line + "\n"
        if row.status != "ok" and row.hint:
            text += f"      {row.hint}\n"
    count = {status: sum(row.status == status for row in rows) for status in ("ok", "warn", "fail")}
    targets = sum(row.check.startswith("target ") for row in rows)
    verdict = "nncc cannot work here" if count["fail"] else "nncc works here"
    missing = (
        f", {plural(count['warn'], 'thing')} it could use {'is' if count['warn'] == 1 else 'are'} missing"
        if count["warn"]
        else ""
    )
    return f"{text}\n{verdict}{missing}; `nncc targets` tells of {plural(targets, 'target')}\n"


# ---- compile ----------------------------------------------------------------------------------------------------


def compile_facts(
    target: Target, seconds: Mapping[str, float], artifact: Artifact | None, toolchain: str, verify: Verify | None
) -> dict[str, Any]:
    """What `nncc compile --json` prints."""
    from nncc.gpu_report import least_seconds

    facts: dict[str, Any] = {
        "target": target_facts(target),
        "stages": [{"name": name, "seconds": round(value, 4)} for name, value in seconds.items()],
    }
    if artifact is not None:
        about = artifact.description
        facts |= {
            "name": about["name"],
            "library": str(artifact.library),
            "header": str(artifact.header),
            "json": str(artifact.json),
            "extras": [str(path) for path in artifact.extras],
            "build": about["build"],
            "sizes": _sizes(artifact),
            "toolchain": toolchain,
        }
        if "device" in about:
            facts["least_ms"] = round(1e3 * least_seconds(about["device"]), 6)
    facts["check"] = _check_facts(verify)
    return facts


def _sizes(artifact: Artifact) -> dict[str, int]:
    about, whole = artifact.description, artifact.library.stat().st_size
    weights = about["weights_bytes"]
    return {
        "library_bytes": whole,
        "weights_bytes": weights,
        "code_bytes": max(0, whole - weights),
        "packed_bytes": about.get("packed_bytes", 0),
        "expanded_bytes": about.get("expanded_bytes", 0),
        "arena_bytes": about["arena_bytes"],
        "scratch_bytes": about["scratch_bytes"],
    }


def _check_facts(verify: Verify | None) -> dict[str, Any]:
    if verify is None:
        return {"done": False, "reason": "--no-verify", "emulated_by": "", "seconds": 0.0, "outputs": []}
    found = [(name, each) for name, several in verify.results.items() if name.startswith("build") for each in several]
    outputs = [
        {
            "name": each.name,
            "dtype": each.dtype,
            "max_error": each.max_error,
            "relative_error": each.relative_error,
            "tolerance": each.tolerance,
            "ok": each.ok,
        }
        | ({"sizes": name.removeprefix("build at ")} if name != "build" else {})
        for name, each in found
    ]
    return {
        "done": bool(found),
        "reason": verify.skipped,
        "emulated_by": verify.emulated_by,
        "seconds": round(verify.seconds, 4),
        "outputs": outputs,
    }


def compile_text(facts: Mapping[str, Any], target: Target) -> str:
    """What `nncc compile` prints, of `compile_facts`."""
    lines = [f"target   {target_line(target)}\n", "\n"]
    stages = [(each["name"], each["seconds"]) for each in facts["stages"]]
    if facts["check"]["seconds"]:
        stages.append(("check", facts["check"]["seconds"]))
    rows = [[name, duration(value)] for name, value in stages]
    rows.append(["in all", duration(sum(value for _, value in stages))])
    lines.append(table(rows, "<>"))
    if "library" not in facts:
        lines.append(f"\nstopped after {facts['stages'][-1]['name']}; nothing was built\n")
        return "".join(lines)
    sizes = facts["sizes"]
    scratch = f", {size(sizes['scratch_bytes'])} more for each of its threads" if sizes["scratch_bytes"] else ""
    rows = [
        ["library", size(sizes["library_bytes"]), facts["library"]],
        ["weights", size(sizes["weights_bytes"]), f"part of the library{_packed_text(sizes)}"],
        ["code", size(sizes["code_bytes"]), f"the rest of it; linked by {facts['toolchain']}"],
        ["arena", size(sizes["arena_bytes"]), f"needed by each running context{scratch}"],
    ]
    if "least_ms" in facts:
        least = duration(1e-3 * facts["least_ms"])
        rows.append(["time", least, "at least, by the target's facts; `nncc show` tells of each kernel"])
    lines += ["\n", table(rows, "<><")]
    lines += [f"also     {path}\n" for path in facts["extras"]]
    lines.append("\n" + _check_text(facts["check"]))
    return "".join(lines)


def _packed_text(sizes: Mapping[str, int]) -> str:
    """What storing constants without their zeros saves, and what it costs."""
    packed, whole = sizes["packed_bytes"], sizes["expanded_bytes"]
    if not whole:
        return ""
    return f"; {size(whole)} of them stored in {size(packed)}, expanded into the arena: --compress-weights"


def _check_text(check: Mapping[str, Any]) -> str:
    if not check["done"]:
        return f"not checked against ONNX Runtime: {check['reason']}\n"
    where = f", emulated by {check['emulated_by']}" if check["emulated_by"] else ""
    rows = []
    for each in check["outputs"]:
        exact = each["tolerance"] == 0
        error = "equal" if each["max_error"] == 0 else f"relative error {each['relative_error']:.1e}"
        limit = "" if exact else f"(at most {each['tolerance']:.0e})"
        rows.append([each["name"], each["dtype"], error, limit, *([each["sizes"]] if "sizes" in each else [])])
    return f"checked against ONNX Runtime on random inputs{where}\n" + table(rows, indent="  ")


# ---- libraries --------------------------------------------------------------------------------------------------


def description_text(about: Mapping[str, Any], nbytes: int) -> str:
    """What a library says of itself."""

    def spelled(tensor: Mapping[str, Any]) -> str:
        axes = zip(tensor.get("dims") or [-1] * len(tensor["shape"]), tensor["shape"], strict=True)
        sizes = [str(size) if number < 0 else about["dims"][number]["name"] for number, size in axes]
        return f"{tensor['name']}: {tensor['dtype']}[{'x'.join(sizes)}]"

    rows = [["model", about["name"]], ["target", about["target"]]]
    rows += [["needs", " ".join(about["features"]) or "the architecture's baseline"]]
    rows += [["compiler", about["compiler"]], ["build", about["build"]]]
    rows += [["input", spelled(each)] for each in about["inputs"]]
    rows += [["output", spelled(each)] for each in about["outputs"]]
    chosen = {True: ", as the data say", False: ""}
    for each in about.get("dims", []):
        rows.append(["open", f"{each['name']}, {each['low']} to {each['high']}{chosen[each.get('from_data', False)]}"])
    buckets = ["x".join(map(str, sizes)) for sizes in about.get("variants", []) if any(sizes)]
    rows += [["buckets", ", ".join(buckets)]] if buckets else []
    rows += [["library", size(nbytes)], ["weights", size(about["weights_bytes"])]]
    rows += [["arena", size(about["arena_bytes"])], ["scratch", f"{size(about['scratch_bytes'])} a thread"]]
    rows += [["calls", str(len(about["calls"]))]]
    return table(rows)


def output_facts(arrays: Mapping[str, np.ndarray], top: int) -> list[dict[str, Any]]:
    """Each output in a few numbers; with `top`, the largest of its first row and where they are."""
    import numpy as np

    facts = []
    for name, array in arrays.items():
        numbers = array.astype(np.float64) if array.size and array.dtype.kind not in "OSU" else None
        fact: dict[str, Any] = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        fact |= {"min": None, "max": None, "mean": None}
        if numbers is not None:
            fact |= {"min": float(numbers.min()), "max": float(numbers.max()), "mean": float(numbers.mean())}
        if top and numbers is not None:
            row = numbers.reshape(-1, numbers.shape[-1])[0] if numbers.ndim else numbers.reshape(1)
            order = np.argsort(-row, kind="stable")[:top]
            fact["top"] = [{"index": int(at), "value": float(row[at])} for at in order]
        facts.append(fact)
    return facts


def output_text(facts: Sequence[Mapping[str, Any]]) -> str:
    """One line an output, of the facts of `output_facts`, and the largest elements where there are any."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.6g}"

    rows = [["output", "type", "min", "max", "mean"]]
    for each in facts:
        kind = f"{each['dtype']}[{'x'.join(map(str, each['shape']))}]"
        rows.append([each["name"], kind, number(each["min"]), number(each["max"]), number(each["mean"])])
    text = table(rows, "<<>>>")
    for each in facts:
        if "top" in each:
            first = ", first row" if len(each["shape"]) > 1 else ""
            text += f"\nlargest of `{each['name']}`{first}\n"
            text += table(
                [["index", "value"]] + [[str(t["index"]), number(t["value"])] for t in each["top"]], ">>", "  "
            )
    return text
