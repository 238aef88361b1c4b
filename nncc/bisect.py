"""Which operator a compiled model first computes otherwise than ONNX Runtime, as a model of its own: `nncc compare
--bisect`.

The graph is cut behind one node after the other, by halving: what is before the cut is compiled and run, and the values
that cross the cut are compared. When the first bad cut is known, the nodes before it are compiled with ONNX Runtime's
values as inputs, first the last one alone, then more of them, since a fault may be one of operators that are fused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.config import Config
from nncc.errors import DataError, NnccError, OutputError
from nncc.ir import Model
from nncc.passes.part import boundary, part
from nncc.passes.rewriting import label

if TYPE_CHECKING:
    import numpy as np

    from nncc.verify import Comparison

__all__ = ["Culprit", "bisect", "write_culprit"]


@dataclass(frozen=True)
class Culprit:
    """The smallest part that was found to differ by itself."""

    model: Model
    nodes: tuple[tuple[str, str], ...]
    """Operator and name of each of its nodes, in order; the last one is where the whole model first differs."""
    position: int
    """Of the last one, counted from 1."""
    of: int
    """Nodes of the whole model."""
    inputs: Mapping[str, np.ndarray]
    """As ONNX Runtime computes them in the whole model."""
    expected: Mapping[str, np.ndarray]
    found: tuple[Comparison, ...]
    """The outputs, the good ones too; empty where it fails to compile or to run."""
    error: str = ""
    """Why it fails to compile or to run."""


def bisect(
    model: Model,
    config: Config,
    inputs: Mapping[str, np.ndarray],
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Culprit | None:
    """The culprit, or None where no output differs. `model` is an imported one; `config` says how it is compiled.

    Raises RunError where ONNX Runtime cannot run the model, DataError where no cut can be compared.
    """
    search = _Search(model, config, inputs, progress)
    cuts = search.cuts
    if not cuts:
        raise DataError(
            f"no part of `{model.name}` can be compared: the shapes of its values are not known",
            "give the shapes of all inputs with `--shape`",
        )
    if search.verdict(0, cuts[-1]).good:
        return None
    low, high = -1, len(cuts) - 1  # all is good behind cut `low`, not behind `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if search.verdict(0, cuts[middle]).good else (low, middle)
    last = cuts[high]
    starts = [0, *(cut for cut in cuts[: low + 1])]
    width = 1
    while True:
        first = starts[max(0, len(starts) - width)]
        verdict = search.verdict(first, last)
        if not verdict.good or first == 0:
            break
        width *= 2
    return search.culprit(first, last, verdict)


@dataclass(frozen=True)
class _Verdict:
    good: bool
    found: tuple[Comparison, ...] = ()
    error: str = ""


class _Search:
    """Compiles and compares parts of one model."""

    def __init__(
        self,
        model: Model,
        config: Config,
        inputs: Mapping[str, np.ndarray],
        progress: Callable[[int, int, str], None],
    ) -> None:
        self.model = model
        self.config = replace(config, until=None, save_stages=None, verify=False, lock=None, quantize=None)
        self.inputs = inputs
        self.progress = progress
        self.nodes = list(model.graph.graph)
        ends = range(1, len(self.nodes) + 1)
        self.cuts = [end for end in ends if boundary(model, self.nodes[:end]) is not None]
        """Numbers of nodes, before which the graph can be cut."""
        self._done = 0

    def part(self, first: int, last: int) -> Model | None:
        return part(self.model, self.nodes[first:last])

    def values(self, names: list[str]) -> dict[str, np.ndarray]:
        """Inner values of the whole model, as ONNX Runtime computes them."""
        from nncc.quant.probes import shown_name, with_outputs
        from nncc.verify import reference

        given = {name: self.inputs[name] for name in names if name in self.inputs}
        inner = [name for name in names if name not in given]
        if not inner:
            return given
        graph = replace(self.model, graph=with_outputs(self.model.graph, inner, dequantize=False))
        found = reference(graph, self.inputs, outputs=[shown_name(name) for name in inner])
        return given | {name: found[shown_name(name)] for name in inner}

    def verdict(self, first: int, last: int) -> _Verdict:
        """Of the nodes from `first` to before `last`, with ONNX Runtime's values as inputs."""
        from nncc.execute import open_library
        from nncc.pipeline import plan, run
        from nncc.verify import judge

        made = self.part(first, last)
        assert made is not None
        self.progress(self._done, max(self._done + 1, 2 * len(self.nodes).bit_length()), label(self.nodes[last - 1]))
        self._done += 1
        given = self.values([spec.name for spec in made.inputs])
        expected = self.values([spec.name for spec in made.outputs])
        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            config = replace(self.config, output=Path(folder) / "made", name="part")
            try:
                job = plan(Path(folder) / "part.onnx", config)
                artifact = run(job, after="import", value=replace(made, name="part"))
                library = open_library(artifact.library, threads=job.target.hardware.cores, target=job.target)
                actual = library.run(given)
            except NnccError as error:
                return _Verdict(False, error=error.message)
        found = tuple(judge(made, given, expected, actual, self.config.precision))
        return _Verdict(all(each.ok for each in found), found)

    def culprit(self, first: int, last: int, verdict: _Verdict) -> Culprit:
        made = self.part(first, last)
        assert made is not None
        return Culprit(
            made,
            tuple((node.op_type, label(node)) for node in self.nodes[first:last]),
            last,
            len(self.nodes),
            self.values([spec.name for spec in made.inputs]),
            self.values([spec.name for spec in made.outputs]),
            verdict.found,
            verdict.error,
        )


def write_culprit(culprit: Culprit, folder: Path) -> tuple[Path, Path, Path]:
    """Write ``culprit.onnx``, ``inputs.npz`` and ``expected.npz``, by name, into `folder`. Raises OutputError."""
    from nncc.frontend.proto import save
    from nncc.frontend.samples import write_outputs

    model, inputs, expected = folder / "culprit.onnx", folder / "inputs.npz", folder / "expected.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(culprit.model, model)
    except OSError as error:
        raise OutputError(f"cannot write to `{folder}`: {error.strerror or error}", "choose another folder") from error
    write_outputs(inputs, culprit.inputs)
    write_outputs(expected, culprit.expected)
    return model, inputs, expected
