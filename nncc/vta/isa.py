"""The accelerator's instruction set, described once: formats, memories, operations of the ALU, capabilities.

All else comes from this page: the encoder and decoder (`nncc.vta.encoding`), the simulator's decoder, the SystemVerilog
package and the reference page (`nncc.vta.generate`), what the interpreter computes, what fuzzing tries. There are two
profiles: ``vta0`` is the encoding of Apache VTA (with its standard configuration bit for bit), ``nv1`` has what
quantized networks need besides.

Instructions have 128 bits, micro-operations 32; bits count from the least significant one. The widths of some fields
depend on the depths of the memories: a width is a number, a name of `WIDTHS`, or a sum of these.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DEPENDENCES",
    "OPCODES",
    "PROFILES",
    "QUEUES",
    "WIDTHS",
    "AluOperation",
    "Field",
    "MemoryKind",
    "Profile",
]

QUEUES = ("load", "compute", "store")
"""The command queues. A token goes between neighbours: load and compute, compute and store."""

OPCODES = {"load": 0, "store": 1, "gemm": 2, "finish": 3, "alu": 4}
"""Kinds of instructions, by the number in their lowest three bits."""

WIDTHS = {
    "uop": "bits of an index into the micro-operations",
    "dst": "bits of an index into ACC",
    "src": "bits of an index into the largest of ACC, INP and PAR",
    "wgt": "bits of an index into the larger of WGT and PAR",
}
"""Widths that follow from the depths of the memories."""


@dataclass(frozen=True)
class Field:
    """Some bits of an instruction."""

    name: str
    width: str
    """A number of bits, a name of `WIDTHS`, or a sum: ``uop+1``."""
    at: int | None = None
    """The lowest bit; None where it follows the field before."""
    signed: bool = False
    doc: str = ""


@dataclass(frozen=True)
class MemoryKind:
    """A memory as instructions name it. Addresses count elements, on the chip and in DRAM."""

    name: str
    id: int
    element: tuple[int, int, int]
    """Bytes of an element in DRAM: a + b block + c block^2."""
    queue: str
    """The queue whose LOADs fill it; empty where none does."""
    base: str
    """What its addresses in DRAM are relative to: ``constants`` or ``arena``."""
    held_in: str = ""
    """The memory on the chip that it is an other form of; empty where it is one itself."""
    doc: str = ""


@dataclass(frozen=True)
class AluOperation:
    """One operation of the ALU, for each lane j of the `block` lanes of an element.

    `meaning` is an expression in Python of a = ACC[dst][j], b = the source's [j] or the immediate, and what else it
    names: ``bias``, ``scale`` (of PAR[src], lane j), ``ra``, ``rb``, ``fixed`` (lanes 0 to 2 of the scales of
    PAR[wgt]), ``row`` (of WGT[wgt], lane j), ``zero``, ``low``, ``swapped`` (of the immediate). Its vocabulary:
    wrap to int32; float32 and the product of two of them rounded to nearest, ties to even; fma with one rounding;
    count(x) = float32(wrap(x + 128));
    shift (right for b >= 0, else left; by 31 and 32 at most); clamp(v, low, high) with low for NaN; nearest_even.
    """

    name: str
    id: int
    meaning: str
    cycles: tuple[tuple[str, int], ...]
    """For each source it takes (``imm``, ``acc``, ``inp``, ``par``), the cycles of one iteration."""
    immediate: str = "operand"
    """What the immediate says: ``operand`` | ``grid`` (bits 0 to 7 zero point, bit 8 low clamp at it) | ``row`` |
    ``order`` (bit 0: the second addend's product is formed last)."""
    overwrite: str = ""
    """What the bit `overwrite` makes of it; empty where it is not allowed."""
    doc: str = ""


@dataclass(frozen=True)
class Profile:
    """An instruction set."""

    name: str
    doc: str
    formats: dict[str, tuple[Field, ...]]
    """By kind of instruction, and ``uop``."""
    memories: tuple[MemoryKind, ...]
    alu: tuple[AluOperation, ...]
    capabilities: tuple[str, ...]

    def memory(self, name: str) -> MemoryKind:
        """A memory by name. Raises KeyError if the profile has none of it."""
        found = next((memory for memory in self.memories if memory.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def operation(self, name: str) -> AluOperation:
        """An operation of the ALU by name. Raises KeyError if the profile has none of it."""
        found = next((operation for operation in self.alu if operation.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


DEPENDENCES = (
    Field("opcode", "3", 0, doc="kind of instruction"),
    Field("pop_prev", "1", doc="wait for a token of the queue before: compute of load, store of compute"),
    Field("pop_next", "1", doc="wait for a token of the queue behind: load of compute, compute of store"),
    Field("push_prev", "1", doc="when complete, give a token to the queue before"),
    Field("push_next", "1", doc="when complete, give a token to the queue behind"),
)
"""How every instruction begins."""

_MOVE_UPPER = (
    Field("y_size", "16", 64, doc="rows"),
    Field("x_size", "16", doc="elements of a row; 0: the instruction only moves tokens"),
    Field("x_stride", "16", doc="from row to row in DRAM, in elements"),
)
_PADS = tuple(
    Field(name, "4", doc=doc)
    for name, doc in (
        ("y_pad_0", "rows of padding above"),
        ("y_pad_1", "rows of padding below"),
        ("x_pad_0", "elements of padding left"),
        ("x_pad_1", "elements of padding right"),
    )
)
_LOOPS = (
    Field("uop_bgn", "uop", 8, doc="the first micro-operation"),
    Field("uop_end", "uop+1", doc="behind the last one"),
    Field("iter_out", "14", doc="iterations of the outer loop"),
    Field("iter_in", "14", doc="iterations of the inner loop"),
)
_STRIDES = (
    Field("dst_out", "dst", 64, doc="what the outer loop adds to dst"),
    Field("dst_in", "dst", doc="what the inner loop adds to dst"),
    Field("src_out", "src", doc="what the outer loop adds to src"),
    Field("src_in", "src", doc="what the inner loop adds to src"),
)
_WEIGHT_STRIDES = (
    Field("wgt_out", "wgt", doc="what the outer loop adds to wgt"),
    Field("wgt_in", "wgt", doc="what the inner loop adds to wgt"),
)
_OPERATION = (
    Field("alu_op", "3", 108, doc="the operation"),
    Field("use_imm", "1", doc="b is the immediate; only for MIN, MAX, ADD, SHR and MUL"),
    Field("imm", "16", signed=True, doc="the immediate"),
)
_RESET = Field("reset", "1", 7, doc="set ACC to 0 instead; OUT stays as it is")
_UOP = (
    Field("dst", "dst", 0, doc="index into ACC and OUT"),
    Field("src", "src", doc="index into INP for GEMM; for the ALU into what the source is"),
    Field("wgt", "wgt", doc="index into WGT; for QADD into PAR"),
)

_STOCK_MOVE = (
    *DEPENDENCES,
    Field("memory", "3", 7, doc="the memory's number"),
    Field("sram", "16", 10, doc="first element on the chip"),
    Field("dram", "32", 26, doc="first element in DRAM, from the memory's base"),
    *_MOVE_UPPER,
)
_OWN_MOVE = (
    *DEPENDENCES,
    Field("memory", "3", 7, doc="the memory's number"),
    Field("sram", "12", 10, doc="first element on the chip"),
    Field("dram", "32", 22, doc="first element in DRAM, from the memory's base"),
)

_MEMORIES = (
    MemoryKind("uop", 0, (4, 0, 0), "compute", "constants", doc="micro-operations"),
    MemoryKind("wgt", 1, (0, 0, 1), "load", "constants", doc="int8 weights [block outputs][block inputs]"),
    MemoryKind("inp", 2, (0, 1, 0), "load", "arena", doc="int8 activations [block]"),
    MemoryKind("acc", 3, (0, 4, 0), "compute", "constants", doc="int32 sums [block]"),
    MemoryKind("out", 4, (0, 1, 0), "", "arena", doc="int8 [block]: the low bytes of what was last computed; STORE"),
    MemoryKind("acc8", 5, (0, 1, 0), "compute", "arena", held_in="acc", doc="int8 in DRAM, int32 in ACC"),
)
_PAR = MemoryKind(
    "par", 6, (0, 8, 0), "load", "constants", doc="parameters of RQ and QADD: int32 bias[block], float32 scale[block]"
)

_STOCK_ALU = (
    AluOperation("MIN", 0, "min(a, b)", (("imm", 1), ("acc", 2))),
    AluOperation("MAX", 1, "max(a, b)", (("imm", 1), ("acc", 2))),
    AluOperation("ADD", 2, "wrap(a + b)", (("imm", 1), ("acc", 2))),
    AluOperation("SHR", 3, "shift(a, b)", (("imm", 1), ("acc", 2)), doc="arithmetic; left where b is negative"),
    AluOperation("MUL", 4, "wrap(a * b)", (("imm", 1), ("acc", 2))),
)
_ANY = (("imm", 1), ("acc", 2), ("inp", 1))
_OWN_ALU = (
    AluOperation("MIN", 0, "min(a, b)", _ANY, overwrite="b"),
    AluOperation("MAX", 1, "max(a, b)", _ANY, overwrite="b"),
    AluOperation("ADD", 2, "wrap(a + b)", _ANY, overwrite="b"),
    AluOperation("SHR", 3, "shift(a, b)", _ANY, doc="arithmetic; left where b is negative"),
    AluOperation("MUL", 4, "wrap(a * b)", _ANY),
    AluOperation(
        "RQ",
        5,
        "nearest_even(clamp(product(float32(wrap(a + bias)), scale), low - zero, 127 - zero)) + zero",
        (("par", 1),),
        immediate="grid",
        doc="requantization: sums of products become int8 on the grid of the result",
    ),
    AluOperation(
        "MAC",
        6,
        "wrap(a + b * row)",
        (("inp", 1),),
        immediate="row",
        overwrite="b * row",
        doc="lane by lane, for depthwise convolutions; the immediate is the row of WGT[wgt]",
    ),
    AluOperation(
        "QADD",
        7,
        "nearest_even(clamp(fma(count(b), rb, fma(count(a), ra, fixed)) if swapped"
        " else fma(count(a), ra, fma(count(b), rb, fixed)), 0, 255)) - 128",
        (("inp", 1), ("acc", 2)),
        immediate="order",
        doc="the sum of two int8 on their grids on a third one; PAR[wgt] has ra, rb and fixed as scales 0, 1 and 2",
    ),
)

PROFILES = {
    "vta0": Profile(
        "vta0",
        "the stock encoding",
        {
            "load": (*_STOCK_MOVE, *_PADS),
            "store": (*_STOCK_MOVE, *_PADS),
            "gemm": (*DEPENDENCES, _RESET, *_LOOPS, *_STRIDES, *_WEIGHT_STRIDES),
            "alu": (*DEPENDENCES, *_LOOPS, *_STRIDES, *_OPERATION),
            "finish": DEPENDENCES,
            "uop": _UOP,
        },
        _MEMORIES,
        _STOCK_ALU,
        (),
    ),
    "nv1": Profile(
        "nv1",
        "the stock encoding and what quantized networks need",
        {
            "load": (
                *_OWN_MOVE,
                Field("pad_value", "8", signed=True, doc="what the padding is; of INP only"),
                Field("x_skip", "2", doc="elements of DRAM between two of a row, read and dropped: x_step - 1"),
                *_MOVE_UPPER,
                *_PADS,
            ),
            "store": (*_OWN_MOVE, *_MOVE_UPPER),
            "gemm": (
                *DEPENDENCES,
                _RESET,
                *_LOOPS,
                Field("overwrite", "1", 63, doc="ACC becomes the product, its old value is ignored"),
                *_STRIDES,
                *_WEIGHT_STRIDES,
            ),
            "alu": (
                *DEPENDENCES,
                Field("overwrite", "1", 7, doc="ACC becomes b (of MAC: the product), its old value is ignored"),
                *_LOOPS,
                Field("from_inp", "1", 63, doc="the source is INP, widened"),
                *_STRIDES,
                *_OPERATION,
            ),
            "finish": DEPENDENCES,
            "uop": _UOP,
        },
        (*_MEMORIES, _PAR),
        _OWN_ALU,
        ("pad_value", "x_step", "overwrite", "from_inp", "requantize", "multiply_accumulate", "quantized_add"),
    ),
}
"""The instruction sets, by name."""
