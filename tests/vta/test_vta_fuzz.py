"""Random programs: simulator and interpreter end with the same memory, in any order, and fail on the same programs.

`record_property` has the counts, which `pytest --junit-xml` and ``-rP`` show.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from vta_fuzz import broken, counted, interpreted, mutants, sample, simulated, without_a_token
from vta_programs import driver

from nncc.host import host
from nncc.vta.encoding import decode
from nncc.vta.isa import PROFILES
from nncc.vta.machine import Machine
from nncc.vta.simulator import build_simulator

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
MACHINES = {
    "vta0": Machine("vta0"),
    "nv1": Machine(),
    "narrow": Machine(block=8, inp_kib=4, wgt_kib=16, acc_kib=16, uop_kib=8, par_kib=8),
    "wide": Machine(block=32, bus_bytes=16, memory="ultra96"),
}
LEFT_TO_CHANCE = ("does not wait for", "nothing has written")


def agree(machine: Machine, seeds: range, orders: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    simulator = driver(machine)
    for seed in seeds:
        program = sample(machine, seed)
        expected = interpreted(program)
        assert not isinstance(expected, str), f"seed {seed}: {expected}"
        options = ["", "memory=ideal", "check=on", *(f"seed={1 + order}" for order in range(orders))]
        for option in options:
            found = simulated(simulator, program, option)
            assert found == expected, f"seed {seed}, `{option}`: {found if isinstance(found, str) else 'other bytes'}"
        counts["programs"] += 1
        counts["runs"] += len(options)
        counts["instructions"] += len(program.words)
        counts["changed the arena"] += expected[1] != program.arena
        for word in program.words:
            instruction = decode(machine, word)
            name = instruction.kind
            if name == "alu":
                name = machine.description.alu[instruction.fields["alu_op"]].name
            counts[name] += 1
    return counts


def agree_on_broken(machine: Machine, seeds: range) -> Counter[str]:
    counts: Counter[str] = Counter()
    simulator = driver(machine)
    for seed in seeds:
        program = broken(sample(machine, seed // 8), seed)
        checked, expected = simulated(simulator, program, "check=on", 2.0), interpreted(program)
        found = simulated(simulator, program, "", 2.0)
        if isinstance(checked, str) and any(words in checked for words in LEFT_TO_CHANCE):
            counts["left to chance"] += 1
            continue
        fails = [isinstance(each, str) for each in (checked, expected, found)]
        assert len(set(fails)) == 1, f"seed {seed}: {[e for e in (checked, expected, found) if isinstance(e, str)]}"
        counts["refused" if fails[0] else "still sound"] += 1
        if not fails[0]:
            assert found == checked == expected, f"seed {seed}"
    return counts


def every_token_counts(machine: Machine, seeds: range) -> Counter[str]:
    """One bit less is always found; a whole token less too, unless then no order changes the result."""
    counts: Counter[str] = Counter()
    simulator = driver(machine)
    for seed in seeds:
        good = sample(machine, seed)
        expected = simulated(simulator, good, "check=on")
        for name, mutant in mutants(good):
            counts["bits"] += 1
            assert isinstance(simulated(simulator, mutant, "check=on"), str), f"seed {seed}: without {name}"
            assert isinstance(simulated(simulator, mutant, ""), str), f"seed {seed}: without {name}, by the cycle"
        for name, mutant in without_a_token(good):
            if isinstance(simulated(simulator, mutant, "check=on"), str):
                counts["tokens needed"] += 1
                continue
            counts["tokens that others made needless"] += 1
            for order in range(1, 21):
                assert simulated(simulator, mutant, f"seed={order}") == expected, f"seed {seed}: {name} was not found"
    return counts


@pytest.mark.parametrize("profile", ["vta0", "nv1"])
def test_sound_programs_have_one_result(profile, record_property):
    counts = agree(MACHINES[profile], range(60), orders=20)
    record_property("counts", dict(counts))
    assert counts["programs"] == 60
    assert counts["changed the arena"] > 30
    assert all(counts[operation.name] for operation in PROFILES[profile].alu)


@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_blocks_of_other_sizes_compute_the_same(name):
    agree(MACHINES[name], range(20), orders=2)


@pytest.mark.parametrize("profile", ["vta0", "nv1"])
def test_broken_programs_are_refused_alike(profile, record_property):
    counts = agree_on_broken(MACHINES[profile], range(200))
    record_property("counts", dict(counts))
    assert sum(counts.values()) == 200
    assert min(counts.values()) > 5


def test_what_was_refused_by_one_of_them_only_is_refused_by_both():
    """The interpreter once let an overwriting GEMM write behind the end of ACC."""
    assert agree_on_broken(MACHINES["nv1"], range(12860, 12861))["refused"] == 1


@pytest.mark.parametrize("profile", ["vta0", "nv1"])
def test_every_dropped_token_is_found(profile, record_property):
    counts = every_token_counts(MACHINES[profile], range(1000, 1010))
    record_property("counts", dict(counts))
    assert counts["bits"] > 50 and counts["tokens needed"] > 20


@pytest.mark.parametrize(
    "options", ["memory=ideal", "memory=pynq", "memory=ultra96,outstanding=1", "latency=200,burst=16"]
)
def test_every_cycle_of_the_compute_queue_is_accounted_for(options):
    """FINISH is its last instruction: until then it is busy, or waits for something that has a name."""
    machine = MACHINES["nv1"]
    for seed in range(20):
        program = sample(machine, seed)
        counters, complete = counted(driver(machine), program, options)
        parts = ("compute_busy", "compute_wait_fetch", "compute_wait_load", "compute_wait_store")
        assert sum(counters[part] for part in parts) == counters["cycles"] == complete[-1]
        busy = ("compute_gemm", "compute_alu", "compute_moves", "compute_overhead")
        assert sum(counters[part] for part in busy) == counters["compute_busy"]
        for queue in ("load", "store"):
            assert sum(value for name, value in counters.items() if name.startswith(f"{queue}_")) <= counters["cycles"]
        assert complete == sorted(complete) and complete[0] == 0
        assert max(counters["read_port_busy"], counters["write_port_busy"]) <= counters["cycles"]
        assert counted(driver(machine), program, f"{options},arithmetic=off") == (counters, complete)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_thousands_of_sound_programs(name, record_property):
    record_property("counts", dict(agree(MACHINES[name], range(10_000, 13_000), orders=20)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_thousands_of_broken_programs(name, record_property):
    record_property("counts", dict(agree_on_broken(MACHINES[name], range(10_000, 18_000))))


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_tokens_of_hundreds_of_programs(name, record_property):
    record_property("counts", dict(every_token_counts(MACHINES[name], range(2000, 2300))))


SANITIZED = """
import json
import sys
from collections import Counter
from pathlib import Path
from vta_fuzz import broken, sample, simulated
from nncc.vta.driver import Driver
from nncc.vta.machine import Machine
driver, machine = Driver(Path(sys.argv[1])), Machine(sys.argv[2])
counts = Counter()
for seed in range(int(sys.argv[3])):
    good = sample(machine, seed // 8)
    program = broken(good, seed) if seed % 8 else good
    for options in ("", "check=on", "seed=1", "arithmetic=off"):
        counts["refused" if isinstance(simulated(driver, program, options, 2.0), str) else "ran"] += 1
    counts["programs"] += 1
print(json.dumps(counts))
"""


@pytest.mark.skipif(host().system != "Linux", reason="the sanitizer is loaded before Python as on Linux")
@pytest.mark.parametrize(
    ("profile", "count"),
    [
        ("nv1", 150),
        pytest.param("nv1", 20_000, marks=pytest.mark.slow),
        pytest.param("vta0", 20_000, marks=pytest.mark.slow),
    ],
)
def test_no_program_makes_the_simulator_touch_what_is_not_its_own(profile, count, tmp_path, record_property):
    names = ("libasan.so", "libstdc++.so")
    ask = [["c++", f"-print-file-name={name}"] for name in names]
    loaded = [subprocess.run(command, capture_output=True, text=True).stdout.strip() for command in ask]
    if not all(map(os.path.isabs, loaded)):
        pytest.skip("the compiler has no address sanitizer")
    flags = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    library = build_simulator(Machine(profile), tmp_path, flags)
    environment = os.environ | {
        "LD_PRELOAD": " ".join(loaded),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-c", SANITIZED, str(library), profile, str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads(done.stdout)
    record_property("counts", counts)
    assert counts["programs"] == count and counts["ran"] + counts["refused"] == 4 * count
    assert min(counts["ran"], counts["refused"]) > count / 8
