"""Recurrent layers: all time steps in one kernel, weights read once a step for all sequences of a batch.

    a[g] = x[t, g] + R[g] h            for each gate g; x[t] = W X[t] + b for all t is a matrix product before

and what the gates do to the state is in `nncc/operators/cells.py`.

A block is `vectors` vectors of units with all their gates. Its sums come in register tiles of `rows` sequences x some
of the block's columns, [gate, vector]: many sequences, so that weights are read once for many of them. `R` is laid out
so that a tile reads one stream, [direction, block, columns of a tile, k, column, lane]; x has its columns in the order
[t, batch, direction, block, gate, unit]. Directions, and parts of the batch, are spread over threads; where there are
fewer of them than threads, and steps that are long enough, the blocks of a step are.
"""

from dataclasses import dataclass, replace
from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels.recurrent_tiles import phases
from nncc.operators.cells import CELLS, GATES, Block

NAME = "recurrent"
_CHAINS = 4
"""Vectors whose activations are computed side by side, each a chain of operations that wait for each other."""


def compute(x, weights, *operands, layer, tile, steps, batch, names):
    """Define Y[steps, D, batch, hidden], the last h [D, batch, hidden] and, of an LSTM, the last c.

    `x` is [steps, batch, D * blocks * gates * width] and `weights` [D, blocks, gates * width * hidden], of float32 or
    float64. `layer` says what is computed (`nncc.operators.recurrence.Recurrence`). The `operands` are called by
    `names`, in this order: "lengths" [batch] (int32; those beyond 0 .. steps are taken for the nearest), "h" and "c"
    [D, batch, hidden], "peepholes" [D, 3, hidden'] for i, o and f, "bias" [D, hidden'] of a GRU's R[h]; hidden' is
    that of whole blocks.
    """
    given = dict(zip(names, operands, strict=True))
    dtype, directions = x.dtype, len(layer.directions)
    state = (directions, batch, layer.hidden)
    outputs = [(steps, *state), state] + [state] * (layer.kind == "LSTM")

    def body(ins, outs):
        arguments = dict(zip(("x", "weights", *given), ins, strict=True))
        return _Loops(layer, tile, steps, batch, dtype, arguments, outs).all()

    gates = GATES[layer.kind]
    attrs = {
        **scheduling.anchor(NAME),
        scheduling.FLOPS: 2 * gates * layer.hidden * layer.hidden * steps * batch * directions,
        "nncc.tile": f"tile {tile.rows}x{max(end - begin for phase in tile.panels for begin, end in phase)}",
    }
    return te.extern(outputs, [x, weights, *operands], body, name=NAME, dtype=[dtype] * len(outputs), attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Nothing is left to do: the loops are made with the tile, by which the weights are laid out."""
    return [block], str(sch.get(block).annotations["nncc.tile"])


def _in_turn(statements):
    """One statement of several; TVM has no sequence of one."""
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)


def _int(value):
    return tirx.const(value, "int32")


def _loop(extent, body, kind=tirx.ForKind.SERIAL):
    variable = tirx.Var("i", "int32")
    return tirx.For(variable, _int(0), _int(extent), kind, body(variable))


def _tiles(total, size, body):
    """Statements that go through `total` rows: `body(begin, rows)` for `size` at once, and for those that are left."""
    whole, rest = divmod(total, size)
    statements = [_loop(whole, lambda number: body(number * size, size))] if whole else []
    return [*statements, body(_int(whole * size), rest)] if rest else statements


@dataclass(frozen=True)
class _Part:
    """Sequences of one direction, from the number `first` on, and their state, [rows of the part, hidden']; that of h
    twice, the old one at `old` and the new one at `new`, once a step is known."""

    direction: int
    first: object
    h: object
    c: object
    reset: object
    step: object = None
    old: object = None
    new: object = None


class _Loops:
    """The statements of one kernel."""

    def __init__(self, layer, tile, steps, batch, dtype, arguments, outputs):
        self.layer, self.tile, self.steps, self.batch, self.dtype = layer, tile, steps, batch, dtype
        self.given, self.outputs = arguments, outputs
        self.gates = GATES[layer.kind]
        self.blocks = -(-layer.hidden // tile.width)
        self.padded = self.blocks * tile.width
        self.rows = -(-batch // tile.parts)
        self.zero = tirx.const(0.0, dtype)

    def all(self):
        """Parts of the batch, for each direction; a last part that would not be full begins earlier."""
        directions, parts = len(self.layer.directions), self.tile.parts

        def part(direction, number):
            return self.part(direction, tirx.min(number * self.rows, self.batch - self.rows))

        def either(number):
            if directions == 1:
                return part(0, number)
            return tirx.IfThenElse(number < parts, part(0, number), part(1, number - parts))

        kind = tirx.ForKind.PARALLEL if self.tile.parallel == "parts" else tirx.ForKind.SERIAL
        return _loop(directions * parts, either, kind)

    def vector(self, body):
        """A statement for each lane of a vector."""
        return _loop(self.tile.lanes, body, tirx.ForKind.VECTORIZED)

    def buffer(self, *shape):
        return tirx.decl_buffer((prod(shape),), self.dtype, name="tile")

    def part(self, direction, first):
        """All steps of some sequences."""
        rows, padded = self.rows, self.padded
        lstm = self.layer.kind == "LSTM"
        h = self.buffer(2, rows, padded)
        c = self.buffer(rows, padded) if lstm else None
        reset = self.buffer(rows, padded) if len(self.tile.panels) > 1 else None
        part = _Part(direction, first, h, c, reset)
        statements = [tirx.AllocBuffer(buffer) for buffer in (h, c, reset) if buffer is not None]
        for name, buffer in (("h", h), ("c", c)):
            if buffer is not None:
                statements.append(_loop(rows, lambda row, n=name, b=buffer: self.start(n, b, part, row)))
        statements.append(_loop(self.steps, lambda step: self.step(part, step)))
        last = self.steps % 2 * rows * padded
        statements.append(_loop(rows, lambda row: self.finish(self.outputs[1], part, row, h, last)))
        if lstm:
            statements.append(_loop(rows, lambda row: self.finish(self.outputs[2], part, row, c, 0)))
        return _in_turn(statements)

    def start(self, name, buffer, part, row):
        """A row of the state before the first step, zeros behind it."""
        hidden, padded = self.layer.hidden, self.padded
        at, parts = row * padded, []
        if name in self.given:
            initial = self.given[name]
            sequence = part.first + row
            parts.append(
                _loop(hidden, lambda i: tirx.BufferStore(buffer, initial[part.direction, sequence, i], [at + i]))
            )
        done = hidden if name in self.given else 0
        if padded > done:
            parts.append(_loop(padded - done, lambda i: tirx.BufferStore(buffer, self.zero, [at + (i + done)])))
        return _in_turn(parts)

    def finish(self, output, part, row, buffer, at):
        """A row of the state becomes one of an output; zeros where a sequence has no step, as in ONNX Runtime."""
        sequence = part.first + row

        def store(i):
            value = buffer[at + row * self.padded + i]
            if "lengths" in self.given:
                value = tirx.Select(self.given["lengths"][sequence] > 0, value, self.zero)
            return tirx.BufferStore(output, value, [part.direction, sequence, i])

        return _loop(self.layer.hidden, store)

    def time(self, part, row):
        """(which step of x and Y this one is, whether it belongs to the sequence; None where all do)."""
        time, run = part.step, None
        reverse = self.layer.directions[part.direction] == "reverse"
        if reverse:
            time = self.steps - 1 - part.step
        if "lengths" in self.given:
            length = tirx.max(tirx.min(self.given["lengths"][part.first + row], _int(self.steps)), _int(0))
            run = part.step < length
            if reverse:
                time = tirx.Select(run, length - 1 - part.step, part.step)
        return time, run

    def step(self, part, step):
        """One time step of a part: h at `new` of h at `old`."""
        size = self.rows * self.padded
        part = replace(part, step=step, old=step % 2 * size, new=(1 - step % 2) * size)
        kind = tirx.ForKind.PARALLEL if self.tile.parallel == "blocks" else tirx.ForKind.SERIAL
        parts = zip(phases(self.layer), self.tile.panels, strict=True)
        statements = [
            _loop(self.blocks, lambda p, g=gates, c=panels: self.block(part, p, g, c), kind) for gates, panels in parts
        ]
        return _in_turn([*statements, _loop(self.rows, lambda row: self.emit(part, row))])

    def emit(self, part, row):
        """A row of Y: the new state, or zeros behind the end of the sequence."""
        time, run = self.time(part, row)

        def store(i):
            value = part.h[part.new + row * self.padded + i]
            value = value if run is None else tirx.Select(run, value, self.zero)
            return tirx.BufferStore(self.outputs[0], value, [time, part.direction, part.first + row, i])

        return _loop(self.layer.hidden, store)

    def block(self, part, p, gates, panels):
        """The units of block `p`: sums of the `gates` for all sequences of the part, then what they do to the state.

        The sums lie in memory between the two: LLVM would keep more of them in registers than there are.
        """
        sums = self.buffer(self.rows, len(gates), self.tile.width)
        at_once = max(1, min(_CHAINS // self.tile.vectors, self.rows // 2))
        return _in_turn(
            [
                tirx.AllocBuffer(sums),
                *(
                    statement
                    for first, end in panels
                    for statement in _tiles(
                        self.rows,
                        self.tile.rows,
                        lambda begin, rows, f=first, e=end: self.product(part, begin, rows, p, gates, f, e, sums),
                    )
                ),
                *_tiles(self.rows, at_once, lambda begin, rows: self.cell(part, begin, rows, p, gates, sums)),
            ]
        )

    def place(self, row, gate, vector, gates):
        """Where a vector of sums lies."""
        return (row * len(gates) + (gate - gates[0])) * self.tile.width + vector * self.tile.lanes

    def x(self, part, row, p, gate, vector, i):
        """What comes from the input, for a lane of a unit's gate."""
        column = ((part.direction * self.blocks + p) * self.gates + gate) * self.tile.width + vector * self.tile.lanes
        return self.given["x"][self.time(part, row)[0], part.first + row, i + column]

    def product(self, part, begin, rows, p, gates, first, end, sums):
        """The sums of the columns from `first` to `end`, for `rows` sequences of a part, from `begin` on."""
        lanes, vectors, hidden = self.tile.lanes, self.tile.vectors, self.layer.hidden
        source, base = (part.reset, 0) if gates == (2,) else (part.h, part.old)
        width, unrolled = end - first, self.tile.unrolled
        tile, factors = self.buffer(rows, width, lanes), self.buffer(rows, unrolled)
        every = [(row, column) for row in range(rows) for column in range(width)]
        if rows < width:  # what belongs to the shorter side stays in registers, the rest is used up at once
            every.sort(key=lambda at: at[1])

        def start(row, column):
            gate, vector = divmod(first + column, vectors)

            def store(i):
                if self.layer.kind == "GRU" and self.layer.linear_before_reset and gate == 2:
                    unit = p * self.tile.width + (vector * lanes + i)
                    value = self.given["bias"][part.direction, unit] if "bias" in self.given else self.zero
                else:
                    value = self.x(part, begin + row, p, gate, vector, i)
                return tirx.BufferStore(tile, value, [i + (row * width + column) * lanes])

            return self.vector(store)

        def state(row, k):
            return source[base + (begin + row) * self.padded + k]

        def load(k, row):
            return self.vector(lambda i: tirx.BufferStore(factors, state(row, k * unrolled + i), [i + row * unrolled]))

        def update(k, n, row, column):
            at = (row * width + column) * lanes

            def store(i):
                place = ((k * unrolled + n) * width + (column + first * hidden)) * lanes
                weight = self.given["weights"][part.direction, p, i + place]
                factor = factors[row * unrolled + n] if self.tile.by_lanes else state(row, k * unrolled + n)
                return tirx.BufferStore(tile, tile[i + at] + factor * weight, [i + at])

            return self.vector(store)

        def finish(row, column):
            place = self.place(begin + row, *divmod(first + column, vectors), gates)
            return self.vector(lambda i: tirx.BufferStore(sums, tile[i + (row * width + column) * lanes], [i + place]))

        def steps(k):
            loads = [tirx.AllocBuffer(factors), *(load(k, row) for row in range(rows))] if self.tile.by_lanes else []
            return _in_turn(loads + [update(k, n, *at) for n in range(unrolled) for at in every])

        starts, ends = [start(*at) for at in every], [finish(*at) for at in every]
        return _in_turn([tirx.AllocBuffer(tile), *starts, _loop(hidden // unrolled, steps), *ends])

    def cell(self, part, begin, rows, p, gates, sums):
        """What the sums of `rows` sequences do to the state."""
        lanes, width = self.tile.lanes, self.tile.width
        runs = [self.time(part, begin + row)[1] for row in range(rows)]

        def unit(vector, i):
            return p * width + (vector * lanes + i)

        def each(body):
            return [
                self.vector(lambda i, row=row, vector=vector: body(row, vector, i))
                for row in range(rows)
                for vector in range(self.tile.vectors)
            ]

        def sum_of(gate):
            return lambda row, vector, i: sums[i + self.place(begin + row, gate, vector, gates)]

        def sum_to(gate, value):
            return lambda row, vector, i: tirx.BufferStore(
                sums, value(row, vector, i), [i + self.place(begin + row, gate, vector, gates)]
            )

        def state(buffer, at=0):
            return lambda row, vector, i: buffer[at + (begin + row) * self.padded + unit(vector, i)]

        def state_to(buffer, at, old):
            """Stores into a state, that stay the `old` ones where the sequence has ended."""

            def stores(value):
                def store(row, vector, i):
                    new, run = value(row, vector, i), runs[row]
                    kept = new if run is None or old is None else tirx.Select(run, new, old(row, vector, i))
                    return tirx.BufferStore(buffer, kept, [at + (begin + row) * self.padded + unit(vector, i)])

                return store

            return stores

        old_h, c = state(part.h, part.old), state(part.c)
        peepholes = self.given.get("peepholes")
        block = Block(
            layer=self.layer,
            direction=part.direction,
            dtype=self.dtype,
            gates=gates,
            each=each,
            sum=sum_of,
            sum_to=sum_to,
            old_h=old_h,
            new_h=state(part.h, part.new),
            new_h_to=state_to(part.h, part.new, old_h if gates != (0, 1) else None),
            c=c,
            c_to=state_to(part.c, 0, c),
            reset_to=state_to(part.reset, 0, None),
            x=lambda gate: lambda row, vector, i: self.x(part, begin + row, p, gate, vector, i),
            peephole=None
            if peepholes is None
            else (lambda number: lambda row, vector, i: peepholes[part.direction, number, unit(vector, i)]),
        )
        return _in_turn(CELLS[self.layer.kind](block))
