"""A machine that can be made can be encoded for and holds a tile; its hash says what its programs depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nncc.errors import TargetError
from nncc.vta.isa import PROFILES
from nncc.vta.machine import MEMORIES, Machine


def refusal(**sizes: object) -> tuple[str, str | None]:
    with pytest.raises(TargetError) as caught:
        Machine(**sizes)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("profile", PROFILES)
def test_the_depths_are_those_of_the_standard_configuration(profile):
    machine = Machine(profile)
    depths = {kind.name: machine.depth(kind.name) for kind in machine.description.memories}
    assert depths.pop("uop") == {"vta0": 8192, "nv1": 4096}[profile]
    assert depths.pop("par", 256) == 256
    assert depths == {"wgt": 1024, "inp": 2048, "acc": 2048, "out": 2048, "acc8": 2048}


@pytest.mark.parametrize("profile", PROFILES)
def test_numbers_and_names_are_unique(profile):
    description = PROFILES[profile]
    for things in (description.memories, description.alu):
        assert len({thing.id for thing in things}) == len({thing.name for thing in things}) == len(things)
        assert all(0 <= thing.id < 8 for thing in things)
    for form in description.formats.values():
        assert len({field.name for field in form}) == len(form)


@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("profile", PROFILES)
def test_no_field_overlaps_another_or_the_middle_of_an_instruction(profile, block):
    for form in Machine(profile, block=block).formats.values():
        taken = [bit for bits in form for bit in range(bits.offset, bits.offset + bits.width)]
        assert len(set(taken)) == len(taken)
        assert all(bits.offset // 64 == (bits.offset + bits.width - 1) // 64 for bits in form)


def test_the_hash_depends_on_what_programs_depend_on_and_on_nothing_else():
    machine = Machine()
    same = [replace(machine, bus_bytes=16), replace(machine, clock_mhz=200, memory="ideal", pipeline_cycles=3)]
    other = [replace(machine, block=32), replace(machine, inp_kib=16), Machine("vta0"), replace(machine, par_kib=16)]
    assert {each.isa_hash for each in same} == {machine.isa_hash}
    assert len({each.isa_hash for each in (machine, *other)}) == 1 + len(other)


def test_every_memory_has_bursts_that_end_with_a_page():
    assert all(4096 % memory.burst_bytes == 0 for memory in MEMORIES.values())


def test_a_table_fills_a_machine():
    assert Machine.from_table({"profile": "vta0", "inp_kib": 16}, "t.toml") == Machine("vta0", inp_kib=16)


def test_what_cannot_be_is_refused():
    assert refusal(profile="nv2") == ("accelerator: unknown profile `nv2`", "did you mean `nv1`?")
    assert refusal(memory="ddr") == ("accelerator: unknown memory `ddr`", "known: ideal, pynq, ultra96")
    assert refusal(profile="vta0", par_kib=8) == ("accelerator: profile `vta0` has no PAR, but par_kib = 8", None)
    assert refusal(block=128) == ("accelerator: block = 128 is not between 8 and 64", None)
    assert refusal(wgt_kib=100) == ("accelerator: wgt_kib = 100 is not a power of two", None)
    assert refusal(block=64, wgt_kib=4) == (
        "accelerator: WGT holds no tile: it has 4096 bytes, two elements of 4096 need 8192",
        "make it larger, or the block smaller",
    )
    deep = "the memories are too deep for the instructions: make them smaller, or the block larger"
    assert refusal(acc_kib=512) == (
        "accelerator: the fields of `gemm` do not fit: `wgt_in` would be bits 126 to 135",
        deep,
    )
    assert refusal(uop_kib=64) == (
        "accelerator: the fields of `gemm` do not fit: `iter_in` would be bits 51 to 64",
        deep,
    )


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"blocks": 16}, "t.toml: [accelerator] has an unknown key `blocks`", "did you mean `block`?"),
        ({"block": "16"}, "t.toml: [accelerator] block = '16' is no whole number", None),
        ({"block": True}, "t.toml: [accelerator] block = True is no whole number", None),
        ({"profile": 1}, "t.toml: [accelerator] profile = 1 is no text", None),
    ],
)
def test_a_table_is_checked(table, message, hint):
    with pytest.raises(TargetError) as caught:
        Machine.from_table(table, "t.toml")
    assert (caught.value.message, caught.value.hint) == (message, hint)
