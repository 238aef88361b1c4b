"""What a library says of itself, and what came out of it, as text and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncc.reports import table
from nncc.text import size

if TYPE_CHECKING:
    import numpy as np

__all__ = ["description_text", "output_facts", "output_text"]


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
