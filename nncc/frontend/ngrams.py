"""TfIdfVectorizer of numbers: how often each of some short sequences is in a row, with gaps of equal length or without.

    count[row, g] = sum over gaps s and places p of  x[p] = g[0] and x[p + s + 1] = g[1] and ..

Its source is ONNX's docs/Operators.md; sequences of one number have no gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, number, sizes
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["tf_idf_vectorizer"]

MOST_RESULTS = 2**22
"""Sequences times elements of a row of the result: where each is counted is a table."""
MOST_GAPS = 256
"""Lengths of sequences times lengths of gaps: each becomes some operators."""


def tf_idf_vectorizer(node: onnx_ir.Node, opset: int) -> Definition:
    """Counts (TF), weights of what is there (IDF), or products of both (TFIDF), of float32."""
    import numpy as np

    shape, mode = sizes(node, 0), str(attribute(node, "mode", ""))
    first, last, most = (
        int(number(node, name, 0)) for name in ("min_gram_length", "max_gram_length", "max_skip_count")
    )
    pool, begins = attribute(node, "pool_int64s") or [], attribute(node, "ngram_counts") or []
    places = np.array(attribute(node, "ngram_indexes") or [], np.int64)
    if len(shape) not in (1, 2) or not pool or mode not in ("TF", "IDF", "TFIDF"):
        raise ModelError(f"{node_text(node)} counts sequences of something else than numbers, or by `{mode}`")
    lengths = list(range(1, len(begins) + 1))
    ends = [*begins[1:], len(pool)]
    whole = all(0 <= a <= b and (b - a) % n == 0 for a, b, n in zip(begins, ends, lengths, strict=True))
    grams = sum((b - a) // n for a, b, n in zip(begins, ends, lengths, strict=True)) if whole else -1
    if grams != places.size or not 1 <= first <= last <= len(begins) or most < 0 or places.min(initial=0) < 0:
        raise ModelError(f"{node_text(node)} has sequences that do not fit its `ngram_counts` and `ngram_indexes`")
    width = int(places.max(initial=0)) + 1
    if grams * width > MOST_RESULTS or (last - first + 1) * (most + 1) > MOST_GAPS:
        raise ModelError(
            f"{node_text(node)} has {grams} sequences for {width} results, and gaps of up to {most}: too many"
        )
    text = Text(opset)
    columns = shape[-1]
    rows = text.new(f"Reshape ({text.new('Cast <to = 7> (X)')}, {text.integers([-1, columns])})")
    counts: list[str] = []
    used: list[int] = []
    before = 0
    for a, b, n in zip(begins, ends, lengths, strict=True):
        table = np.array(pool[a:b], np.int64).reshape(-1, n)
        numbers = range(before, before + len(table))
        before += len(table)
        gaps = [s for s in range(most + 1 if n > 1 else 1) if columns > (n - 1) * (s + 1)]
        if not first <= n <= last or not gaps or not len(table):
            continue
        total = ""
        for gap in gaps:
            found = text.new(f"Cast <to = 1> ({_found(text, rows, table, gap + 1, columns)})")
            count = text.new(f"ReduceSum <keepdims = 0> ({found}, {text.integers([1])})")
            total = text.new(f"Add ({total}, {count})") if total else count
        counts.append(total)
        used += numbers
    result = [*shape[:-1], width]
    if not counts:
        text.let("Y", f"ConstantOfShape ({text.integers(result)})")
        return text.definition("X", "Y")
    where = np.zeros((len(used), width), np.float32)
    where[np.arange(len(used)), places[used]] = 1
    all_ = text.new(f"Concat <axis = 1> ({', '.join(counts)})")
    made = text.new(f"MatMul ({all_}, {text.tensor(where)})")
    weights = attribute(node, "weights")
    if weights and len(weights) != width:
        raise ModelError(f"{node_text(node)} has {len(weights)} weights for {width} results")
    if mode == "IDF":
        made = text.new(f"Cast <to = 1> ({text.new(f'Greater ({made}, {text.number(0.0)})')})")
    if mode != "TF" and weights:
        made = text.new(f"Mul ({made}, {text.tensor(np.array(weights, np.float32))})")
    text.let("Y", f"Reshape ({made}, {text.integers(result)})")
    return text.definition("X", "Y")


def _found(text: Text, rows: str, table: np.ndarray, step: int, columns: int) -> str:
    """[rows, places, sequences]: whether a row of `table` begins at a place, with an element every `step`."""
    length = table.shape[1]
    places = columns - (length - 1) * step
    found = ""
    for at in range(length):
        part = text.slice(rows, 1, at * step, at * step + places)
        part = text.new(f"Unsqueeze ({part}, {text.integers([2])})")
        same = text.new(f"Equal ({part}, {text.tensor(table[:, at].copy())})")
        found = text.new(f"And ({found}, {same})") if found else same
    return found
