"""What is generated from the description is what it says, in C, in SystemVerilog and in the reference page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nncc.vta.encoding import encode
from nncc.vta.generate import c_header
from nncc.vta.isa import OPCODES, PROFILES
from nncc.vta.machine import Machine
from nncc.vta.reference import reference_page
from nncc.vta.systemverilog import systemverilog_package

ROOT = Path(__file__).resolve().parents[2]
MACHINES = [Machine("vta0"), Machine(), Machine(block=32)]


def samples(machine: Machine) -> list[tuple[str, dict[str, int], int]]:
    """For each kind of instruction all fields at their largest, and all at their least."""
    found = []
    for kind in OPCODES:
        for extreme in ("most", "least"):
            form = [bits for bits in machine.formats[kind] if bits.name != "opcode"]
            fields = {bits.name: getattr(bits, extreme) for bits in form}
            found.append((kind, fields, encode(machine, kind, **fields)))
    return found


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.configuration)
def test_c_extracts_the_fields(machine, tmp_path):
    (tmp_path / "vta_machine.h").write_text(c_header(machine))
    checks = []
    for number, (kind, fields, word) in enumerate(samples(machine)):
        checks.append(f"const uint64_t w{number}[2] = {{{word & (1 << 64) - 1:#x}ull, {word >> 64:#x}ull}};")
        for name, value in fields.items():
            checks.append(f'check("{kind}.{name}", VTA_{kind.upper()}_{name.upper()}(w{number}), {value}ll);')
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "vta_machine.h"\nstatic int wrong = 0;\n'
        "static void check(const char *name, long long found, long long expected) {\n"
        '  if (found != expected) wrong = 1, printf("%s: %lld, not %lld\\n", name, found, expected);\n}\n'
        "int main(void) {\n" + "\n".join(checks) + "\nreturn wrong;\n}\n"
    )
    subprocess.run(["cc", "-std=c99", "-Wall", "main.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.configuration)
def test_verilator_takes_the_package(machine, tmp_path):
    checks = []
    for number, (kind, fields, word) in enumerate(samples(machine)):
        checks.append(f"  localparam vta_machine::{kind}_t w{number} = vta_machine::decode_{kind}(128'h{word:x});")
        for name, value in fields.items():
            bits = next(bits for bits in machine.formats[kind] if bits.name == name)
            raw = value & ((1 << bits.width) - 1)
            checks.append(f'  if (w{number}.{name} != {bits.width}\'h{raw:x}) $error("{kind}.{name}");')
    body = "\n".join(checks)
    text = f"{systemverilog_package(machine)}module top;\n{body}\nendmodule\n"
    (tmp_path / "top.sv").write_text(text)
    command = ["verilator", "--lint-only", "-Wall", "-Wno-DECLFILENAME", "--top-module", "top", "top.sv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_has_what_the_profile_has():
    stock, own = systemverilog_package(Machine("vta0")), systemverilog_package(Machine())
    assert "    logic [0:0] pad_value;" in stock and "    fields.pad_value = 1'b0;" in stock
    assert "    logic signed [7:0] pad_value;" in own and "    fields.pad_value = w[54 +: 8];" in own
    assert f"256'h{Machine().isa_hash}" in own
    absent = ("PAR", "RQ", "MAC", "QADD", *(word.upper() for word in PROFILES["nv1"].capabilities))
    assert re.findall(r"HAS_(\w+) = 1'b0", own) == []
    assert sorted(re.findall(r"HAS_(\w+) = 1'b0", stock)) == sorted(absent)


def test_the_reference_page_is_current():
    """Else: python -m nncc.vta.reference > docs/vta.md"""
    page = (ROOT / "docs" / "vta.md").read_text(encoding="utf-8")
    assert page == reference_page()
    for profile in PROFILES.values():
        assert all(f"| {operation.name} |" in page for operation in profile.alu)
        assert all(f"| {field.name} |" in page for form in profile.formats.values() for field in form)
