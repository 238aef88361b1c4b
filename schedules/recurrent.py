"""Recurrent layers: all time steps in one kernel, the state in the first-level cache, weights in one stream a step.

    a[g] = x[t, g] + R[g] h            for each gate g; x[t] = W X[t] + b for all t is a matrix product before
    LSTM   i, o, f = F(a[i]), F(a[o]), F(a[f])    c' = f c + i G(a[c])    h' = o H(c')
    GRU    z, r = F(a[z]), F(a[r])    n = G(x[t, h] + R[h] (r h))  or  G(x[t, h] + r (R[h] h + b))    h' = n + z (h - n)
    RNN    h' = F(a)

One register tile is `rows` sequences of the batch x gates x `vectors` vectors of units: `R` is laid out so that what a
step of the reduction takes comes in one stream, [direction, block, k, gate, unit of the block]; x has its columns in
the same order, [t, batch, direction, block, gate, unit]. Sequences of a batch, and directions, are spread over threads.
"""

from dataclasses import dataclass
from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.operators.activations import ACTIVATIONS

NAME = "recurrent"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""In ONNX's order: i, o, f, c; z, r, h; i."""


@dataclass(frozen=True)
class Tile:
    """What one pass over the reduction computes: `rows` sequences, `vectors` vectors of `lanes` units, all gates."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Units of a block."""
        return self.vectors * self.lanes


def tile(kind, hidden, batch, hardware, bits=32):
    """The register tile: alone, a sequence takes half of the registers, which hides the latency of a sum; several take
    three quarters, so that weights are read once for as many of them as there can be."""
    lanes = max(1, hardware.vector_bits // bits)
    while lanes > 1 and lanes // 2 >= hidden:
        lanes //= 2
    gates, units = GATES[kind], -(-hidden // lanes)
    if batch == 1:
        most = max(1, hardware.vector_registers // 2 // gates)
        rows = 1
    else:
        most = max(1, hardware.vector_registers // 16)
        rows = min(batch, max(1, hardware.vector_registers * 3 // 4 // (gates * most)))
    blocks = -(-units // most)
    return Tile(rows, -(-units // blocks), lanes)


def compute(x, weights, *operands, layer, tile, steps, batch, names, threads):
    """Define Y[steps, D, batch, hidden], the last h [D, batch, hidden] and, of an LSTM, the last c.

    `x` is [steps, batch, D * blocks * gates * width] and `weights` [D, blocks, hidden, gates, width], of float32 or
    float64. `layer` says what is computed (`nncc.operators.recurrence.Recurrence`). The `operands` are called by
    `names`, in this order: "lengths" [batch] (int32; those beyond 0 .. steps are taken for the nearest), "h" and "c"
    [D, batch, hidden], "peepholes" [D, 3, hidden'] for i, o and f, "bias" [D, hidden'] of a GRU's R[h]; hidden' is
    that of whole blocks. With `threads`, directions and parts of the batch are spread over them.
    """
    given = dict(zip(names, operands, strict=True))
    dtype, directions = x.dtype, len(layer.directions)
    state = (directions, batch, layer.hidden)
    outputs = [(steps, *state), state] + [state] * (layer.kind == "LSTM")

    def body(ins, outs):
        arguments = dict(zip(("x", "weights", *given), ins, strict=True))
        return _Loops(layer, tile, steps, batch, dtype, arguments, outs).all(threads)

    gates = GATES[layer.kind]
    flops = 2 * gates * layer.hidden * layer.hidden * steps * batch * directions
    attrs = {
        **scheduling.anchor(NAME),
        scheduling.FLOPS: flops,
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


class _Loops:
    """The statements of one kernel."""

    def __init__(self, layer, tile, steps, batch, dtype, arguments, outputs):
        self.layer, self.tile, self.steps, self.batch, self.dtype = layer, tile, steps, batch, dtype
        self.given, self.outputs = arguments, outputs
        self.gates = GATES[layer.kind]
        self.blocks = -(-layer.hidden // tile.width)
        self.padded = self.blocks * tile.width

    def all(self, threads):
        """Tiles of sequences, for each direction; a last tile that would not be full begins earlier."""
        directions, count = len(self.layer.directions), -(-self.batch // self.tile.rows)

        def part(direction, number):
            first = tirx.min(number * self.tile.rows, self.batch - self.tile.rows)
            return self.sequence(direction, first)

        def either(number):
            if directions == 1:
                return part(0, number)
            return tirx.IfThenElse(number < count, part(0, number), part(1, number - count))

        kind = tirx.ForKind.PARALLEL if threads and directions * count > 1 else tirx.ForKind.SERIAL
        return self.loop(directions * count, either, kind)

    def loop(self, extent, body, kind=tirx.ForKind.SERIAL):
        variable = tirx.Var("i", "int32")
        return tirx.For(variable, _int(0), _int(extent), kind, body(variable))

    def vector(self, body):
        """A statement for each lane of a vector."""
        return self.loop(self.tile.lanes, body, tirx.ForKind.VECTORIZED)

    def buffer(self, *shape):
        return tirx.decl_buffer((prod(shape),), self.dtype, name="tile")

    def sequence(self, direction, first):
        """Some sequences from the number `first` on: the state lies in buffers of this tile."""
        rows, padded = self.tile.rows, self.padded
        lstm = self.layer.kind == "LSTM"
        self.h = self.buffer(2, rows, padded)
        self.c = self.buffer(rows, padded) if lstm else None
        self.reset = self.buffer(rows, padded) if self.two_phases else None
        buffers = [b for b in (self.h, self.c, self.reset) if b is not None]
        statements = [tirx.AllocBuffer(buffer) for buffer in buffers]
        for name, buffer in (("h", self.h), ("c", self.c)):
            if buffer is not None:
                statements += [self.start(name, buffer, row, direction, first + row) for row in range(rows)]
        statements.append(self.loop(self.steps, lambda step: self.step(direction, first, step)))
        last = self.steps % 2 * rows * padded
        for row in range(rows):
            statements.append(self.finish(self.outputs[1], direction, first + row, self.h, last + row * padded))
            if lstm:
                statements.append(self.finish(self.outputs[2], direction, first + row, self.c, row * padded))
        return _in_turn(statements)

    @property
    def two_phases(self):
        """Whether a gate multiplies the state before it meets the weights of another."""
        return self.layer.kind == "GRU" and not self.layer.linear_before_reset

    def start(self, name, buffer, row, direction, sequence):
        """A row of the state before the first step, zeros behind it."""
        hidden, padded = self.layer.hidden, self.padded
        zero = tirx.const(0.0, self.dtype)
        parts = []
        if name in self.given:
            initial = self.given[name]
            parts.append(
                self.loop(
                    hidden,
                    lambda i: tirx.BufferStore(buffer, initial[direction, sequence, i], [i + row * padded]),
                )
            )
        done = hidden if name in self.given else 0
        if padded > done:
            parts.append(
                self.loop(padded - done, lambda i: tirx.BufferStore(buffer, zero, [i + (row * padded + done)]))
            )
        return _in_turn(parts)

    def finish(self, output, direction, sequence, buffer, at):
        """A row of the state becomes one of an output; zeros where a sequence has no step, as in ONNX Runtime."""
        zero = tirx.const(0.0, self.dtype)

        def store(i):
            value = buffer[i + at]
            if "lengths" in self.given:
                value = tirx.Select(self.given["lengths"][sequence] > 0, value, zero)
            return tirx.BufferStore(output, value, [direction, sequence, i])

        return self.loop(self.layer.hidden, store)

    def step(self, direction, first, step):
        """One time step of the tile's rows: h[1 - step % 2] of h[step % 2]."""
        rows, padded = self.tile.rows, self.padded
        old, new = step % 2 * (rows * padded), (1 - step % 2) * (rows * padded)
        times, runs = [], []
        for row in range(rows):
            time, run = step, None
            if self.layer.directions[direction] == "reverse":
                time = self.steps - 1 - step
            if "lengths" in self.given:
                length = tirx.max(tirx.min(self.given["lengths"][first + row], _int(self.steps)), _int(0))
                run = step < length
                if self.layer.directions[direction] == "reverse":
                    time = tirx.Select(run, length - 1 - step, step)
            times.append(time)
            runs.append(run)
        statements = []
        if self.two_phases:
            statements.append(
                self.loop(self.blocks, lambda p: self.block(direction, first, p, times, runs, old, new, (0, 1)))
            )
            statements.append(
                self.loop(self.blocks, lambda p: self.block(direction, first, p, times, runs, old, new, (2,)))
            )
        else:
            every = tuple(range(self.gates))
            statements.append(
                self.loop(self.blocks, lambda p: self.block(direction, first, p, times, runs, old, new, every))
            )
        for row in range(rows):
            statements.append(self.emit(direction, first + row, times[row], runs[row], new + row * padded))
        return _in_turn(statements)

    def emit(self, direction, sequence, time, run, at):
        """A row of Y: the new state, or zeros behind the end of the sequence."""
        zero = tirx.const(0.0, self.dtype)

        def store(i):
            value = self.h[i + at] if run is None else tirx.Select(run, self.h[i + at], zero)
            return tirx.BufferStore(self.outputs[0], value, [time, direction, sequence, i])

        return self.loop(self.layer.hidden, store)

    def block(self, direction, first, p, times, runs, old, new, gates):
        """The units of block `p`: sums of the `gates`, then what they do to the state."""
        rows, vectors, lanes = self.tile.rows, self.tile.vectors, self.tile.lanes
        width, padded, count = self.tile.width, self.padded, len(gates)
        sums = self.buffer(rows, count, vectors, lanes)
        statements = [tirx.AllocBuffer(sums)]
        source = self.reset if gates == (2,) else self.h
        base = 0 if gates == (2,) else old
        apart = self.layer.kind == "GRU" and self.layer.linear_before_reset

        def place(row, gate, vector):
            return ((row * count + gates.index(gate)) * vectors + vector) * lanes

        def each():
            return [(row, gate, vector) for row in range(rows) for gate in gates for vector in range(vectors)]

        def begin(row, gate, vector):
            def store(i):
                if apart and gate == 2:
                    value = self.operand("bias", direction, p * width + (vector * lanes + i))
                else:
                    value = self.input(direction, first, p, times, row, gate, vector * lanes, i)
                return tirx.BufferStore(sums, value, [i + place(row, gate, vector)])

            return self.vector(store)

        statements += [begin(*at) for at in each()]

        def update(k, row, gate, vector):
            at = place(row, gate, vector)

            def store(i):
                weight = self.given["weights"][direction, p, k, gate, i + vector * lanes]
                factor = source[base + row * padded + k]
                return tirx.BufferStore(sums, sums[i + at] + factor * weight, [i + at])

            return self.vector(store)

        unrolled = next(size for size in (4, 2, 1) if self.layer.hidden % size == 0)
        steps = [(n, *at) for n in range(unrolled) for at in each()]
        statements.append(
            self.loop(
                self.layer.hidden // unrolled,
                lambda k: _in_turn([update(k * unrolled + n, *at) for n, *at in steps]),
            )
        )
        cell = {"LSTM": self.lstm, "GRU": self.gru, "RNN": self.rnn}[self.layer.kind]
        statements += cell(direction, first, p, times, runs, old, new, gates, sums, place)
        return _in_turn(statements)

    def input(self, direction, first, p, times, row, gate, unit, i):
        column = ((direction * self.blocks + p) * self.gates + gate) * self.tile.width + unit
        return self.given["x"][times[row], first + row, i + column]

    def operand(self, name, direction, at, index=None):
        where = [direction, at] if index is None else [direction, index, at]
        return self.given[name][tuple(where)] if name in self.given else tirx.const(0.0, self.dtype)

    def clipped(self, value):
        if not self.layer.clip:
            return value
        limit = tirx.const(self.layer.clip, self.dtype)
        return tirx.max(tirx.min(value, limit), -limit)

    def kept(self, run, new, old):
        """The state behind a sequence's end stays."""
        return new if run is None else tirx.Select(run, new, old)

    def each_vector(self, body):
        """One statement for all rows and vectors: `body(row, vector, lane)` is a store."""
        return [
            self.vector(lambda i, row=row, vector=vector: body(row, vector, i))
            for row in range(self.tile.rows)
            for vector in range(self.tile.vectors)
        ]

    def lstm(self, direction, first, p, times, runs, old, new, gates, sums, place):
        lanes, width, padded = self.tile.lanes, self.tile.width, self.padded
        f, g, h = (ACTIVATIONS[a.name].of(a.alpha, a.beta, self.dtype) for a in self.layer.activations[direction])
        peeps = "peepholes" in self.given

        def unit(vector, i):
            return p * width + (vector * lanes + i)

        def gate(number, function, state=None):
            def store(row, vector, i):
                at = i + place(row, number, vector)
                value = sums[at]
                if peeps and state is not None:
                    peephole = self.operand("peepholes", direction, unit(vector, i), state)
                    value = value + peephole * self.c[row * padded + unit(vector, i)]
                return tirx.BufferStore(sums, function(self.clipped(value)), [at])

            return self.each_vector(store)

        def forget(row, vector, i):
            value = tirx.const(1.0, self.dtype) - sums[i + place(row, 0, vector)]
            return tirx.BufferStore(sums, value, [i + place(row, 2, vector)])

        def cell(row, vector, i):
            at = row * padded + unit(vector, i)
            value = (
                sums[i + place(row, 2, vector)] * self.c[at]
                + sums[i + place(row, 0, vector)] * sums[i + place(row, 3, vector)]
            )
            return tirx.BufferStore(self.c, self.kept(runs[row], value, self.c[at]), [at])

        def hidden(row, vector, i):
            at = row * padded + unit(vector, i)
            return tirx.BufferStore(sums, h(self.c[at]), [i + place(row, 3, vector)])

        def state(row, vector, i):
            at = row * padded + unit(vector, i)
            value = sums[i + place(row, 1, vector)] * sums[i + place(row, 3, vector)]
            return tirx.BufferStore(self.h, self.kept(runs[row], value, self.h[old + at]), [new + at])

        statements = gate(0, f, 0)
        statements += self.each_vector(forget) if self.layer.input_forget else gate(2, f, 2)
        statements += gate(3, g) + self.each_vector(cell) + gate(1, f, 1)
        return statements + self.each_vector(hidden) + self.each_vector(state)

    def gru(self, direction, first, p, times, runs, old, new, gates, sums, place):
        lanes, width, padded = self.tile.lanes, self.tile.width, self.padded
        f, g, *_ = (ACTIVATIONS[a.name].of(a.alpha, a.beta, self.dtype) for a in self.layer.activations[direction])

        def unit(vector, i):
            return p * width + (vector * lanes + i)

        def gate(number, function):
            def store(row, vector, i):
                at = i + place(row, number, vector)
                return tirx.BufferStore(sums, function(self.clipped(sums[at])), [at])

            return self.each_vector(store)

        def update_gate(row, vector, i):
            """z waits for the second phase where the state goes that it will decide on."""
            at = row * padded + unit(vector, i)
            return tirx.BufferStore(self.h, sums[i + place(row, 0, vector)], [new + at])

        def resets(row, vector, i):
            at = row * padded + unit(vector, i)
            return tirx.BufferStore(self.reset, sums[i + place(row, 1, vector)] * self.h[old + at], [at])

        def applied(row, vector, i):
            product = sums[i + place(row, 1, vector)] * sums[i + place(row, 2, vector)]
            value = self.input(direction, first, p, times, row, 2, vector * lanes, i) + product
            return tirx.BufferStore(sums, value, [i + place(row, 2, vector)])

        def state(row, vector, i):
            at = row * padded + unit(vector, i)
            z = sums[i + place(row, 0, vector)] if gates != (2,) else self.h[new + at]
            n = sums[i + place(row, 2, vector)]
            value = n + z * (self.h[old + at] - n)
            return tirx.BufferStore(self.h, self.kept(runs[row], value, self.h[old + at]), [new + at])

        if gates == (0, 1):
            return gate(0, f) + gate(1, f) + self.each_vector(update_gate) + self.each_vector(resets)
        if gates == (2,):
            return gate(2, g) + self.each_vector(state)
        return gate(0, f) + gate(1, f) + self.each_vector(applied) + gate(2, g) + self.each_vector(state)

    def rnn(self, direction, first, p, times, runs, old, new, gates, sums, place):
        (f, *_) = (ACTIVATIONS[a.name].of(a.alpha, a.beta, self.dtype) for a in self.layer.activations[direction])

        def state(row, vector, i):
            at = row * self.padded + (p * self.tile.width + (vector * self.tile.lanes + i))
            value = f(self.clipped(sums[i + place(row, 0, vector)]))
            return tirx.BufferStore(self.h, self.kept(runs[row], value, self.h[old + at]), [new + at])

        return self.each_vector(state)
