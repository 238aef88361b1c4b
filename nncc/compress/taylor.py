"""What channels matter to first order, without labels: activations times gradients of the outputs.

Molchanov et al. 2019 (arXiv:1906.10771) rank a channel by the square of the change of the loss that its removal makes
to first order, the sum over its positions of activation times gradient. Calibration samples have no labels; here the
loss is v * y for outputs y and random signs v, of which the mean square is that of the change of all outputs (as in
Hutchinson 1990). A channel that goes is replaced by its mean, which a refit puts into the bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.compress.gradients import backward
from nncc.compress.tape import Tape
from nncc.errors import NnccError
from nncc.quant.measure import measured_values
from nncc.quant.prepare import raised
from nncc.quant.session import Session, open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies

__all__ = ["first_order"]

_MOST_SAMPLES = 64
_PROJECTIONS = 4
"""Random v for each sample."""


def first_order(
    graph: onnx_ir.Model, found: Dependencies, samples: Sequence[Mapping[str, np.ndarray]]
) -> np.ndarray | None:
    """By unit, the root of the mean square of the change of the outputs, relative to their norm; NaN for units of
    groups through which no gradient is known. None where the graph cannot be run so."""
    import numpy as np

    try:
        later = raised(graph, 13, 17)
        made = _made(later, found)
        session, outputs, known = _session(later, found, made)
        given = samples[:: max(1, -(-len(samples) // _MOST_SAMPLES))]
        names = [name for name, _, _ in made if name in known]
        if not names:
            return None
        means, products, slopes = _collect(open_graph(later, more=outputs), session, outputs, names, given)
    except NnccError:
        return None
    change = np.zeros((len(given) * _PROJECTIONS, found.count))
    unknown = np.zeros(found.count, bool)
    for name, _, units in made:
        if name not in known:
            unknown[units] = True
            continue
        mean = np.mean(means[name], axis=0)
        np.add.at(change.T, units, (np.array(products[name]) - mean * np.array(slopes[name])).T)
    importance = np.sqrt(np.square(change).mean(axis=0))
    for group in found.groups:
        if unknown[group.units].any():
            importance[group.units] = np.nan
    return importance


def _made(graph: onnx_ir.Model, found: Dependencies) -> list[tuple[str, int, np.ndarray]]:
    """The tensors in which prunable units are made, their axis and its units."""
    import numpy as np

    nodes = list(graph.graph)
    tensors = []
    for site in found.prunable_sites("makes"):
        name = str(nodes[site.node].outputs[0].name)
        for axis, units in found.axes.get(name, {}).items():
            if np.array_equal(units, site.units):
                tensors.append((name, axis, units))
    return tensors


def _session(
    graph: onnx_ir.Model, found: Dependencies, made: Sequence[tuple[str, int, np.ndarray]]
) -> tuple[Session, list[str], set[str]]:
    """What computes for each tensor of `made` its mean, and the sums of its products with its gradient and of the
    gradient; the outputs that v is multiplied with; the tensors whose gradient is known."""
    from onnx import TensorProto, helper

    outputs = [name for name in measured_values(graph) if name in found.shapes]
    tape = Tape(graph, found.shapes)
    for name in outputs:
        tape.proto.graph.input.append(helper.make_tensor_value_info(f"nncc/v/{name}", TensorProto.FLOAT, None))
    backward(tape, {name: f"nncc/v/{name}" for name in outputs})
    wanted = list(outputs)
    known = set()
    for name, axis, units in made:
        gradient = tape.of(name)
        if gradient is None:
            continue
        known.add(name)
        others = tape.ints(*(at for at in range(len(found.shapes[name])) if at != axis))
        count = tape.op("Div", tape.op("Size", name), tape.ints(len(units)))
        values = {
            "mean": tape.op("Div", tape.op("ReduceSum", name, others, keepdims=0), tape.op("Cast", count, to=1)),
            "product": tape.op("ReduceSum", tape.op("Mul", name, gradient), others, keepdims=0),
            "slope": tape.op("ReduceSum", gradient, others, keepdims=0),
        }
        for word, value in values.items():
            wanted.append(f"nncc/{word}/{name}")
            tape.proto.graph.node.append(helper.make_node("Identity", [value], [wanted[-1]]))
    del tape.proto.graph.output[:]
    for name in wanted:
        tape.proto.graph.output.add().name = name
    return Session(tape.proto.SerializeToString()), outputs, known


def _collect(
    forward: Session,
    session: Session,
    outputs: Sequence[str],
    names: Sequence[str],
    samples: Sequence[Mapping[str, np.ndarray]],
) -> list[dict[str, list[np.ndarray]]]:
    """By tensor, for each sample and v: means, products and slopes; v is divided by the norm of the outputs."""
    import numpy as np

    rng = np.random.default_rng(0)
    words = [f"nncc/{word}/{name}" for word in ("mean", "product", "slope") for name in names]
    rows: list[list[np.ndarray]] = []
    for sample in samples:
        values = forward.run(sample, outputs)
        norm = np.sqrt(sum(float(np.square(value.astype(np.float64)).sum()) for value in values))
        for _ in range(_PROJECTIONS):
            signs = [rng.choice([-1.0, 1.0], value.shape) / max(norm, 1e-30) for value in values]
            given = {f"nncc/v/{name}": each.astype(np.float32) for name, each in zip(outputs, signs, strict=True)}
            rows.append(session.run({**sample, **given}, words))
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [dict(zip(names, columns[at : at + len(names)], strict=True)) for at in range(0, len(columns), len(names))]
