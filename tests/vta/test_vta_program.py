"""A program is the same after it was bytes; bytes that are none, or damaged anywhere, are refused with the reason."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from vta_programs import product

from nncc.cli.vta import vta
from nncc.errors import RunError
from nncc.vta.disassemble import disassemble, instruction_text
from nncc.vta.encoding import encode
from nncc.vta.machine import Machine
from nncc.vta.program import Binary, binary_bytes, find_binaries, places_in, read_binary

MACHINE = Machine()
BINARY = Binary(MACHINE, product(MACHINE), np.array([5 | 6 << 11 | 7 << 22], np.uint32), ((0, 5), (4, 6)))
DATA = binary_bytes(BINARY)
AGAIN = "compile it again with this version of nncc"


def refusal(data: bytes) -> tuple[str, str | None]:
    with pytest.raises(RunError) as caught:
        read_binary(data, "`p`")
    return caught.value.message, caught.value.hint


def sealed(data: bytes) -> bytes:
    """With a checksum that is right."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


def test_a_program_comes_back():
    read = read_binary(DATA + b"more", "`p`")
    assert read.machine == MACHINE
    assert read.instructions.tolist() == BINARY.instructions.tolist()
    assert read.uops.tolist() == BINARY.uops.tolist()
    assert read.layers == BINARY.layers
    assert binary_bytes(read) == DATA


def test_every_part_begins_at_a_multiple_of_64_bytes():
    assert len(DATA) % 64 == 0
    offsets = DATA.index(BINARY.instructions.tobytes()), DATA.index(BINARY.uops.tobytes())
    assert places_in(DATA) == offsets
    assert [offset % 64 for offset in offsets] == [0, 0]


def test_other_bytes_are_refused():
    assert refusal(b"")[0] == "`p` is no program of an accelerator"
    assert refusal(b"\x7fELF" + bytes(200))[0] == "`p` is no program of an accelerator"
    assert refusal(DATA[:100]) == ("`p` is truncated: it has 100 bytes, its header alone 128", None)
    assert refusal(DATA[:-1]) == (f"`p` is truncated: it has {len(DATA) - 1} of {len(DATA)} bytes", AGAIN)
    assert refusal(DATA[:8] + b"\2" + DATA[9:]) == ("`p` has version 2 of the form of programs, nncc reads 1", AGAIN)
    assert refusal(DATA[:24] + b"\xff\xff\xff\xff" + DATA[28:]) == (
        "`p` is damaged: its header contradicts itself",
        AGAIN,
    )
    assert refusal(DATA[:-1] + b"\1") == ("`p` is damaged: its checksum is another one", AGAIN)


@pytest.mark.parametrize("at", range(0, len(DATA), 7))
def test_no_byte_can_change_unnoticed(at):
    assert refusal(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :])


def test_what_is_whole_and_wrong_is_refused():
    told = "`p` was made for another version of the instruction set `nv1`"
    assert refusal(sealed(DATA[:40] + bytes(32) + DATA[72:])) == (told, AGAIN)
    text = DATA.replace(b'"block": 16', b'"block": 17')
    message = "accelerator: block = 17 is not a power of two"
    assert refusal(sealed(text)) == (f"`p` was made for a machine that nncc does not know: {message}", AGAIN)
    text = DATA.replace(b'"block": 16', b'"block" 16:')
    assert refusal(sealed(text))[0].startswith("`p` was made for a machine that nncc does not know: Expecting ':'")
    layers = DATA.replace(struct.pack("<II", 4, 6), struct.pack("<II", 4, 8))
    assert refusal(sealed(layers)) == ("`p` is damaged: its layers have instructions that it has not", AGAIN)


def test_programs_are_found_inside_of_libraries():
    mention = b"NNCC_VTA in a text"
    found = find_binaries(b"\x7fELF" + mention + DATA + b"abc" + DATA + mention, "`l`")
    assert [each.layers for each in found] == [BINARY.layers] * 2
    for data, message in (
        (b"\x7fELF" + bytes(100), "`l` has no program of an accelerator in it"),
        (b"\x7fELF" + DATA[:-1], f"`l` is truncated: it has {len(DATA) - 1} of {len(DATA)} bytes"),
        (b"\x7fELF" + DATA[:-1] + b"\1", "`l` is damaged: its checksum is another one"),
    ):
        with pytest.raises(RunError) as caught:
            find_binaries(data, "`l`")
        assert caught.value.message == message


LISTING = """\
program for nv1_16x16_inp32_wgt256_acc128_uop16_par32: 7 instructions, 1 micro-operations, 2 layers
layer 0: instructions 0 to 4
     0  load  uop  0     <- dram 0 1x1
     1  load  inp  0     <- dram 0 1x4
     2  load  wgt  0     <- dram 0 1x1{tokens}then compute
     3  reset      1x4 of uops 0:1, dst +0 +1, src +0 +0, wgt +0 +0
layer 1: instructions 4 to 5
     4  gemm       1x4 of uops 0:1, dst +0 +1, src +0 +1, wgt +0 +0{gemm}after load, then store
     5  store out  0     -> dram 0 1x4{store}after compute, then compute
     6  finish{finish}after store
micro-operations
     0  dst    5  src    6  wgt    7
"""


def test_a_listing_has_a_line_for_each_instruction(tmp_path):
    file = tmp_path / "program"
    file.write_bytes(DATA)
    expected = LISTING.format(tokens=" " * 65, gemm=" " * 36, store=" " * 65, finish=" " * 88)
    assert disassemble(BINARY, uops=True).split() == expected.split()
    done = CliRunner().invoke(vta, ["disasm", str(file), "--uops"])
    assert (done.exit_code, done.stdout) == (0, disassemble(BINARY, uops=True))


def test_a_file_without_programs_is_refused(tmp_path):
    (tmp_path / "model.so").write_bytes(b"\x7fELF")
    done = CliRunner().invoke(vta, ["disasm", str(tmp_path / "model.so")])
    assert done.exit_code == 1
    assert done.stderr == (
        f"error: `{tmp_path / 'model.so'}` has no program of an accelerator in it\n\n"
        "hint: compile for a target with an accelerator\n"
    )
    done = CliRunner().invoke(vta, ["disasm", str(tmp_path / "none")])
    assert done.stderr == f"error: cannot read `{tmp_path / 'none'}`: No such file or directory\n"


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("load", {"memory": 2, "sram": 9, "dram": 77, "y_size": 3, "x_size": 4, "x_stride": 8, "x_skip": 1,
         "y_pad_0": 1, "x_pad_1": 2, "pad_value": -128},
         "load inp 9 <- dram 77 3x4 every 8 step 2 pad [1, 0, 0, 2] of -128"),
        ("load", {"memory": 0, "pop_next": 1, "push_prev": 1}, "load uop nothing after store, then load"),
        ("load", {"memory": 7, "x_size": 1, "y_size": 1}, "load memory 7 0 <- dram 0 1x1"),
        ("alu", {"alu_op": 5, "imm": 259, "uop_end": 1, "iter_out": 2, "iter_in": 3}, "rq 2x3 of uops 0:1, dst +0 +0, "
         "src +0 +0, imm 259"),
        ("alu", {"alu_op": 1, "from_inp": 1, "overwrite": 1}, "max= from inp 0x0 of uops 0:0, dst +0 +0, src +0 +0"),
        ("gemm", {"overwrite": 1}, "gemm= 0x0 of uops 0:0, dst +0 +0, src +0 +0, wgt +0 +0"),
    ],
)  # fmt: skip
def test_instructions_are_told_in_words(kind, fields, text):
    assert instruction_text(MACHINE, encode(MACHINE, kind, **fields)).split() == text.split()


def test_what_is_no_instruction_is_told_too():
    assert instruction_text(MACHINE, 7) == f"{7:032x}: no instruction has the opcode 7"
