"""Random programs for the accelerator: sound ones, with tokens where accesses meet, and broken ones made of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncc.errors import RunError
from nncc.vta.driver import Driver
from nncc.vta.encoding import decode, encode, encode_uops
from nncc.vta.interpret import interpret
from nncc.vta.machine import Machine

QUEUES = ("load", "compute", "store")
ELEMENTS = 24
"""How many elements of each scratchpad a program uses, so that accesses meet often."""
ARENA, CONSTANTS = 96, 48
"""Elements of INP in the arena, of WGT in the constants."""


@dataclass(eq=False)
class Sample:
    """A program with the memory it runs on: constants and arena, by their own sizes."""

    machine: Machine
    words: list[int]
    constants: bytes
    arena: bytes

    def program(self) -> np.ndarray:
        mask = (1 << 64) - 1
        return np.array([[word & mask, word >> 64] for word in self.words], np.uint64).reshape(-1, 2)


@dataclass(eq=False)
class _Step:
    kind: str
    queue: str
    fields: dict[str, int]
    reads: set[tuple[str, int]] = field(default_factory=set)
    writes: set[tuple[str, int]] = field(default_factory=set)


def sample(machine: Machine, seed: int, length: int = 24) -> Sample:
    """A sound program of about `length` instructions."""
    rng = np.random.default_rng(seed)
    maker = _Maker(machine, rng)
    for _ in range(length):
        maker.add()
    return Sample(machine, _linked(machine, maker.steps), maker.constants(), maker.arena)


def broken(good: Sample, seed: int) -> Sample:
    """The program with some bits, words or fields changed, or the order, or of random bits altogether."""
    rng = np.random.default_rng(seed)
    words = list(good.words)
    way = int(rng.integers(5))
    for _ in range(1 + int(rng.integers(3))):
        at = int(rng.integers(len(words)))
        if way == 0:
            words[at] ^= 1 << int(rng.integers(128))
        elif way == 1:
            words[at] = int.from_bytes(rng.bytes(16), "little")
        elif way == 2:
            other = int(rng.integers(len(words)))
            words[at], words[other] = words[other], words[at]
        elif way == 3:
            instruction = decode(good.machine, good.words[at])
            bits = good.machine.formats[instruction.kind]
            name = bits[1 + int(rng.integers(len(bits) - 1))]
            extremes = [name.least, name.most, int(rng.integers(name.least, name.most + 1))]
            changed = instruction.fields | {name.name: extremes[int(rng.integers(3))]}
            words[at] = encode(good.machine, instruction.kind, **{k: v for k, v in changed.items() if k != "opcode"})
        else:
            words[at] ^= 1 << int(rng.integers(3, 7))
    return Sample(good.machine, words, good.constants, good.arena)


def mutants(good: Sample) -> list[tuple[str, Sample]]:
    """The program without one of its pops or pushes, for each of them."""
    made = []
    for at, word in enumerate(good.words):
        for bit, name in ((3, "pop_prev"), (4, "pop_next"), (5, "push_prev"), (6, "push_next")):
            if word >> bit & 1:
                words = [*good.words[:at], word ^ 1 << bit, *good.words[at + 1 :]]
                made.append((f"{name} of {at}", Sample(good.machine, words, good.constants, good.arena)))
    return made


def without_a_token(good: Sample) -> list[tuple[str, Sample]]:
    """The program without a push and the pop that takes its token, for each such pair."""
    given: dict[tuple[str, str], list[int]] = {}
    taken: dict[tuple[str, str], list[int]] = {}
    for at, word in enumerate(good.words):
        instruction = decode(good.machine, word)
        queue = _queue(good.machine, instruction.kind, instruction.fields)
        for bit, side, users in ((3, -1, taken), (4, 1, taken), (5, -1, given), (6, 1, given)):
            if word >> bit & 1:
                other = QUEUES[QUEUES.index(queue) + side]
                users.setdefault((queue, other) if users is given else (other, queue), []).append(at)
    made = []
    for edge, producers in given.items():
        push, pop = (6, 3) if QUEUES.index(edge[0]) < QUEUES.index(edge[1]) else (5, 4)
        for producer, consumer in zip(producers, taken[edge], strict=True):
            words = list(good.words)
            words[producer] ^= 1 << push
            words[consumer] ^= 1 << pop
            made.append((f"{producer} to {consumer}", Sample(good.machine, words, good.constants, good.arena)))
    return made


def simulated(driver: Driver, program: Sample, options: str, seconds: float = 30.0) -> tuple[bytes, bytes] | str:
    """Constants and arena after the program, or why it failed."""
    with driver.open(f"sim:{options}") as device:
        constants = device.put(np.frombuffer(program.constants, np.uint8))
        arena = device.put(np.frombuffer(program.arena, np.uint8))
        words = device.put(program.program())
        try:
            device.run(words, _bases(program.machine, constants.address, arena.address), seconds)
        except RunError as error:
            return error.message
        return constants.data.tobytes(), arena.data.tobytes()


def counted(driver: Driver, program: Sample, options: str) -> tuple[dict[str, int], list[int]]:
    """The counters of a sound program, and the cycles at which all before each instruction were complete."""
    with driver.open(f"sim:{options}") as device:
        constants = device.put(np.frombuffer(program.constants, np.uint8))
        arena = device.put(np.frombuffer(program.arena, np.uint8))
        device.run(device.put(program.program()), _bases(program.machine, constants.address, arena.address), 30.0)
        return device.counters(), device.profile(range(len(program.words) + 1))


def interpreted(program: Sample) -> tuple[bytes, bytes] | str:
    """Constants and arena after the program as the interpreter runs it, or why it failed."""
    # Where the simulator has them, the program itself included: a broken program may find another piece of memory.
    pieces = (program.constants, program.arena, program.program().tobytes())
    addresses = [1 << 16]
    for piece in pieces:
        addresses.append(addresses[-1] + (len(piece) + 4095) // 4096 * 4096 + 4096)
    constants, arena, _ = addresses[:3]
    try:
        dram = dict(zip(addresses, pieces, strict=False))
        after = interpret(program.machine, program.words, dram, _bases(program.machine, constants, arena))
    except RunError as error:
        return error.message
    return after[constants], after[arena]


def _queue(machine: Machine, kind: str, fields: dict[str, int]) -> str:
    if kind == "load":
        return next(memory.queue for memory in machine.description.memories if memory.id == fields["memory"])
    return "store" if kind == "store" else "compute"


def _bases(machine: Machine, constants: int, arena: int) -> dict[int, int]:
    return {kind.id: constants if kind.base == "constants" else arena for kind in machine.description.memories}


class _Maker:
    """Steps in program order that read only what was written before; which elements they touch."""

    def __init__(self, machine: Machine, rng: np.random.Generator) -> None:
        self.machine, self.rng = machine, rng
        self.uops = np.stack([rng.integers(0, ELEMENTS // 4, ELEMENTS) for _ in range(3)], axis=1)
        self.arena = rng.integers(0, 256, ARENA * machine.block, np.uint8).tobytes()
        self.steps: list[_Step] = []
        self.own = "par" in {kind.name for kind in machine.description.memories}
        for memory in ("uop", "inp", "wgt", "acc", *(("par",) if self.own else ())):
            self.move(memory, {"y_size": 1, "x_size": ELEMENTS, "x_stride": ELEMENTS})

    def constants(self) -> bytes:
        """Random bytes, with what each memory needs from 0 on: they overlap, which loads do not mind."""
        block = self.machine.block
        data = bytearray(self.rng.integers(0, 256, CONSTANTS * block * block, np.uint8).tobytes())
        if self.own:
            scales = (self.rng.random((ELEMENTS, block)) * 2.0 ** -self.rng.integers(0, 32, (ELEMENTS, block))).astype(
                np.float32
            )
            scales[self.rng.random(scales.shape) < 0.05] = [np.nan, np.inf, -np.inf, 0, -1][int(self.rng.integers(5))]
            biases = self.rng.integers(-(1 << 31), 1 << 31, (ELEMENTS, block)).astype(np.int32) >> 12
            parameters = np.concatenate([biases.view(np.uint8), scales.view(np.uint8)], axis=1).reshape(-1)
            data[: len(parameters)] = parameters.tobytes()
        words = encode_uops(self.machine, self.uops).tobytes()
        data[-len(words) :] = words
        return bytes(data)

    def add(self) -> None:
        way = self.rng.integers(10)
        if way < 3:
            memory = self.rng.choice(["inp", "inp", "wgt", "acc", "acc8", *(["par"] if self.own else [])])
            self.move(str(memory), self.shape())
        elif way < 5:
            self.store()
        elif way < 7:
            self.gemm()
        else:
            self.alu()

    def below(self, limit: int) -> int:
        return int(self.rng.integers(limit))

    def shape(self) -> dict[str, int]:
        fields = {
            "y_size": self.below(4),
            "x_size": self.below(5),
            "x_stride": self.below(6),
            "sram": self.below(ELEMENTS),
        }
        return fields | {
            "y_pad_0": self.below(2),
            "y_pad_1": self.below(2),
            "x_pad_0": self.below(2),
            "x_pad_1": self.below(2),
        }

    def move(self, memory: str, fields: dict[str, int]) -> None:
        kind = self.machine.description.memory(memory)
        rows = fields["y_size"] + fields.get("y_pad_0", 0) + fields.get("y_pad_1", 0)
        columns = fields["x_size"] + fields.get("x_pad_0", 0) + fields.get("x_pad_1", 0)
        size = self.machine.element_bytes(memory)
        step = 1
        if self.own and memory == "inp" and self.below(2):
            fields = fields | {"pad_value": int(self.rng.integers(-128, 128))}
        if self.own and fields["x_size"] < ELEMENTS and self.below(2):
            step = 1 + self.below(4)
            fields = fields | {"x_skip": step - 1}
        span = (fields["x_size"] - 1) * step + 1
        whole = CONSTANTS * self.machine.block**2 if kind.base == "constants" else len(self.arena)
        extent = ((max(1, fields["y_size"]) - 1) * fields["x_stride"] + span) * size
        room = (whole - extent) // size
        if fields.get("sram", 0) + rows * columns > ELEMENTS or room < 0:
            return
        # The micro-operations are at the end of the constants; any bytes do for weights and sums.
        limit = 0 if memory == "par" else room
        first = (whole - 4 * ELEMENTS) // 4 if memory == "uop" else self.below(limit + 1)
        step_ = _Step("load", kind.queue, {"memory": kind.id, "dram": first, **fields})
        if fields["x_size"]:
            held = kind.held_in or memory
            step_.writes = {(held, fields.get("sram", 0) + each) for each in range(rows * columns)}
            if kind.base == "arena":
                step_.reads = self.bytes(first, fields, span, size)
        self.steps.append(step_)

    def bytes(self, first: int, fields: dict[str, int], span: int, size: int) -> set[tuple[str, int]]:
        rows = (first + y * fields["x_stride"] for y in range(fields["y_size"]))
        return {("dram", element) for row in rows for element in range(row, row + span)}

    def store(self) -> None:
        written = {at for step in self.steps for memory, at in step.writes if memory == "out"}
        if not written:
            return
        first = sorted(written)[self.below(len(written))]
        run = next(length for length in range(1, ELEMENTS + 1) if first + length not in written)
        fields = {"sram": first, "x_size": self.below(min(4, run) + 1), "x_stride": self.below(6)}
        fields["y_size"] = self.below(run // max(1, fields["x_size"]) + 1)
        count = fields["y_size"] * fields["x_size"]
        extent = (max(1, fields["y_size"]) - 1) * fields["x_stride"] + fields["x_size"]
        fields["dram"] = self.below(ARENA - extent + 1)
        step = _Step("store", "store", {"memory": 4, **fields})
        if count:
            step.reads = {("out", fields["sram"] + each) for each in range(count)}
            step.writes = self.bytes(fields["dram"], fields, fields["x_size"], self.machine.block)
        self.steps.append(step)

    def loops(self) -> tuple[dict[str, int], np.ndarray]:
        """Fields, and the elements of all iterations."""
        begin = self.below(ELEMENTS)
        end = begin + self.below(min(4, ELEMENTS - begin + 1))
        fields = {"uop_bgn": begin, "uop_end": end, "iter_out": self.below(3), "iter_in": self.below(4)}
        strides = {f"{name}_{loop}": self.below(3) for name in ("dst", "src", "wgt") for loop in ("out", "in")}
        outer, inner = np.meshgrid(range(fields["iter_out"]), range(fields["iter_in"]), indexing="ij")
        base = self.uops[begin:end]
        offsets = [outer * strides[f"{name}_out"] + inner * strides[f"{name}_in"] for name in ("dst", "src", "wgt")]
        return fields | strides, (base[None] + np.stack(offsets, axis=-1).reshape(-1, 1, 3)).reshape(-1, 3)

    def gemm(self) -> None:
        fields, at = self.loops()
        fields["reset"] = int(self.below(4) == 0)
        if self.own and not fields["reset"]:
            fields["overwrite"] = self.below(2)
        step = _Step("gemm", "compute", fields)
        step.writes = {("acc", int(d)) for d in at[:, 0]}
        if not fields["reset"]:
            step.writes |= {("out", int(d)) for d in at[:, 0]}
            step.reads = {("inp", int(s)) for s in at[:, 1]} | {("wgt", int(w)) for w in at[:, 2]}
        self.steps.append(step)

    def alu(self) -> None:
        operation = self.machine.description.alu[self.below(len(self.machine.description.alu))]
        source = operation.cycles[self.below(len(operation.cycles))][0]
        fields, at = self.loops()
        weights = operation.name in ("MAC", "QADD")
        for loop in ("out", "in"):
            del fields[f"wgt_{loop}"]  # an ALU instruction has no such loops
        at[:, 2] = np.tile(self.uops[fields["uop_bgn"] : fields["uop_end"], 2], fields["iter_out"] * fields["iter_in"])
        fields |= {"alu_op": operation.id, "use_imm": int(source == "imm")}
        if self.own:
            fields["from_inp"] = int(source == "inp")
            fields["overwrite"] = self.below(2) if operation.overwrite else 0
        near = int(self.rng.integers(-40, 40)) if self.below(2) else int(self.rng.integers(-(1 << 15), 1 << 15))
        limits = {
            "operand": near,
            "grid": self.below(512),
            "row": self.below(self.machine.block),
            "order": self.below(2),
        }
        fields["imm"] = limits[operation.immediate]
        step = _Step("alu", "compute", fields)
        step.writes = {(memory, int(d)) for d in at[:, 0] for memory in ("acc", "out")}
        if source != "imm":
            step.reads |= {(source, int(s)) for s in at[:, 1]}
        if weights:
            step.reads |= {("wgt" if operation.name == "MAC" else "par", int(w)) for w in at[:, 2]}
        self.steps.append(step)


def _linked(machine: Machine, steps: list[_Step]) -> list[int]:
    """Instructions with a token wherever an access of one queue meets one of another, and no other tokens but the last.

    Load and store are no neighbours: an instruction of compute that does nothing hands the token on.
    """
    placed: list[_Step] = []
    pushes: dict[int, set[str]] = {}
    pops: dict[int, set[str]] = {}
    waited: dict[tuple[str, str], int] = {}
    writer: dict[tuple[str, int], dict[str, int]] = {}
    reader: dict[tuple[str, int], dict[str, int]] = {}

    def add(step: _Step) -> int:
        placed.append(step)
        return len(placed) - 1

    def wait(queue: str, other: str, producer: int) -> None:
        """Make what comes next in `queue` wait for an instruction of a neighbour."""
        at = len(placed)
        if producer > waited.get((queue, other), -1):
            waited[queue, other] = producer
            pushes.setdefault(producer, set()).add(queue)
            pops.setdefault(at, set()).add(other)

    for step in [*steps, _Step("finish", "compute", {})]:
        last: dict[str, int] = {}
        for memory, users in (*((m, writer) for m in step.reads | step.writes), *((m, reader) for m in step.writes)):
            for queue, index in users.get(memory, {}).items():
                if queue != step.queue:
                    last[queue] = max(last.get(queue, -1), index)
        if step.kind == "finish":
            last = {q: max((i for i, p in enumerate(placed) if p.queue == q), default=-1) for q in ("load", "store")}
            last = {queue: index for queue, index in last.items() if index >= 0}
        if step.queue != "compute" and (far := last.pop("store" if step.queue == "load" else "load", None)) is not None:
            wait("compute", placed[far].queue, far)
            last["compute"] = max(last.get("compute", -1), add(_Step("load", "compute", {"memory": 0})))
        for queue, index in last.items():
            wait(step.queue, queue, index)
        at = add(step)
        for memory in step.writes:
            writer[memory] = {step.queue: at}
            reader.pop(memory, None)
        for memory in step.reads:
            reader.setdefault(memory, {})[step.queue] = at
    words = []
    for at, step in enumerate(placed):
        flags: dict[str, Any] = {}
        for prefix, others in (("push", pushes.get(at, ())), ("pop", pops.get(at, ()))):
            for other in others:
                before = QUEUES.index(other) < QUEUES.index(step.queue)
                flags[f"{prefix}_{'prev' if before else 'next'}"] = 1
        words.append(encode(machine, step.kind, **step.fields, **flags))
    return words
