"""Recurrent layers: all time steps in one kernel, weights read once a step for all sequences of a batch.

    a[g] = x[t, g] + R[g] h            for each gate g; x[t] = W X[t] + b for all t is a matrix product before

and what the gates do to the state is in `nncc/operators/cells.py`.

One register tile is some sequences of the batch x gates x `vectors` vectors of units: `R` is laid out so that what a
step of the reduction takes comes in one stream, [direction, block, k, gate, unit of the block]; x has its columns in
the same order, [t, batch, direction, block, gate, unit]. A block's weights are in the second-level cache when the next
sequences come to them. Directions, and parts of the batch, are spread over threads; where there are fewer of them than
threads, and steps that are long enough, the blocks of a step are.
"""

from dataclasses import dataclass, replace
from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.operators.cells import CELLS, GATES, Block

NAME = "recurrent"
_LEAST_PART = 60_000
"""Operations of a layer below which it stays on one thread: about the cost of waking another."""
_LEAST_STEP = 400_000
"""Operations of a step from which its blocks are spread over threads, which meet twice a step."""


@dataclass(frozen=True)
class Tile:
    """How a layer is cut: `parts` of the batch that share nothing, tiles of `rows` sequences in a part, blocks of
    `vectors` vectors of `lanes` units, all gates."""

    parts: int
    rows: int
    vectors: int
    lanes: int
    parallel: str = ""
    """What is spread over threads: parts | blocks; nothing where it is empty."""

    @property
    def width(self):
        """Units of a block."""
        return self.vectors * self.lanes


def tile(layer, steps, batch, hardware, bits=32):
    """How a layer (`nncc.operators.recurrence.Recurrence`) is cut, for numbers of `bits`."""
    lanes = max(1, hardware.vector_bits // bits)
    while lanes > 1 and lanes // 2 >= layer.hidden:
        lanes //= 2
    gates, directions = GATES[layer.kind], len(layer.directions)
    step = 2 * gates * layer.hidden**2 * batch
    parts, parallel = 1, ""
    if hardware.cores > 1 and steps * step * directions >= _LEAST_PART:
        parts = max(1, min(batch, hardware.cores // directions))
        parallel = "parts" if parts * directions > 1 else ""
        if 2 * parts * directions <= hardware.cores and step >= _LEAST_STEP * parts:
            parallel = "blocks"
    rows, vectors = _register_tile(-(-batch // parts), -(-layer.hidden // lanes), gates, hardware.vector_registers)
    return Tile(parts, rows, vectors, lanes, parallel)


def _register_tile(batch, units, gates, registers):
    """(sequences, vectors of units) with the least time for `batch` sequences and `units` vectors: sums take three
    quarters of the registers at most, and half of them where a sequence is alone, whose weights are loaded for it."""

    def time(rows, vectors):
        blocks = -(-units // vectors)
        tiles = [rows] * (batch // rows) + [batch % rows] * (batch % rows > 0)
        least = registers // 4  # sums, that their latency is hidden
        return blocks * sum(max(r * gates * vectors, r + gates * vectors, least) for r in tiles), len(tiles) * blocks

    def fits(rows, vectors):
        return rows * gates * vectors <= (registers // 2 if batch == 1 else registers * 3 // 4)

    candidates = [(1, 1)]
    for rows in range(1, min(batch, registers) + 1):
        blocks = {-(-units // most) for most in range(1, registers + 1) if fits(rows, most)}
        candidates += [(rows, -(-units // count)) for count in blocks]
    return min(candidates, key=lambda c: (*time(*c), batch % c[0], c))


def compute(x, weights, *operands, layer, tile, steps, batch, names):
    """Define Y[steps, D, batch, hidden], the last h [D, batch, hidden] and, of an LSTM, the last c.

    `x` is [steps, batch, D * blocks * gates * width] and `weights` [D, blocks, hidden, gates, width], of float32 or
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
        "nncc.tile": f"tile {tile.rows}x{gates}x{tile.vectors}",
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

    @property
    def two_phases(self):
        """Whether a gate multiplies the state before it meets the weights of another."""
        return self.layer.kind == "GRU" and not self.layer.linear_before_reset

    def part(self, direction, first):
        """All steps of some sequences."""
        rows, padded = self.rows, self.padded
        lstm = self.layer.kind == "LSTM"
        h = self.buffer(2, rows, padded)
        c = self.buffer(rows, padded) if lstm else None
        reset = self.buffer(rows, padded) if self.two_phases else None
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
        phases = [(0, 1), (2,)] if self.two_phases else [tuple(range(self.gates))]
        kind = tirx.ForKind.PARALLEL if self.tile.parallel == "blocks" else tirx.ForKind.SERIAL
        statements = [_loop(self.blocks, lambda p, g=gates: self.block(part, p, g), kind) for gates in phases]
        return _in_turn([*statements, _loop(self.rows, lambda row: self.emit(part, row))])

    def emit(self, part, row):
        """A row of Y: the new state, or zeros behind the end of the sequence."""
        time, run = self.time(part, row)

        def store(i):
            value = part.h[part.new + row * self.padded + i]
            value = value if run is None else tirx.Select(run, value, self.zero)
            return tirx.BufferStore(self.outputs[0], value, [time, part.direction, part.first + row, i])

        return _loop(self.layer.hidden, store)

    def block(self, part, p, gates):
        """The units of block `p`, for all sequences of the part, a tile of them after the other."""
        rows = self.tile.rows
        whole, rest = divmod(self.rows, rows)
        statements = []
        if whole:
            statements.append(_loop(whole, lambda n: self.tile_of(part, n * rows, rows, p, gates)))
        if rest:
            statements.append(self.tile_of(part, _int(whole * rows), rest, p, gates))
        return _in_turn(statements)

    def tile_of(self, part, begin, rows, p, gates):
        """`rows` sequences of a part, from `begin` on: sums of the `gates`, then what they do to the state."""
        vectors, lanes, width = self.tile.vectors, self.tile.lanes, self.tile.width
        count, padded, hidden = len(gates), self.padded, self.layer.hidden
        sums = self.buffer(rows, count, vectors, lanes)
        apart = self.layer.kind == "GRU" and self.layer.linear_before_reset
        source, base = (part.reset, 0) if gates == (2,) else (part.h, part.old)
        times = [self.time(part, begin + row) for row in range(rows)]

        def place(row, gate, vector):
            return ((row * count + gates.index(gate)) * vectors + vector) * lanes

        def unit(vector, i):
            return p * width + (vector * lanes + i)

        def x(gate):
            column = ((part.direction * self.blocks + p) * self.gates + gate) * width
            return lambda row, vector, i: self.given["x"][
                times[row][0], part.first + begin + row, i + (column + vector * lanes)
            ]

        def bias(row, vector, i):
            return self.given["bias"][part.direction, unit(vector, i)] if "bias" in self.given else self.zero

        def each(body):
            return [
                self.vector(lambda i, row=row, vector=vector: body(row, vector, i))
                for row in range(rows)
                for vector in range(vectors)
            ]

        def sum_of(gate):
            return lambda row, vector, i: sums[i + place(row, gate, vector)]

        def sum_to(gate, value):
            return lambda row, vector, i: tirx.BufferStore(sums, value(row, vector, i), [i + place(row, gate, vector)])

        def state(buffer, at=0):
            return lambda row, vector, i: buffer[at + (begin + row) * padded + unit(vector, i)]

        def state_to(buffer, at, old):
            """Stores into a state, that stay the `old` ones where the sequence has ended."""

            def stores(value):
                def store(row, vector, i):
                    new, run = value(row, vector, i), times[row][1]
                    kept = new if run is None or old is None else tirx.Select(run, new, old(row, vector, i))
                    return tirx.BufferStore(buffer, kept, [at + (begin + row) * padded + unit(vector, i)])

                return store

            return stores

        def update(k, gate):
            def store(row, vector, i):
                weight = self.given["weights"][part.direction, p, k, gate, i + vector * lanes]
                factor = source[base + (begin + row) * padded + k]
                at = [i + place(row, gate, vector)]
                return tirx.BufferStore(sums, sums[at[0]] + factor * weight, at)

            return each(store)

        statements = [tirx.AllocBuffer(sums)]
        for gate in gates:
            statements += each(sum_to(gate, bias if apart and gate == 2 else x(gate)))
        unrolled = next(size for size in (4, 2, 1) if hidden % size == 0)
        statements.append(
            _loop(
                hidden // unrolled,
                lambda k: _in_turn(
                    [s for n in range(unrolled) for gate in gates for s in update(k * unrolled + n, gate)]
                ),
            )
        )
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
            x=x,
            peephole=None
            if peepholes is None
            else (lambda number: lambda row, vector, i: peepholes[part.direction, number, unit(vector, i)]),
        )
        return _in_turn(statements + CELLS[self.layer.kind](block))
