"""Sensitivity as a picture: what a model loses by each group of channels, or by each layer in int8. Needs matplotlib,
the extra ``nncc[plot]``. Drawn is what the reports of `nncc prune` and `nncc quantize` say as JSON."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import ToolError, UsageError
from nncc.quant.request import check_folder
from nncc.reports import clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_plot", "decibels", "plot_groups", "plot_layers"]

_KINDS = (".svg", ".png")
_PANELS = 12
"""Groups with a panel of their own, those that lose most; the curves of the others are grey in all panels."""
_BARS = 40
"""Layers with a bar, those that lose most."""
_LEAST_DB = -100.0
"""Errors below this are none, and drawn here."""
_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#c8c8c8"
_SETTINGS: Any = {"svg.hashsalt": "nncc", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class _Curve:
    """Of a group: percent of its channels that go, and the error that is left, in decibels."""

    name: str
    points: tuple[tuple[float, float], ...]
    chosen: tuple[float, float] | None


def check_plot(path: Path) -> None:
    """Refuse early what could not be drawn late: UsageError, OutputError, or ToolError where matplotlib is missing."""
    if path.suffix.lower() not in _KINDS:
        raise UsageError(
            f"`--plot {path}` is no kind of picture", f"name a file `{path.stem}.svg` or `{path.stem}.png`"
        )
    check_folder(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise ToolError("`--plot` draws with matplotlib, which is not installed", "`pip install 'nncc[plot]'`")


def decibels(loss: float) -> float:
    """Noise over signal, a ratio of powers, in dB: 0.01 is -20; no error is -100."""
    return max(_LEAST_DB, 10 * math.log10(loss)) if loss > 0 else _LEAST_DB


def plot_groups(facts: Mapping[str, Any], path: Path) -> None:
    """Draw the curves of `nncc.reports.prune.prune_facts`: error of the outputs, in dB, against the part of a group
    that goes, of each group pruned alone; where a group was pruned, a ring says how far.

    An SVG has the same bytes for the same facts and the same release of matplotlib. Raises OutputError.
    """
    curves = sorted(_curves(facts), key=lambda curve: -curve.points[-1][1])
    shown, rest = curves[:_PANELS], curves[_PANELS:]
    columns = max(1, min(4, len(shown)))
    rows = max(1, -(-len(shown) // columns))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for at, axes in enumerate(panels.flat):
            if at >= len(shown):
                axes.set_axis_off()
                continue
            for other in rest:
                axes.plot(*zip(*other.points, strict=True), color=_GREY, linewidth=0.6)
            _panel(axes, shown[at])
            if at + columns >= len(shown):
                axes.set_xlabel("removed, %")
                axes.tick_params(labelbottom=True)
            if at % columns == 0:
                axes.set_ylabel("error, dB")
        others = f", the {len(rest)} others in grey" if rest else ""
        figure.suptitle(f"Error of the outputs, one group pruned alone; rings: what was chosen{others}")

    _save(path, (2.6 * columns + 1, 2.0 * rows + 0.6), draw)


def _curves(facts: Mapping[str, Any]) -> list[_Curve]:
    found = []
    for group in facts["groups"]:
        points = [(100 * float(part), decibels(loss)) for part, loss in group["loss"].items()]
        if points:
            chosen = group["chosen"]
            at = None if chosen is None else (100 * chosen["part"], decibels(chosen["loss"]))
            found.append(_Curve(group["name"], tuple(points), at))
    return found


def _panel(axes: Axes, curve: _Curve) -> None:
    axes.plot(*zip(*curve.points, strict=True), color=_BLUE, marker="o", markersize=3, linewidth=1.2)
    if curve.chosen is not None:
        axes.plot(*curve.chosen, color=_RED, marker="o", markersize=8, fillstyle="none", linestyle="none")
    axes.set_title(_verbatim(clipped(curve.name, 30)), fontsize=8)
    axes.set_xlim(0, 100)
    axes.grid(True, linewidth=0.3)


def plot_layers(lost: Mapping[str, float], floats: Sequence[str], unit: str, path: Path) -> None:
    """Draw what a model loses by each layer, the only one in int8: bars, those of `floats`, which stay float, in red.

    `unit` is ``dB``, of noise over signal, or ``score``. An SVG has the same bytes for the same numbers and the same
    release of matplotlib. Raises OutputError.
    """
    order = sorted(lost, key=lambda name: (-lost[name], name))[:_BARS]
    values = [decibels(lost[name]) if unit == "dB" else lost[name] for name in order]
    base = min(values) - 3 if unit == "dB" and values else 0.0

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colours = [_RED if name in floats else _BLUE for name in order]
        axes.barh(range(len(order)), [value - base for value in values], left=base, color=colours, height=0.7)
        axes.set_yticks(range(len(order)), [_verbatim(clipped(name, 40)) for name in order])
        axes.invert_yaxis()
        axes.set_xlabel("error of the outputs, dB" if unit == "dB" else "score that is lost")
        axes.grid(True, axis="x", linewidth=0.3)
        most = f"; the worst {len(order)} of {len(lost)}" if len(lost) > len(order) else ""
        figure.suptitle(f"One layer alone in int8; red: stays float{most}")

    _save(path, (6.5, 0.18 * len(order) + 1.2), draw)


def _verbatim(name: str) -> str:
    """A name is not mathematics to matplotlib."""
    return name.replace("$", r"\$")


def _save(path: Path, inches: tuple[float, float], draw: Any) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from nncc.whole_files import write_whole

    kind = path.suffix.lower().removeprefix(".")
    # What would differ from day to day, or with the release, is left out of the file.
    about: dict[str, str | None] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # people's own settings do not change the picture
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        write_whole(
            path,
            lambda file: figure.savefig(file, format=kind, dpi=150, metadata=about),
            hint="choose another place with `--plot`",
        )
