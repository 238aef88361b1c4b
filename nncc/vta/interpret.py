"""The accelerator once more, in Python: slow, and as close to its description as it can be.

It shares the description and the decoder with the simulator's generated header, and nothing else: fuzzing compares the
two. What the operations of the ALU compute is what the description says of them.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from nncc.errors import RunError
from nncc.vta.arithmetic import meaning, wrap
from nncc.vta.encoding import Instruction, decode
from nncc.vta.isa import QUEUES
from nncc.vta.machine import Machine

__all__ = ["interpret"]

_POISON = 0xA5
"""What scratchpads hold before anything is written."""
_MOST_TOKENS = 255


def interpret(
    machine: Machine, words: Sequence[int], dram: Mapping[int, bytes], bases: Mapping[int, int]
) -> dict[int, bytes]:
    """What pieces of DRAM hold after a program, by address.

    `words` are instructions of 128 bits, the last one FINISH; `dram` has pieces of memory by address; `bases` the
    address that each memory's are relative to, by its number. Raises RunError for a program at fault: a field that is
    not allowed, an access out of bounds, a deadlock, tokens left over.
    """
    run = _Run(machine, dram, bases)
    run.program(words)
    return {address: bytes(data) for address, data in run.dram.items()}


class _Run:
    def __init__(self, machine: Machine, dram: Mapping[int, bytes], bases: Mapping[int, int]) -> None:
        self.machine, self.bases = machine, bases
        self.dram = {address: bytearray(data) for address, data in dram.items()}
        self.kinds = {kind.id: kind for kind in machine.description.memories}
        self.operations = {operation.id: operation for operation in machine.description.alu}
        self.chip = {
            kind.name: bytearray([_POISON]) * (machine.depth(kind.name) * machine.sram_bytes(kind.name))
            for kind in self.kinds.values()
            if not kind.held_in
        }
        self.tokens = {(a, b): 0 for a, b in itertools.permutations(QUEUES, 2) if "compute" in (a, b)}

    def program(self, words: Sequence[int]) -> None:
        """Run the queues in turn, each as far as its tokens go."""
        waiting: dict[str, deque[Instruction]] = {queue: deque() for queue in QUEUES}
        for index, word in enumerate(words):
            instruction = decode(self.machine, word)
            if (instruction.kind == "finish") != (index == len(words) - 1):
                raise RunError(f"instruction {index}: FINISH is the last instruction, and only that")
            self.check(instruction)
            waiting[self.queue(instruction)].append(instruction)
        if not words:
            raise RunError("the program is empty")
        while any(waiting.values()):
            moved = False
            for queue, instructions in waiting.items():
                while instructions and self.pop(queue, instructions[0]):
                    instruction = instructions.popleft()
                    self.step(instruction)
                    self.push(queue, instruction)
                    moved = True
                    if instruction.kind == "finish" and any(waiting.values()):
                        raise RunError("FINISH does not wait for all other instructions")
            if not moved:
                heads = "; ".join(f"{q}: {list_[0].kind if list_ else 'empty'}" for q, list_ in waiting.items())
                raise RunError(f"deadlock: {heads}")
        if any(self.tokens.values()):
            raise RunError("tokens are left over")

    def queue(self, instruction: Instruction) -> str:
        if instruction.kind == "store":
            return "store"
        if instruction.kind == "load":
            return self.kinds[instruction.fields["memory"]].queue
        return "compute"

    def neighbour(self, queue: str, side: str) -> str | None:
        at = QUEUES.index(queue) + (-1 if side == "prev" else 1)
        return QUEUES[at] if 0 <= at < len(QUEUES) else None

    def pop(self, queue: str, instruction: Instruction) -> bool:
        """Take the tokens it waits for, if all are there."""
        wanted = [
            (self.neighbour(queue, side), queue) for side in ("prev", "next") if instruction.fields[f"pop_{side}"]
        ]
        if any(not self.tokens[a or "", b] for a, b in wanted):
            return False
        for a, b in wanted:
            self.tokens[a or "", b] -= 1
        return True

    def push(self, queue: str, instruction: Instruction) -> None:
        for side in ("prev", "next"):
            if instruction.fields[f"push_{side}"]:
                edge = queue, self.neighbour(queue, side) or ""
                self.tokens[edge] += 1
                if self.tokens[edge] > _MOST_TOKENS:
                    raise RunError(f"more than {_MOST_TOKENS} tokens of {edge[0]} wait for {edge[1]}")

    def check(self, instruction: Instruction) -> None:
        fields, kind = instruction.fields, instruction.kind
        if kind in ("load", "store"):
            memory = self.kinds.get(fields["memory"])
            if memory is None or not (memory.queue if kind == "load" else memory.name == "out"):
                raise RunError(f"a {kind} has no memory {fields['memory']}")
            if fields["x_size"]:
                self.check_move(kind, memory.name, fields)
        elif kind in ("gemm", "alu"):
            if not fields["uop_bgn"] <= fields["uop_end"] <= self.machine.depth("uop"):
                raise RunError("micro-operations out of bounds")
            if fields.get("reset") and fields.get("overwrite"):
                raise RunError("both reset and overwrite")
            if kind == "alu":
                self.check_alu(fields)
        elif fields["push_prev"] or fields["push_next"]:
            raise RunError("FINISH gives tokens")
        queue = self.queue(instruction)
        for side in ("prev", "next"):
            if self.neighbour(queue, side) is None and (fields[f"pop_{side}"] or fields[f"push_{side}"]):
                raise RunError(f"{queue} has no neighbour on that side")

    def check_move(self, kind: str, memory: str, fields: Mapping[str, int]) -> None:
        if kind == "store" and any(fields.get(f"{axis}_pad_{side}") for axis in "xy" for side in (0, 1)):
            raise RunError("a STORE has padding")
        if fields.get("pad_value") and memory != "inp":
            raise RunError("only INP has padding other than 0")
        rows, columns = _footprint(fields)
        if fields["sram"] + rows * columns > self.machine.depth(memory):
            raise RunError(f"elements of {memory} out of bounds")
        if fields["y_size"]:
            first = self.address(memory, fields, 0)
            end = self.address(memory, fields, fields["y_size"] - 1) + self.span(memory, fields)
            self.piece(first, max(end, first + self.span(memory, fields)) - first)

    def check_alu(self, fields: Mapping[str, int]) -> None:
        operation = self.operations.get(fields["alu_op"])
        if operation is None:
            raise RunError(f"no operation {fields['alu_op']}")
        if fields["use_imm"] and fields.get("from_inp"):
            raise RunError("both an immediate and a source")
        if self.source(fields) not in dict(operation.cycles):
            raise RunError(f"{operation.name} takes no {self.source(fields)}")
        if fields.get("overwrite") and not operation.overwrite:
            raise RunError(f"{operation.name} cannot overwrite")
        allowed = {"operand": 0xFFFF, "grid": 0x1FF, "row": self.machine.block - 1, "order": 1}[operation.immediate]
        if fields["imm"] & 0xFFFF & ~allowed:
            raise RunError(f"{operation.name} takes no immediate {fields['imm']}")

    def source(self, fields: Mapping[str, int]) -> str:
        if fields["use_imm"]:
            return "imm"
        if fields.get("from_inp"):
            return "inp"
        return "par" if "par" in dict(self.operations[fields["alu_op"]].cycles) else "acc"

    def address(self, memory: str, fields: Mapping[str, int], row: int) -> int:
        number = fields["memory"]
        element = fields["dram"] + row * fields["x_stride"]
        return self.bases.get(number, 0) + element * self.machine.element_bytes(memory)

    def span(self, memory: str, fields: Mapping[str, int]) -> int:
        """Bytes that a row is read from, or written to."""
        elements = (fields["x_size"] - 1) * (fields.get("x_skip", 0) + 1) + 1
        return elements * self.machine.element_bytes(memory)

    def piece(self, address: int, size: int) -> tuple[bytearray, int]:
        for start, data in self.dram.items():
            if start <= address and address + size <= start + len(data):
                return data, address - start
        raise RunError(f"bytes {address} to {address + size} of DRAM out of bounds")

    def step(self, instruction: Instruction) -> None:
        does: dict[str, Callable[[Mapping[str, int]], None]] = {
            "load": self.load, "store": self.store, "gemm": self.gemm, "alu": self.alu, "finish": lambda fields: None,
        }  # fmt: skip
        does[instruction.kind](instruction.fields)

    def load(self, fields: Mapping[str, int]) -> None:
        if not fields["x_size"]:
            return
        memory = self.kinds[fields["memory"]]
        size, step = self.machine.element_bytes(memory.name), fields.get("x_skip", 0) + 1
        rows, columns = _footprint(fields)
        for y, x in itertools.product(range(rows), range(columns)):
            row, column = y - fields.get("y_pad_0", 0), x - fields.get("x_pad_0", 0)
            if 0 <= row < fields["y_size"] and 0 <= column < fields["x_size"]:
                data, at = self.piece(self.address(memory.name, fields, row) + column * step * size, size)
                element = bytes(data[at : at + size])
            else:
                element = struct.pack("b", fields.get("pad_value", 0)) * size
            if memory.name == "acc8":
                element = struct.pack(f"<{size}i", *struct.unpack(f"{size}b", element))
            self.put(memory.held_in or memory.name, fields["sram"] + y * columns + x, element)

    def store(self, fields: Mapping[str, int]) -> None:
        if not fields["x_size"]:
            return
        for y, x in itertools.product(range(fields["y_size"]), range(fields["x_size"])):
            size = self.machine.block
            data, at = self.piece(self.address("out", fields, y) + x * size, size)
            data[at : at + size] = self.element("out", fields["sram"] + y * fields["x_size"] + x)

    def gemm(self, fields: Mapping[str, int]) -> None:
        block = self.machine.block
        for dst, src, wgt in self.loops(fields, ("dst", "src", "wgt")):
            if fields["reset"]:
                self.put("acc", dst, bytes(4 * block))
                continue
            vector = self.lanes("inp", src)
            matrix = self.lanes("wgt", wgt)
            old = [0] * block if fields.get("overwrite") else self.lanes("acc", dst)
            rows = (matrix[block * out : block * (out + 1)] for out in range(block))
            sums = [sum(x * w for x, w in zip(vector, row, strict=True)) for row in rows]
            self.result(dst, [wrap(a + b) for a, b in zip(old, sums, strict=True)])

    def alu(self, fields: Mapping[str, int]) -> None:
        operation, source = self.operations[fields["alu_op"]], self.source(fields)
        compute = meaning(operation, bool(fields.get("overwrite")))
        zero = struct.unpack("b", struct.pack("B", fields["imm"] & 0xFF))[0]
        fixed = {
            "zero": zero,
            "low": zero if fields["imm"] & 0x100 else -128,
            "swapped": fields["imm"] & 1,
        }
        names = (
            "dst",
            *(("src",) if source != "imm" else ()),
            *(("wgt",) if operation.name in ("MAC", "QADD") else ()),
        )
        for indices in self.loops(fields, names):
            at = dict(zip(names, indices, strict=True))
            lanes: dict[str, Sequence[float]] = {"a": self.lanes("acc", at["dst"])}
            if source in ("acc", "inp"):
                lanes["b"] = self.lanes(source, at["src"])
            if source == "imm":
                lanes["b"] = [fields["imm"]] * self.machine.block
            if source == "par":
                lanes["bias"], lanes["scale"] = self.parameters(at["src"])
            if operation.name == "MAC":
                row = fields["imm"] * self.machine.block
                lanes["row"] = self.lanes("wgt", at["wgt"])[row : row + self.machine.block]
            if operation.name == "QADD":
                scales = self.parameters(at["wgt"])[1]
                for position, name in enumerate(("ra", "rb", "fixed")):
                    lanes[name] = [scales[position]] * self.machine.block
            each = (dict(zip(lanes, values, strict=True)) for values in zip(*lanes.values(), strict=True))
            self.result(at["dst"], [compute(fixed | values) for values in each])

    def loops(self, fields: Mapping[str, int], names: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """The elements of each iteration, uops innermost."""
        form = self.machine.formats["uop"]
        every = itertools.product(
            range(fields["iter_out"]), range(fields["iter_in"]), range(fields["uop_bgn"], fields["uop_end"])
        )
        for outer, inner, uop in every:
            word = int.from_bytes(self.element("uop", uop), "little")
            base = {bits.name: word >> bits.offset & ((1 << bits.width) - 1) for bits in form}
            strides = ((fields.get(f"{name}_out", 0), fields.get(f"{name}_in", 0)) for name in names)
            yield tuple(base[name] + outer * a + inner * b for name, (a, b) in zip(names, strides, strict=True))

    def bounds(self, memory: str, index: int) -> slice:
        size = self.machine.sram_bytes(memory)
        if index >= self.machine.depth(memory):
            raise RunError(f"element {index} of {memory} out of bounds")
        return slice(index * size, (index + 1) * size)

    def element(self, memory: str, index: int) -> bytes:
        return bytes(self.chip[memory][self.bounds(memory, index)])

    def put(self, memory: str, index: int, element: bytes) -> None:
        self.chip[memory][self.bounds(memory, index)] = element

    def lanes(self, memory: str, index: int) -> list[int]:
        element = self.element(memory, index)
        return list(struct.unpack(f"<{len(element) // 4}i" if memory == "acc" else f"{len(element)}b", element))

    def parameters(self, index: int) -> tuple[list[int], list[float]]:
        """Biases and scales."""
        block = self.machine.block
        values = struct.unpack(f"<{block}i{block}f", self.element("par", index))
        return list(values[:block]), list(values[block:])

    def result(self, dst: int, values: Sequence[int]) -> None:
        """ACC, and the low bytes in OUT."""
        self.put("acc", dst, struct.pack(f"<{len(values)}i", *values))
        self.put("out", dst, bytes(value & 0xFF for value in values))


def _footprint(fields: Mapping[str, int]) -> tuple[int, int]:
    """Rows and columns of the elements on the chip, padding included."""
    rows = fields.get("y_pad_0", 0) + fields["y_size"] + fields.get("y_pad_1", 0)
    return rows, fields.get("x_pad_0", 0) + fields["x_size"] + fields.get("x_pad_1", 0)
