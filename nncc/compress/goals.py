"""What a pruning is for: so many multiplications fewer, so many bytes, so much predicted time; read from words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nncc.errors import TargetError, UsageError

if TYPE_CHECKING:
    from nncc.compress.parts import Analysis
    from nncc.compress.search import Term
    from nncc.layer_time import LayerTimes

__all__ = ["Goal", "goal_of", "latency", "size", "sparsity", "terms", "text"]

Kind = Literal["sparsity", "size", "latency"]

_UNITS = {
    "size": {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30},
    "latency": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
}


@dataclass(frozen=True)
class Goal:
    """`amount` is a part of the multiplications that go (0 to 1), bytes of all weights, or predicted seconds."""

    kind: Kind
    amount: float


def sparsity(word: str | float) -> float:
    """``50%`` or ``0.5``: the part of the multiplications that goes. UsageError for what is not between 0 and 1."""
    text_ = str(word).strip()
    try:
        part = float(text_.removesuffix("%")) / (100 if text_.endswith("%") else 1)
    except ValueError:
        part = math.nan
    if not 0 < part < 1:
        raise UsageError(
            f"`--sparsity {text_}` is no part of the model", "`50%` removes half of the multiplications; so does `0.5`"
        )
    return part


def size(word: str | float) -> float:
    """``2MB``, ``800KiB``, ``1500000``: bytes. UsageError for what is none."""
    return _amount("size", str(word), "for example `2MB`, `800KiB` or bytes, `1500000`")


def latency(word: str | float) -> float:
    """``8ms``, ``0.5s``, ``120us``: seconds. A number is seconds too. UsageError for what is none."""
    given = f"{word!r}s" if isinstance(word, float) else str(word)
    return _amount("latency", given, "for example `8ms`, `0.5s` or `120us`")


def _amount(kind: str, word: str, hint: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)\s*([a-z]*)", word.strip().lower())
    unit = _UNITS[kind].get(found[2]) if found else None
    amount = float(found[1]) * unit if found and unit else 0.0
    if not 0 < amount < math.inf:
        raise UsageError(f"`--{kind} {word.strip()}` is no {'time' if kind == 'latency' else 'size'}", hint)
    return amount


def goal_of(
    sparsity_: str | float | None, size_: str | float | None, latency_: str | float | None, max_drop: object
) -> Goal | None:
    """The goal that was given; None where `max_drop` alone is. UsageError for several, or nothing at all."""
    ways = {"sparsity": (sparsity_, sparsity), "size": (size_, size), "latency": (latency_, latency)}
    given = [name for name, (word, _) in ways.items() if word is not None]
    if len(given) > 1:
        raise UsageError(f"`--{given[0]}` and `--{given[1]}` are two goals", "give one of them")
    if not given:
        if max_drop is None:
            raise UsageError(
                "nothing says how much to prune",
                "`--sparsity 50%`, `--size 2MB` or `--latency 8ms`; or `--max-drop 1%` for as much as that allows",
            )
        return None
    word, read = ways[given[0]]
    assert word is not None
    return Goal(given[0], read(word))  # type: ignore[arg-type]


def terms(kind: Kind, analysis: Analysis, times: LayerTimes, target: str) -> list[Term]:
    """What adds up to the amount that a goal of this kind is about: what `--sparsity` is a part of, all that there is
    of it, bytes, or seconds. Raises TargetError where the target's peak, and so a time, is not known."""
    if kind == "size":
        return [part.left for part in analysis.nbytes]
    if kind == "sparsity":
        return [part.left for part in analysis.counted]
    if not times.hardware.peak_gflops:
        raise TargetError(
            f"target `{target}` does not say what its processor can do, so no time can be predicted",
            f"say it: `--target {target},peak_gflops=50,dram_gbps=10`; `nncc bench --profile` measures both",
        )
    return [lambda keep, cost=cost: cost.seconds(keep, times) for cost in analysis.costs]  # type: ignore[misc]


def text(kind: Kind, amount: float) -> str:
    """The amount for people, as the command line takes it."""
    if kind == "sparsity":
        return f"{amount * 100:.1f}%"
    if kind == "size":
        return f"{amount / 1e6:.3g}MB" if amount >= 1e5 else f"{amount / 1e3:.3g}KB"
    return f"{amount * 1e3:.3g}ms"
