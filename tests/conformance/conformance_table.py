"""Run ONNX's conformance cases and write down what came out.

    python tests/conformance/conformance_table.py [--only TEXT ...] [--known] [--processes N] [--target T] [--write]

Prints what differs from `expectations.txt`. With ``--write`` that file, and `docs/operators.md`, are written anew from
a run of all cases, or of some and what was known of others: with ``--only`` of those that have TEXT in their name or
that are of this operator, with ``--known`` of those that did not pass before.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves the folder of a script out

import onnx
from conformance_cases import KINDS, Case, cases
from conformance_runs import EXPECTATIONS, Verdict, expectations, run_cases

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
_LONGEST_REASON = 110


def _reason(verdict: Verdict) -> str:
    text = " ".join(verdict.text.split()).replace("`model`", "the model")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3].rstrip() + "..."


def expectations_text(found: Mapping[str, Verdict]) -> str:
    """The cases that do not pass, one a line."""
    lines = [
        f"# Cases of onnx {onnx.__version__} that do not pass: name, verdict, reason. All others do.",
        "# Written by conformance_table.py --write.",
    ]
    lines += [
        f"{name} {found[name].verdict} {_reason(found[name])}".rstrip()
        for name in cases()
        if name in found and found[name].verdict != "passed"
    ]
    return "\n".join(lines) + "\n"


def page_text(found: Mapping[str, Verdict]) -> str:
    """The page about operators: how many cases of each pass, and why others do not."""
    total = {kind: Counter[str]() for kind in KINDS if kind != "light"}  # large models, tests of their own
    rows: dict[str, list[tuple[Case, Verdict]]] = defaultdict(list)
    for name, case in cases().items():
        verdict = found.get(name, Verdict(name, "passed"))
        if case.kind in total:
            total[case.kind][verdict.verdict] += 1
        if case.kind == "node":
            rows[case.operator].append((case, verdict))
    lines = [
        "# Operators",
        "",
        f"ONNX's own conformance cases (onnx {onnx.__version__}) as nncc compiles and runs them on the processor:",
        "types and shapes equal, integers exact, real numbers within 1e-3 relative or 1e-5 absolute, or as it says;",
        "bfloat16 within 2^-6, two of its steps, as onnx's own runner has it.",
        "An input that decides a shape is bound (`--bind NAME=values`) where the compiler asks for it. A case that is",
        "refused ends in an error that says why; wrong values, other failures, crashes and hangs are defects.",
        "",
        "`tests/conformance/conformance_table.py --write` writes this page; `tests/conformance/expectations.txt` has",
        "every case that does not pass.",
        "",
        "| set | cases | passed | refused | defects |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, counts in total.items():
        defects = counts.total() - counts["passed"] - counts["refused"]
        lines.append(f"| {kind} | {counts.total()} | {counts['passed']} | {counts['refused']} | {defects} |")
    lines += ["", "The node cases by operator:", "", "| operator | passed | refused | defects | for example |"]
    lines.append("|---|---:|---:|---:|---|")
    for operator, row in sorted(rows.items()):
        counts = Counter(verdict.verdict for _, verdict in row)
        defects = counts.total() - counts["passed"] - counts["refused"]
        why = next((f"`{v.name}`: {_reason(v)}" for _, v in row if v.verdict != "passed"), "").replace("|", "\\|")
        lines.append(f"| {operator} | {counts['passed']} | {counts['refused']} | {defects} | {why} |")
    return "\n".join(lines) + "\n"


def _run(names: list[str], processes: int, target: str) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}

    def part(some: Iterable[str]) -> None:
        for verdict in run_cases(list(some), target):
            found[verdict.name] = verdict

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(part, [names[at::processes] for at in range(processes)]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[""], metavar="TEXT")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--known", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--target", default="native")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names = [
        name
        for name, case in cases().items()
        if case.kind in options.kinds and any(text in name or text == case.operator for text in options.only)
    ]
    before = expectations() if EXPECTATIONS.exists() else {}
    names = [name for name in names if not options.known or name in before]
    found = _run(names, options.processes, options.target)
    for name in names:
        was = before.get(name, Verdict(name, "passed")).verdict
        if found[name].verdict != was or (options.only != [""] and found[name].verdict != "passed"):
            print(f"{name}: {found[name].verdict} (was {was}) {found[name].text[:300]}")
    print(dict(Counter(verdict.verdict for verdict in found.values())))
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        known = (expectations() if EXPECTATIONS.exists() else {}) | found  # another run may have written meanwhile
        EXPECTATIONS.write_text(expectations_text(known), encoding="utf-8")
        PAGE.write_text(page_text(known), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
