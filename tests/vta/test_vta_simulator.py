"""The simulator computes what its description says, in cycles that can be counted by hand, and survives any program."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from vta_programs import bases, place, product, program, ran

from nncc.errors import RunError, ToolError
from nncc.vta.machine import Machine
from nncc.vta.simulator import build_simulator, open_simulator

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
PROFILES = ("vta0", "nv1")
RANDOM = np.random.default_rng(7)
VECTORS = RANDOM.integers(-128, 128, (4, 16), dtype=np.int8)
MATRIX = RANDOM.integers(-128, 128, (1, 16, 16), dtype=np.int8)
PRODUCT = (VECTORS.astype(int) @ MATRIX[0].T.astype(int)).astype(np.int8).reshape(-1)


def refusal(machine: Machine, instructions: np.ndarray, options: str = "", **arrays: np.ndarray) -> str:
    with pytest.raises(RunError) as caught:
        ran(machine, instructions, options=options, **{"inp": VECTORS, "wgt": MATRIX, **arrays})
    return caught.value.message


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("options", ["", "memory=ideal", "memory=ultra96", "check=on", "seed=1", "seed=2"])
def test_a_product_is_exact(profile, options):
    machine = Machine(profile)
    stored, counters = ran(machine, product(machine), options=options, inp=VECTORS, wgt=MATRIX)
    assert stored.tolist() == PRODUCT.tolist()
    if "=on" not in options and "seed" not in options:
        assert (counters["gemm_iterations"], counters["OUT_bytes"], counters["WGT_bytes"]) == (8, 64, 256)


def test_cycles_are_those_of_the_model():
    """Without latency: fetching 7 instructions takes 2 cycles each, from then on one can add up the rest."""
    machine = Machine(memory="ideal")
    with open_simulator(machine) as device:
        regions = place(machine, device, inp=VECTORS, wgt=MATRIX) | {"out": device.alloc(64)}
        device.run(device.put(product(machine)), bases(machine, regions))
        done, counters = device.profile(range(8)), device.counters()
    # The load queue gets its second instruction, the first of its own, when 4 beats have come.
    vectors_asked = 4 + machine.issue_cycles
    # By then the port is still busy with 14 beats of instructions and one beat of micro-operations.
    vectors = 14 + 1 + 8
    assert vectors_asked < 14 + 1
    matrix = vectors + machine.issue_cycles + 32
    gemm = matrix + machine.issue_cycles + 4 + machine.pipeline_cycles
    store = gemm + machine.issue_cycles + 8
    assert done[3:] == [matrix, matrix, gemm, store, store + machine.issue_cycles]
    assert counters["cycles"] == done[-1]
    assert counters["read_port_busy"] == 14 + 1 + 8 + 32
    assert counters["write_port_busy"] == 8


def test_only_cycles_are_the_same_cycles():
    machine = Machine()
    _, exact = ran(machine, product(machine), inp=VECTORS, wgt=MATRIX)
    stored, timed = ran(machine, product(machine), options="arithmetic=off", inp=VECTORS, wgt=MATRIX)
    assert timed == exact
    assert not stored.any()


def test_padding_steps_and_strides():
    """Every second element of rows of 7, two rows apart, with a border of its own."""
    machine = Machine()
    data = RANDOM.integers(-128, 128, (5, 7, 16), dtype=np.int8)
    load = {"memory": 2, "dram": 7, "y_size": 2, "x_size": 3, "x_stride": 14, "x_skip": 1, "pad_value": -7}
    pads = {"y_pad_0": 1, "y_pad_1": 2, "x_pad_0": 1, "x_pad_1": 3}
    instructions = program(
        machine,
        ("load", {"memory": 0, "x_size": 1, "y_size": 1}),
        ("load", load | pads | {"push_next": 1}),
        (
            "alu",
            {"alu_op": 2, "overwrite": 1, "from_inp": 1, "uop_end": 1, "iter_out": 1, "iter_in": 35, "dst_in": 1,
             "src_in": 1, "pop_prev": 1, "push_next": 1},
        ),
        ("store", {"memory": 4, "x_size": 35, "y_size": 1, "x_stride": 35, "pop_prev": 1, "push_prev": 1}),
        ("finish", {"pop_next": 1}),
    )  # fmt: skip
    stored, _ = ran(machine, instructions, out=35 * 16, inp=data)
    expected = np.full((5, 7, 16), -7, np.int8)
    expected[1:3, 1:4] = data[1:5:2, 0:5:2]
    assert stored.tolist() == expected.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("step", "change", "message"),
    [
        ("gemm", {"pop_prev": 0}, "1 token of load for compute are left at the end"),
        ("matrix", {"push_next": 0}, "deadlock: load is empty; compute waits at instruction 4 (gemm) for a token of "
         "load; store waits at instruction 5 (store) for a token of compute"),
        ("store", {"push_prev": 0}, "deadlock: load is empty; compute waits at instruction 6 (finish) for a token of "
         "store; store is empty"),
        ("finish", {"pop_next": 0}, "instruction 6 (finish): it does not wait for all that load and store have to do"),
        ("matrix", {"pop_prev": 1}, "instruction 2 (load): there is no queue before load"),
        ("store", {"push_next": 1}, "instruction 5 (store): there is no queue behind store"),
        ("finish", {"push_next": 1}, "instruction 6 (finish): nobody waits for tokens of the end"),
        ("vectors", {"memory": 7}, "instruction 1 (load): it cannot fill memory 7"),
        ("store", {"memory": 2}, "instruction 5 (store): it cannot read memory 2"),
        ("vectors", {"x_size": 5}, "instruction 1 (load): bytes 0x10000 to 0x10050 of DRAM are not all within one "
         "piece of memory"),
        ("vectors", {"sram": 2045}, "instruction 1 (load): it reaches to element 2049 of INP, which has 2048"),
        ("matrix", {"pad_value": 1}, "instruction 2 (load): only INP has another padding than 0"),
        ("gemm", {"reset": 1, "overwrite": 1}, "instruction 4 (gemm): it both resets and overwrites"),
        ("gemm", {"iter_in": 2000, "iter_out": 2}, "instruction 4 (gemm): micro-operation 0 reads element 1999 of WGT"),
        ("gemm", {"src_in": 1000}, "instruction 4 (gemm): micro-operation 0 reads element 3000 of INP, which has 2048"),
        ("gemm", {"uop_end": 4097}, "instruction 4 (gemm): it reads micro-operations up to 4097, of 4096"),
        ("gemm", {"uop_bgn": 2}, "instruction 4 (gemm): its micro-operations end at 1, before 2"),
    ],
)  # fmt: skip
def test_a_program_at_fault_is_told_so(step, change, message):
    if "iter_in" in change:
        change = change | {"wgt_in": 1}
        message += ", which has 1024"
    assert refusal(Machine(), product(Machine(), **{step: change})) == message
    assert "deadlock" not in message or refusal(Machine(), product(Machine(), **{step: change}), "seed=1") == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alu_op": 5, "use_imm": 1}, "RQ takes no immediate"),
        ({"alu_op": 5, "from_inp": 1}, "RQ takes no source in INP"),
        ({"alu_op": 5, "imm": 512}, "RQ takes no immediate 0x200"),
        ({"alu_op": 6}, "MAC takes no source in ACC"),
        ({"alu_op": 6, "from_inp": 1, "imm": 16}, "MAC takes no immediate 0x10"),
        ({"alu_op": 3, "overwrite": 1}, "SHR cannot overwrite"),
        ({"alu_op": 0, "use_imm": 1, "from_inp": 1}, "it has both an immediate and a source"),
    ],
)
def test_operations_take_what_their_description_has(fields, message):
    machine = Machine()
    instructions = program(machine, ("alu", fields), ("finish", {}))
    assert refusal(machine, instructions) == f"instruction 0 (alu): {message}"


def test_the_stock_profile_has_nothing_more():
    machine = Machine("vta0")
    for fields, bit in (({"alu_op": 5}, None), ({}, 63), ({}, 7)):
        words = program(machine, ("alu", fields), ("finish", {}))
        words[0, 0] |= np.uint64(1 << bit if bit is not None else 0)
        told = "there is no operation 5" if bit is None else f"bit {bit} is set, which is no field's"
        assert refusal(machine, words) == f"instruction 0 (alu): {told}"


def test_other_words_are_no_program():
    machine = Machine()
    end = program(machine, ("finish", {}))
    assert refusal(machine, np.array([[5, 0]], np.uint64)) == "instruction 0: no instruction has the opcode 5"
    assert refusal(machine, np.concatenate([end, end])) == "instruction 0 (finish): instructions follow"
    assert refusal(machine, product(machine)[:-1]) == "instruction 5 (store): the program ends without FINISH"


def test_more_tokens_than_a_counter_holds_are_an_error():
    machine = Machine()
    steps = [("load", {"memory": 2, "push_next": 1})] * 256
    # Compute has first to wait for its own load, so that all tokens are given by then.
    first = ("load", {"memory": 3, "x_size": 64, "y_size": 31, "x_stride": 64})
    instructions = program(machine, first, *steps, ("finish", {}))
    message = "instruction 256 (load): more than 255 tokens wait for the queue behind"
    assert refusal(machine, instructions, "memory=ideal", acc=np.zeros((2048, 16), np.int32)) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gemm": {"pop_prev": 0}, "finish": {"pop_prev": 1}}, "instruction 4 (gemm): it reads element 0 of INP, which "
         "instruction 1 of load writes, and does not wait for that"),
        ({"store": {"pop_prev": 0}, "finish": {"pop_next": 1}, "gemm": {"push_next": 0}},
         "instruction 5 (store): it reads element 0 of OUT, which instruction 4 of compute writes, and does not wait "
         "for that"),
        ({"clear": {"iter_in": 3}}, "instruction 4 (gemm): it reads element 3 of ACC, which nothing has written"),
        ({"store": {"x_size": 2, "sram": 3}}, "instruction 5 (store): it reads element 4 of OUT, which nothing has "
         "written"),
        ({"store": {"push_prev": 0}, "finish": {"pop_next": 0}}, "instruction 6 (finish): it does not wait for "
         "instruction 5, of store"),
    ],
)  # fmt: skip
def test_orders_left_to_chance_are_found(change, message):
    assert refusal(Machine(), product(Machine(), **change), "check=on") == message


def test_a_result_that_is_loaded_too_early_is_found():
    """The arena of loads is where the result is stored: the second load may come before or after that."""
    machine = Machine()
    instructions = program(
        machine,
        ("load", {"memory": 0, "x_size": 1, "y_size": 1}),
        ("load", {"memory": 3, "x_size": 1, "y_size": 1}),
        ("alu", {"alu_op": 2, "use_imm": 1, "imm": 1, "uop_end": 1, "iter_out": 1, "iter_in": 1, "push_next": 1}),
        ("store", {"memory": 4, "x_size": 1, "y_size": 1, "pop_prev": 1, "push_prev": 1}),
        ("load", {"memory": 2, "x_size": 1, "y_size": 1, "push_next": 1}),
        ("load", {"memory": 0, "pop_prev": 1, "pop_next": 1}),
        ("finish", {}),
    )
    with open_simulator(machine, "check=on") as device:
        regions = place(machine, device, acc=np.zeros((1, 16), np.int32), inp=VECTORS)
        regions["out"] = regions["inp"]
        with pytest.raises(RunError) as caught:
            device.run(device.put(instructions), bases(machine, regions))
    message = "it reads byte 0x12000 of DRAM, which instruction 3 of store writes, and does not wait for that"
    assert caught.value.message == f"instruction 4 (load): {message}"


def test_a_program_that_takes_too_long_is_stopped():
    machine = Machine()
    loops = {"uop_end": 1, "iter_out": 16383, "iter_in": 16383, "reset": 1}
    instructions = program(machine, ("load", {"memory": 0, "x_size": 1, "y_size": 1}), ("gemm", loops), ("finish", {}))
    with pytest.raises(RunError) as caught:
        ran(machine, instructions, seconds=0.01)
    assert caught.value.message == "the program did not finish in time"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("fpga", "this driver opens `sim` and `sim:OPTION=VALUE,...`, not `fpga`"),
        ("sim:memory=ddr", "there is no memory `ddr`; known: ideal, pynq, ultra96"),
        ("sim:speed=1", "`sim` has no option `speed`; known: memory, latency, burst, outstanding, seed, "
         "arithmetic, check"),
        ("sim:check", "`check` is no option: an option is NAME=VALUE"),
        ("sim:check=yes", "check is on or off, not `yes`"),
        ("sim:latency=-1", "latency=-1 is not between 0 and 1000000"),
        ("sim:burst=100", "burst=100 is no power of two"),
        ("sim:seed=1,check=on", "check=on looks at all orders: seed has no meaning with it"),
        ("sim:arithmetic=off,check=on", "arithmetic=off only tells cycles: it goes with neither seed nor check"),
    ],
)  # fmt: skip
def test_options_are_checked(uri, message):
    with open_simulator(Machine()) as device, pytest.raises(RunError) as caught:
        device.driver.open(uri)
    assert caught.value.message == f"cannot open `{uri}`: {message}"


def test_memory_is_checked():
    with open_simulator(Machine(), "latency=3") as device:
        assert device.info().memory == "pynq,latency=3"
        region = device.alloc(100)
        device.free(region)
        for call, message in (
            (lambda: device.free(region), "no memory begins at 0x10000"),
            (lambda: device.alloc(1 << 50), "there is no memory for 1125899906842624 bytes"),
            (lambda: device.flush(region), "100 bytes at 0x10000 are not within one piece of memory"),
            (lambda: device.run(region, {}), "6 instructions at 0x10000 are not within one piece of memory, aligned to "
             "16 bytes"),
            (lambda: device.profile([0]), "no program has run by the cycle"),
        ):  # fmt: skip
            with pytest.raises(RunError) as caught:
                call()
            assert caught.value.message == message
    with pytest.raises(RunError) as caught:
        device.info()
    assert caught.value.message == "the device `sim:latency=3` is closed"


def test_it_is_compiled_once(tmp_path):
    library = build_simulator(Machine(), tmp_path)
    changed = library.stat().st_mtime_ns
    assert build_simulator(Machine(), tmp_path) == library
    assert library.stat().st_mtime_ns == changed
    assert list(tmp_path.iterdir()) == [library]


def test_without_a_compiler_it_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setattr("nncc.vta.simulator.toolchains", lambda target: [])
    with pytest.raises(ToolError) as caught:
        build_simulator(Machine(), tmp_path)
    assert caught.value.message == "the simulator needs a C++ compiler: there is none"
    assert caught.value.hint == "install g++, or `pip install ziglang`"
