"""What is encoded is decoded, and the stock profile has the bits of Apache VTA's hw_spec.h."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nncc.errors import InternalError, RunError
from nncc.vta.encoding import decode, decode_all, decode_uops, encode, encode_all, encode_uops, words_of
from nncc.vta.isa import OPCODES
from nncc.vta.machine import Machine

MACHINES = [Machine("vta0"), Machine(), Machine(block=32), Machine("vta0", block=64)]


@st.composite
def instructions(draw: st.DrawFn) -> tuple[Machine, str, dict[str, int]]:
    machine, kind = draw(st.sampled_from(MACHINES)), draw(st.sampled_from(sorted(OPCODES)))
    form = [bits for bits in machine.formats[kind] if bits.name != "opcode"]
    return machine, kind, {bits.name: draw(st.integers(bits.least, bits.most)) for bits in form}


@given(instructions())
def test_a_field_comes_back(instruction):
    machine, kind, fields = instruction
    decoded = decode(machine, encode(machine, kind, **fields))
    assert (decoded.kind, decoded.fields) == (kind, {"opcode": OPCODES[kind], **fields})


@given(st.lists(instructions(), min_size=1, max_size=8))
def test_columns_are_as_single_instructions(many):
    machine = many[0][0]
    many = [(kind, fields) for own, kind, fields in many if own == machine]
    program = np.concatenate([encode_all(machine, kind, **fields) for kind, fields in many])
    assert words_of(program) == [encode(machine, kind, **fields) for kind, fields in many]
    for kind, (at, columns) in decode_all(machine, program).items():
        assert [many[i][0] for i in at] == [kind] * len(at)
        for position, i in enumerate(at):
            assert {name: int(column[position]) for name, column in columns.items() if name != "opcode"} == many[i][1]


@given(st.sampled_from(MACHINES), st.data())
def test_micro_operations_come_back(machine, data):
    limits = [bits.most for bits in machine.formats["uop"]]
    uops = data.draw(st.lists(st.tuples(*[st.integers(0, limit) for limit in limits])))
    array = np.array(uops, np.int64).reshape(-1, 3)
    assert decode_uops(machine, encode_uops(machine, array)).tolist() == array.tolist()


def test_stock_instructions_have_the_stock_bits():
    """From VTAMemInsn, VTAGemInsn, VTAAluInsn and VTAUop of hw_spec.h, configured as 1x16_i8w8a32_15_15_18_17."""
    machine = Machine("vta0")
    load = encode(machine, "load", pop_next=1, memory=2, sram=3, dram=5, y_size=7, x_size=11, x_stride=13, x_pad_1=15)
    assert load == 1 << 4 | 2 << 7 | 3 << 10 | 5 << 26 | 7 << 64 | 11 << 80 | 13 << 96 | 15 << 124
    gemm = encode(
        machine, "gemm", reset=1, uop_bgn=3, uop_end=5, iter_out=7, iter_in=9, dst_out=11, dst_in=13, src_out=15,
        src_in=17, wgt_out=19, wgt_in=21,
    )  # fmt: skip
    lower = 3 << 8 | 5 << 21 | 7 << 35 | 9 << 49
    upper = 11 << 64 | 13 << 75 | 15 << 86 | 17 << 97
    assert gemm == 2 | 1 << 7 | lower | upper | 19 << 108 | 21 << 118
    alu = encode(
        machine, "alu", uop_bgn=3, uop_end=5, iter_out=7, iter_in=9, dst_out=11, dst_in=13, src_out=15, src_in=17,
        alu_op=3, use_imm=1, imm=-2,
    )  # fmt: skip
    assert alu == 4 | lower | upper | 3 << 108 | 1 << 111 | 0xFFFE << 112
    assert encode(machine, "finish") == 3
    assert encode_uops(machine, np.array([[3, 5, 7]])).tolist() == [3 | 5 << 11 | 7 << 22]


def test_own_instructions_have_the_bits_of_the_design():
    machine = Machine()
    load = encode(machine, "load", memory=2, sram=3, dram=5, pad_value=-128, x_skip=2, y_size=7, x_pad_0=9)
    assert load == 2 << 7 | 3 << 10 | 5 << 22 | 128 << 54 | 2 << 62 | 7 << 64 | 9 << 120
    assert encode(machine, "gemm", overwrite=1) == 2 | 1 << 63
    assert encode(machine, "alu", overwrite=1, from_inp=1, alu_op=7) == 4 | 1 << 7 | 1 << 63 | 7 << 108


def test_what_does_not_fit_is_refused():
    for fields, message in (
        ({"iter_in": 16384}, "accelerator: iter_in = 16384 of a `alu` is not between 0 and 16383"),
        ({"imm": -32769}, "accelerator: imm = -32769 of a `alu` is not between -32768 and 32767"),
        ({"bias": 1}, "accelerator: a `alu` of nv1 has no field `bias`"),
    ):
        with pytest.raises(InternalError) as caught:
            encode(Machine(), "alu", **fields)
        assert caught.value.message == message
    with pytest.raises(InternalError) as caught:
        encode_uops(Machine(), np.array([[0, 2048, 0]]))
    assert caught.value.message == "accelerator: src = 2048 of a `uop` is not between 0 and 2047"


def test_what_is_no_instruction_is_refused():
    for word, message in (
        (5, "no instruction has the opcode 5"),
        (3 | 1 << 70, "a `finish` has bit 70 set, which is no field's"),
    ):
        with pytest.raises(RunError) as caught:
            decode(Machine(), word)
        assert caught.value.message == message
