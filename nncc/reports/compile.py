"""What `nncc compile` did, as text and for JSON: stages, sizes, the check against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncc.reports import duration, table
from nncc.reports.target import target_facts, target_line
from nncc.text import size

if TYPE_CHECKING:
    from nncc.instruments import Verify
    from nncc.ir import Artifact
    from nncc.target import Target

__all__ = ["compile_facts", "compile_text"]


def compile_facts(
    target: Target, seconds: Mapping[str, float], artifact: Artifact | None, toolchain: str, verify: Verify | None
) -> dict[str, Any]:
    """What `nncc compile --json` prints."""
    from nncc.reports.gpu import least_seconds

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
