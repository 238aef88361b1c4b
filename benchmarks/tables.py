"""The tables of README and docs/measurements.md, made from `benchmarks/results`: times, what compiling takes, tuning,
instructions on Arm, accuracy, agreement with ONNX Runtime."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from models import models

RESULTS = Path(__file__).resolve().parent / "results"
PAGES = ("README.md", "docs/measurements.md")
"""What has tables, from the folder of the project."""
COUNTS = "arm64-counts.jsonl"
"""The file of `count.py`."""
TUNING = "tuning.jsonl"
"""The file of `tune.py`."""
ACCURACY = "accuracy.jsonl"
"""The file of `accuracy.py`."""
GPU = "gpu.jsonl"
"""The file of `gpu.py`."""
SPARSE = "sparse.jsonl"
"""The file of `sparse.py`."""
DYNAMIC = "dynamic.jsonl"
"""The file of `dynamic.py`."""
OPERATORS = "operators.jsonl"
"""The file of `operators.py`."""
AGREEMENT = "agreement.jsonl"
"""The file of `agreement.py`."""
START, END = "<!-- table: {} -->", "<!-- end of table -->"
"""What a table of a page stands between."""

Row = Mapping[str, Any]


def with_tables(page: str, results: Path = RESULTS) -> str:
    """A page's text with the tables that it has made anew; the newest row of a model counts.

    ValueError for a place whose table there is not, or that has no end.
    """
    measured = [
        row
        for path in sorted(results.glob("*.jsonl"))
        if path.name not in (COUNTS, TUNING, ACCURACY, GPU, SPARSE, DYNAMIC, OPERATORS, AGREEMENT)
        for row in rows(path)
    ]
    tables = {
        "speed": speed(measured),
        "times": times(measured),
        "compile": compile_cost(measured),
        "tuning": tuning(rows(results / TUNING)),
        "counts": counts(rows(results / COUNTS)),
        "accuracy": accuracy(rows(results / ACCURACY)),
        "gpu": gpu(rows(results / GPU)),
        "sparse": sparse(rows(results / SPARSE)),
        "agreement": agreement(rows(results / AGREEMENT)),
    }
    for name in re.findall(START.format("(.*)"), page):
        before, start, rest = page.partition(START.format(name))
        if name not in tables or END not in rest:
            known = ", ".join(tables)
            raise ValueError(f"there is `{start}`, and no `{END}` behind it, or not one of the tables {known}")
        page = f"{before}{start}\n{tables[name]}{END}{rest.partition(END)[2]}"
    return page


def rows(path: Path) -> list[Row]:
    """The rows of a file, none if there is no file; ValueError for a line that is not a row."""
    found = []
    for number, text in enumerate(path.read_text().splitlines() if path.is_file() else [], start=1):
        try:
            row = json.loads(text)
            found.append(row | {"model": row["model"]})
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise ValueError(f"{path.name}, line {number} is not a row of results: delete it") from error
    return found


def speed(measured: Iterable[Row]) -> str:
    """How many times as long as nncc the best peer takes: a line for each model, a column for each way to run it.

    Peers count that keep to the instruction set. Ways in which there are none have no column.
    """
    found: dict[str, dict[str, float]] = {}
    for title, group in _sections(measured).items():
        best = {row["model"]: _best(row, without=row.get("unlimited", ())) for row in group}
        if known := {model: ratio for model, ratio in best.items() if ratio}:
            found[title] = known
    if not found:
        return ""
    out = [f"{number}. {title}" for number, title in enumerate(found, start=1)]
    out += ["", *_head("best peer / nncc", *(str(number) for number in range(1, len(found) + 1)))]
    for model in dict.fromkeys(model for known in found.values() for model in known):
        out.append(_line(model, *(f"{known[model]:.2f}" if model in known else "" for known in found.values())))
    means = (statistics.geometric_mean(known.values()) for known in found.values())
    return _text([*out, _line("geometric mean", *(f"{mean:.2f}" for mean in means)), ""])


def _best(row: Row, without: Iterable[str] = ()) -> float | None:
    """The best peer's time over nncc's, None where no peer ran."""
    ratios = (middle for who, (_, middle, _) in row["ratios"].items() if who not in {"nncc-float", *without})
    return min(ratios, default=None)


def times(measured: Iterable[Row]) -> str:
    """A table for each processor, instruction set and number of threads."""
    out = []
    for title, group in _sections(measured).items():
        peers = sorted({peer for row in group for peer in row["ratios"] if peer != "nncc-float"})
        unlimited = {peer for row in group for peer in row.get("unlimited", [])}
        heads = [peer + " \\*" * (peer in unlimited) for peer in peers]
        precision = _precision(group[0])
        own = ["nncc float32 / nncc"] if precision != "float32" else []
        heads = ["nncc", *heads, "best peer / nncc", *own]
        out += [f"{title}, milliseconds (median):", "", *_head("model", *heads)]
        best, gains = [], []
        for row in group:
            gain = row["ratios"]["nncc-float"][1] if "nncc-float" in row["ratios"] else None
            ratio = _best(row)
            best += [ratio] if ratio else []
            gains += [gain] if gain else []
            cells = [f"{row['milliseconds'][who]:.3g}" if who in row["milliseconds"] else "" for who in peers]
            last = [f"{value:.2f}" if value else "" for value in (ratio, gain)][: 1 + len(own)]
            out.append(_line(row["model"], f"{row['milliseconds']['nncc']:.3g}", *cells, *last))
        if best:
            means = [f"{statistics.geometric_mean(values):.2f}" for values in (best, gains) if values]
            out.append(_line("geometric mean", *[""] * (len(peers) + 1), *means))
        out.append("")
        if unlimited:
            out += ["\\* has no switch for its instruction set: it may use all that the processor has.", ""]
    return _text(out)


def compile_cost(measured: Iterable[Row]) -> str:
    """A table for each processor and instruction set, from the rows of one thread."""
    out = []
    costs = (row for row in measured if row["threads"] == 1 and "compile" in row and _precision(row) == "float32")
    for title, group in _sections(costs).items():
        out += [f"Compile time, memory, size. {title.removesuffix(', float32')}:", ""]
        out += _head("model", "seconds", "peak memory, MiB", "library, MiB")
        for row in group:
            cost = row["compile"]
            mib = cost["library_bytes"] / 2**20
            out.append(_line(row["model"], f"{cost['seconds']:.1f}", f"{cost['peak_mib']:.0f}", f"{mib:.2f}"))
        out.append("")
    return _text(out)


def counts(counted: Iterable[Row]) -> str:
    """A table for each processor that was emulated."""
    known = {name: entry.get("mnn_arm64_millions") for name, entry in models().items()}
    out = []
    for cpu, group in _newest(counted, lambda row: row["cpu"]).items():
        cached = any(row["counts"]["accesses"] for row in group)
        out += [f"Instructions per inference, {cpu} code under qemu (counts, not times), in millions:", ""]
        misses = ("L1 misses", "L2 misses") if cached else ()
        out += _head("model", "instructions", "FMLA", "share", *misses, "MNN", "MNN's FMLA", "MNN / nncc")
        for row in group:
            all_, fmla = (row["counts"][name] / 1e6 for name in ("instructions", "fmla"))
            cells = [f"{all_:.1f}", f"{fmla:.1f}", f"{100 * fmla / all_:.0f} %"]
            if cached:
                seen = row["counts"]["accesses"]
                cells += [f"{row['counts'][name] / 1e6:.2f}" if seen else "" for name in ("l1_misses", "l2_misses")]
            mnn = known.get(row["model"])
            others = (
                [f"{mnn['instructions']}", f"{mnn['fmla']}", f"{mnn['instructions'] / all_:.2f}"] if mnn else [""] * 3
            )
            out.append(_line(row["model"], *cells, *others))
        out.append("")
    return _text(out)


def accuracy(scored: Iterable[Row]) -> str:
    """One table of the newest row of each labelled set."""
    newest = {row["set"]: row for row in scored}
    if not newest:
        return ""
    out = _head("model", "samples", "score", "float32", "int8", "compiled", "int8 multiply-adds", "file")
    for row in newest.values():
        scores = [f"{row['scores'][kind]:.4f}" if kind in row["scores"] else "" for kind in _SCORES]
        size = f"{row['bytes'][0] / row['bytes'][1]:.1f} times smaller"
        out.append(
            _line(row["model"], f"{row['samples']}", row["metric"], *scores, f"{100 * row['int8_macs']:.0f} %", size)
        )
    return _text(out)


def agreement(compared: Iterable[Row]) -> str:
    """A table for each processor and target."""

    def title(row: Row) -> str:
        return row["processor"] if row["target"] == "native" else f"{row['processor']}, {row['target']} code"

    def apart(found: Row) -> str:
        if not found["in_steps"]:
            return f"{found['most']:.1e} of the largest" if found["most"] else "0"
        return f"{round(found['most'])} ({found['differing']:,})" if found["differing"] else "0"

    def each(found: Row) -> str:
        return f"{found['most']} ({found['differing']:,} of {found['elements']:,})" if found["differing"] else "0"

    out = []
    for name, group in _newest(compared, title).items():
        out += [f"{name}, steps of the output's scale at most (elements that differ):", ""]
        heads = ("nncc from ONNX Runtime", "nncc from it without optimizations", "it from itself without those")
        heads += ("it from itself, inputs one step of float32 larger", "nncc from it, each rounding alone")
        out += _head("model", "quantized as", "runs", "elements", *heads)
        for row in group:
            runs = f"{row['random']} random" + f", {row['real']} real" * bool(row["real"])
            found = [apart(row[kind]) for kind in ("default", "plain", "between")]
            found += (
                [apart(row["shaken"]) if row["real_inputs"] else "", each(row["alone"])] if "alone" in row else [""] * 2
            )
            how = row["form"] + (f", by {row['by']}" if row.get("by") else "")
            how += "; ONNX Runtime takes int8 as it is" if row.get("int8") else ""
            out.append(_line(row["model"], how, runs, f"{row['default']['elements']:,}", *found))
        out.append("")
    return _text(out)


def gpu(measured: Iterable[Row]) -> str:
    """A table for each GPU, target and precision; models that failed are in none."""

    def title(row: Row) -> str:
        return f"{row['gpu']}, {row['target']}, {row.get('precision', 'float32')}"

    out = []
    for name, group in _newest((row for row in measured if "error" not in row), title).items():
        peers = list(dict.fromkeys(who for row in group for who in row["milliseconds"] if who != "nncc"))
        out += [f"{name}, milliseconds of one inference (median), inputs and outputs in its memory:", ""]
        out += _head("model", "nncc", *peers, "best peer / nncc", "library, MiB")
        best = []
        for row in group:
            ratio = min((middle for _, middle, _ in row["ratios"].values()), default=None)
            best += [ratio] if ratio else []
            times = [
                f"{row['milliseconds'][who]:.3f}" if who in row["milliseconds"] else "" for who in ("nncc", *peers)
            ]
            size = f"{row['library_bytes'] / 2**20:.1f}"
            model = row["model"] if row.get("compared", True) else f"{row['model']} \\*"
            out.append(_line(model, *times, f"{ratio:.2f}" if ratio else "", size))
        if best:
            mean = f"{statistics.geometric_mean(best):.2f}"
            out.append(_line("geometric mean", *[""] * (len(peers) + 1), mean, ""))
        if not all(row.get("compared", True) for row in group):
            out += ["", "\\* with made-up weights: timed, and not compared."]
        out.append("")
    return _text(out)


def sparse(measured: Iterable[Row]) -> str:
    """A table for each processor and target: kernels that skip zeros over dense ones, by how many blocks are zero.

    `dense` is where zeros are not skipped, because that is predicted to take longer."""

    def title(row: Row) -> str:
        return row["processor"] if row["target"] == "native" else f"{row['processor']}, {row['target']} code"

    out = []
    for name, group in _newest(measured, title).items():
        shares = list(group[0]["ratios"])
        out += [f"{name}, 1 thread: dense kernel, milliseconds (median); its time over that with zeros skipped:", ""]
        heads = [f"{100 * float(share):.0f} % zeros" for share in shares]
        out += _head("layer", "dense", "ms", *heads, "70 %, whole", "70 %, over direct")
        for row in group:
            times, ratios = row["milliseconds"], row["ratios"]
            cells = [
                "{1:.2f} ({0:.2f}-{2:.2f})".format(*ratios[share]) if "sparse" in row["ways"][share] else "dense"
                for share in shares
            ]
            skips = "sparse" in row["ways"]["0.7"]
            direct = f"{times['direct'] / times['0.7']:.2f}" if "direct" in times and skips else ""
            last = f"{row['whole_ratios']['0.7'][1]:.2f}" if skips else "", direct
            out.append(_line(row["model"], row["ways"]["dense"], f"{times['dense']:.3g}", *cells, *last))
        out.append("")
    return _text(out)


_SCORES = ("float32", "int8", "compiled")


def tuning(tuned: Iterable[Row]) -> str:
    """A table for each processor, target and number of threads."""

    def title(row: Row) -> str:
        code = "" if row["target"] == "native" else f"{row['target']}, "
        return f"{row['processor']}, {code}{row['threads']} thread{'s' * (row['threads'] > 1)}"

    out = []
    for name, group in _newest(tuned, title).items():
        out += [f"{name}, float32, milliseconds (median):", ""]
        out += _head("model", "no records", "tuned", "gain (95 %)", "budget", "trials", "of the roofline")
        for row in group:
            default, after = (f"{row['milliseconds'][which]:.3g}" for which in ("default", "tuned"))
            gain = "none"
            if row["ratio"]:
                low, middle, high = (100 * (1 / ratio - 1) for ratio in reversed(row["ratio"]))
                gain = f"{middle:.1f} % ({low:.1f} to {high:.1f})"
            roofline = f"{100 * row['roofline']:.0f} %" if row["roofline"] else ""
            out.append(_line(row["model"], default, after, gain, row["budget"], str(row["trials"]), roofline))
        out.append("")
    return _text(out)


def _sections(measured: Iterable[Row]) -> dict[str, list[Row]]:
    """The newest rows of each processor, precision, instruction set and number of threads, in this order, by title."""

    def key(row: Row) -> tuple[str, str, str, int]:
        return (
            row["processor"],
            _precision(row),
            f"{row['isa'].upper()} code ({row['target']})" if row.get("isa") else "",
            row["threads"],
        )

    found = {}
    for (processor, precision, code, threads), group in _newest(measured, key).items():
        words = [processor, code, f"{threads} thread{'s' * (threads > 1)}", precision]
        found[", ".join(filter(None, words))] = group
    return found


def _precision(row: Row) -> str:
    return str(row.get("precision", "float32"))


def _newest(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """The newest row of each model, in groups by `key`, sorted by it."""
    groups: dict[Any, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(key(row), {})[row["model"]] = row
    return {each: list(groups[each].values()) for each in sorted(groups)}


def _head(first: str, *others: str) -> list[str]:
    return [_line(first, *others), f"|---|{'---:|' * len(others)}"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
