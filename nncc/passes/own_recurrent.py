"""Recurrent layers become a matrix product over all steps, and one kernel that goes through them.

    recurrent(X, W, R, B, ..)  ->  loops(X W'^T + b', R', ..)

W', R' and b' are W, R and b with their rows in the order in which the kernel of `schedules/recurrent.py` takes them:
direction, block of units, gate, unit; units are filled up with zeros to whole blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.errors import ModelError
from nncc.kernels.recurrent_tiles import tile as tile_of
from nncc.operators.cells import GATES
from nncc.operators.recurrence import FUNCTION, Recurrence
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["own_recurrent"]


def own_recurrent(module: IRModule, context: Context) -> IRModule:
    """Rewrite the calls that `nncc.operators.recurrence` makes."""
    hardware = context.target.hardware

    def recurrent(rewriter: Rewriter, call: Any) -> Any:
        if str(getattr(call.args[0], "global_symbol", "")) != FUNCTION:
            return None
        if hardware.multiprocessors:
            raise ModelError(
                f"the model has recurrent layers, which cannot be compiled for `{context.target.name}` yet",
                "compile it for a processor: `nncc targets` lists targets",
            )
        layer = Recurrence.read(str(call.args[1].value))
        given = dict(zip(layer.operands, map(rewriter.value, call.args[2:]), strict=True))
        template = context.templates["recurrent"]
        gates = GATES[layer.kind]
        steps, batch, inputs = static_shape(given["x"])
        dtype, directions = str(given["x"].ty.dtype), len(layer.directions)
        tile = tile_of(layer, steps, batch, hardware, int(dtype.removeprefix("float")))
        blocks = -(-layer.hidden // tile.width)
        numbers = _Numbers(rewriter.builder)

        def by_units(value: Any, parts: int, columns: int) -> Any:
            """[D, parts * hidden, columns] -> [D, blocks, parts, width, columns]."""
            value = numbers.reshape(value, (directions, parts, layer.hidden, columns))
            value = numbers.pad(value, 2, blocks * tile.width - layer.hidden)
            value = numbers.reshape(value, (directions, parts, blocks, tile.width, columns))
            return numbers.transpose(value, (0, 2, 1, 3, 4))

        columns = directions * blocks * gates * tile.width
        weights = numbers.reshape(by_units(given["weights"], gates, inputs), (columns, inputs))
        by_columns = numbers.reshape(
            by_units(given["recurrent"], gates, layer.hidden),
            (directions, blocks, gates * tile.vectors, tile.lanes, layer.hidden),
        )
        panels = numbers.concat(
            [
                numbers.reshape(
                    numbers.transpose(numbers.part(by_columns, 2, first, end), (0, 1, 4, 2, 3)),
                    (directions, blocks, layer.hidden * (end - first) * tile.lanes),
                )
                for phase in tile.panels
                for first, end in phase
            ],
            2,
        )
        names, operands = [], []
        x = relax.op.reshape(given["x"], (steps * batch, inputs))
        x = rewriter.builder.emit(relax.op.matmul(rewriter.builder.emit(x), numbers.transpose(weights, (1, 0))))
        if "bias" in given:
            size = gates * layer.hidden
            first, second = (numbers.part(given["bias"], 1, at, at + size) for at in (0, size))
            if layer.kind == "GRU" and layer.linear_before_reset:  # that of R[h] is multiplied by r
                inside = numbers.part(second, 1, size - layer.hidden, size)
                names.append("bias")
                operands.append(numbers.reshape(by_units(inside, 1, 1), (directions, blocks * tile.width)))
                second = numbers.pad(numbers.part(second, 1, 0, size - layer.hidden), 1, layer.hidden)
            bias = numbers.reshape(by_units(numbers.add(first, second), gates, 1), (columns,))
            x = rewriter.builder.emit(relax.op.add(x, bias))
        x = rewriter.builder.emit(relax.op.reshape(x, (steps, batch, columns)))
        for name in ("lengths", "h", "c"):
            if name in given:
                names.append(name)
                operands.append(given[name])
        if "peepholes" in given:
            names.append("peepholes")
            by_gate = numbers.reshape(given["peepholes"], (directions, 3, layer.hidden))
            operands.append(numbers.pad(by_gate, 2, blocks * tile.width - layer.hidden))
        return rewriter.emit_anchor(
            template,
            x,
            panels,
            *operands,
            layer=layer,
            tile=tile,
            steps=steps,
            batch=batch,
            names=tuple(names),
        )

    return Rewriter({"relax.call_pure_packed": recurrent}).rewrite(module)


class _Numbers:
    """Arithmetic on what is known while compiling, in numpy, and on what is not, by operators."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def _either(self, values: Sequence[Any], known: Any, operator: Any) -> Any:
        if all(isinstance(value, GenericConst) for value in values):
            array = np.ascontiguousarray(known(*map(constant_array, values)))
            return relax.const(array, str(array.dtype))
        return self.builder.emit(operator(*values))

    def reshape(self, value: Any, shape: tuple[int, ...]) -> Any:
        return self._either([value], lambda a: a.reshape(shape), lambda x: relax.op.reshape(x, shape))

    def transpose(self, value: Any, axes: tuple[int, ...]) -> Any:
        return self._either([value], lambda a: a.transpose(axes), lambda x: relax.op.permute_dims(x, list(axes)))

    def pad(self, value: Any, axis: int, amount: int) -> Any:
        """`amount` zeros behind the last element of an axis."""
        if not amount:
            return value
        widths = [(0, amount if a == axis else 0) for a in range(len(value.ty.shape))]
        return self._either(
            [value], lambda a: np.pad(a, widths), lambda x: relax.op.nn.pad(x, [n for pair in widths for n in pair])
        )

    def part(self, value: Any, axis: int, begin: int, end: int) -> Any:
        return self._either(
            [value],
            lambda a: a.take(range(begin, end), axis),
            lambda x: relax.op.strided_slice(x, [axis], [begin], [end]),
        )

    def concat(self, values: Sequence[Any], axis: int) -> Any:
        return self._either(
            values, lambda *a: np.concatenate(a, axis), lambda *x: relax.op.concat(relax.Tuple(list(x)), axis)
        )

    def add(self, a: Any, b: Any) -> Any:
        return self._either([a, b], np.add, relax.op.add)
