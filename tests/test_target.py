"""Names, files, JSON, overrides and old strings all become targets; TVM makes code for each that is shipped."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import token
import tokenize
from dataclasses import replace
from pathlib import Path

import pytest

import nncc
from nncc.errors import TargetError
from nncc.host import Host, host, llvm_features
from nncc.reports.target import target_text
from nncc.resources import targets_folder
from nncc.target import Hardware, Link, available, resolve

NAMES = sorted(path.stem for path in targets_folder().glob("*.toml"))
GPUS = [name for name in NAMES if resolve(name).hardware.multiprocessors]
PROCESSORS = [name for name in NAMES if name not in GPUS]
ACCELERATORS = [name for name in NAMES if resolve(name).hardware.accelerator]
TRIPLES = "aarch64-unknown-linux-gnu, arm64-apple-macos11, armv7l-unknown-linux-gnueabihf, riscv64-unknown-linux-gnu, "
TRIPLES += "x86_64-unknown-linux-gnu, x86_64-w64-windows-gnu"


def refusal(text: str) -> tuple[str, str | None]:
    with pytest.raises(TargetError) as caught:
        resolve(text)
    return caught.value.message, caught.value.hint


def general() -> list[str]:
    text = (targets_folder() / "native.toml").read_text()
    return re.findall(r'"([\w-]+)"', text.partition("choose")[2])


# ---- what is shipped --------------------------------------------------------------------------------------------


def test_every_target_is_available_with_one_line_about_it():
    targets = available()
    assert [target.name for target in targets] == NAMES
    assert all(target.doc and "\n" not in target.doc for target in targets)


@pytest.mark.parametrize("name", NAMES)
def test_resolving_a_name_gives_what_is_listed(name):
    target = resolve(name)
    assert target in available()
    assert target.name == name
    assert target.base == name or name == "native"


@pytest.mark.parametrize("name", PROCESSORS)
def test_facts_are_plausible(name):
    target = resolve(name)
    facts = target.hardware
    assert facts.vector_bits in (32, 128, 256, 512)
    assert facts.vector_registers in (16, 32)
    assert facts.cores == target.tvm["num-cores"]
    assert 16 <= facts.l1_kib <= 128 < facts.l2_kib
    if facts.peak_gflops:  # lanes x 2 x units x GHz
        units_ghz = facts.peak_gflops / (facts.vector_bits / 32) / 2
        assert 1 < units_ghz < 16
    assert len(target.tvm["mtriple"].split("-")) >= 3, "LLVM needs a vendor between machine and system"


@pytest.mark.parametrize("name", GPUS)
def test_facts_of_gpus_are_plausible(name):
    target = resolve(name)
    facts = target.hardware
    assert 8 <= facts.multiprocessors <= 200
    assert 48 <= facts.shared_kib <= facts.multiprocessor_shared_kib <= 256
    assert facts.multiprocessor_threads in (1024, 1536, 2048)
    cores_ghz = facts.peak_gflops / facts.multiprocessors / 2  # a fused multiply-add is two
    assert 64 * 0.9 < cores_ghz < 128 * 2.6
    assert facts.tensor_int8_gops >= facts.tensor_fp16_gflops > 2 * facts.peak_gflops
    assert target.tvm["arch"].startswith("sm_")
    assert len(target.tvm["host"]["mtriple"].split("-")) >= 3, "LLVM needs a vendor between machine and system"
    assert target.tvm_target().kind.name == "cuda"


@pytest.mark.parametrize("name", PROCESSORS)
def test_features_are_those_that_llvm_may_use(name):
    target = resolve(name)
    expected = set(llvm_features(target.tvm))
    if target.link.system == "Darwin":
        expected = set()  # every Apple processor has them, and nobody asks
    assert set(target.hardware.features) == expected


@pytest.mark.parametrize("name", PROCESSORS)
def test_tvm_makes_code_for_it(name, tmp_path):
    import tvm
    from tvm import te

    target = resolve(name)
    x = te.placeholder((64,), "float32", "x")
    y = te.compute((64,), lambda i: x[i] * 2, "y")
    built = tvm.compile(te.create_prim_func([x, y]), target=target.tvm_target())
    built.mod.write_to_file(str(tmp_path / "k.o"))
    data = (tmp_path / "k.o").read_bytes()
    machine = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "riscv64": 243}.get(target.link.machine)
    if target.link.format == "elf":
        assert data[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", data, 18) == (machine,)
    else:
        assert data.startswith({"coff": b"\x64\x86", "macho": b"\xcf\xfa\xed\xfe"}[target.link.format])


@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_host_of_an_accelerator_is_this_machine(name):
    target, native = resolve(name), resolve("native")
    assert target.tvm == native.tvm
    assert target.doc.endswith(f"; host: {native.doc}")
    assert replace(target.hardware, accelerator=None) == native.hardware


def test_a_target_in_full_tells_of_its_accelerator():
    line = "  accelerator  nv1_16x16_inp32_wgt256_acc128_uop16_par32, 100 MHz, memory pynq"
    assert f"{line}\n" in target_text(resolve("vta"))
    assert f"{line}, its layers run on the processor\n" in target_text(resolve("vta,golden=true"))


def test_an_accelerator_has_overrides_too():
    target = resolve("vta,wgt_kib=128,memory=ideal,golden=true")
    plain = resolve("vta").hardware.accelerator
    assert target.hardware.accelerator == replace(plain, wgt_kib=128, memory="ideal")
    assert target.hardware.golden
    assert target.tvm == resolve("native").tvm


def test_a_processor_has_no_facts_of_an_accelerator():
    message, _ = refusal("native,wgt_kib=128")
    assert message == "the target `native,wgt_kib=128` has the unknown key `wgt_kib`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 'native'\n[accelerator]\n[tvm]\nmcpu = 'x'", "{}: [tvm] is that of this machine"),
        ("extends = 'native'\n[accelerator]\nblock = '16'", "{}: [accelerator] block = '16' is no whole number"),
        (
            "extends = 'native'\n[accelerator]\nwgt_kib = 1\nblock = 64",
            "accelerator: WGT holds no tile: it has 1024 bytes, two elements of 4096 need 8192",
        ),
    ],
)
def test_a_description_of_an_accelerator_that_is_off_is_named_with_the_key(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert refusal(str(path))[0] == message.format(path)


def test_boards_and_processors_are_not_named_in_the_code():
    mechanism = Path(nncc.__file__).parent
    processors = {target.tvm.get("mcpu", target.tvm.get("arch")) for target in available()} - {None, "generic"}
    boards = set(NAMES) - set(general()) - {"native", "cuda", *ACCELERATORS}
    words = [rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in boards | processors]
    pattern = re.compile("|".join([*words, "cortex-", "znver", "skylake", "haswell", "raspberry", "jetson"]), re.I)
    found = []
    for path in mechanism.rglob("*.py"):
        for line, text in _code_strings_and_names(path.read_text()):
            if pattern.search(text):
                found.append(f"{path.relative_to(mechanism)}:{line}: {text}")
    assert found == []


def _code_strings_and_names(text: str):
    """Tokens but comments and docstrings."""
    previous = token.NEWLINE
    for item in tokenize.generate_tokens(io.StringIO(text).readline):
        starts_statement = previous in (token.NEWLINE, token.INDENT, token.DEDENT, tokenize.NL)
        if item.type != tokenize.COMMENT and not (item.type == token.STRING and starts_statement):
            yield item.start[0], item.string
        if item.type not in (tokenize.COMMENT, tokenize.NL):
            previous = item.type


# ---- what people write ------------------------------------------------------------------------------------------


def test_resolving_does_not_import_tvm():
    code = "import sys; from nncc.target import *; resolve('native'); resolve('rpi4,num-cores=2'); available()"
    code += "; assert 'tvm' not in sys.modules"
    if sys.platform == "linux":
        subprocess.run([sys.executable, "-c", code], check=True)


def test_overrides_have_types():
    target = resolve("rpi4,mcpu=cortex-a73,num-cores=2,vector_bits=256,fma=false,dram_gbps=5,fast-math=1")
    assert target.tvm["mcpu"] == "cortex-a73"
    assert target.tvm["num-cores"] == 2
    assert target.tvm["fast-math"] is True
    facts = target.hardware
    assert (facts.vector_bits, facts.fma, facts.dram_gbps, facts.cores) == (256, False, 5.0, 2)
    assert target.base == "rpi4"


@pytest.mark.parametrize("text", ["+dotprod +i8mm", "+dotprod+i8mm", "+dotprod,+i8mm", " +dotprod , +i8mm"])
def test_attributes_are_separated_by_spaces_commas_or_nothing(text):
    assert resolve(f"rpi5,mattr={text},num-cores=2").tvm["mattr"] == ["+dotprod", "+i8mm"]


def test_another_processor_brings_its_own_features():
    assert resolve("rpi4").hardware.features == ()
    assert resolve("rpi4,mcpu=cortex-a76").hardware.features == ("asimddp", "asimdhp")
    assert resolve("x86-64-v3,mcpu=x86-64-v2").hardware.features == resolve("x86-64-v2").hardware.features
    assert resolve("rpi4,mcpu=cortex-a76,features=asimddp").hardware.features == ("asimddp",)


def test_an_empty_value_removes_a_key():
    assert "mcpu" not in resolve("rpi4,mcpu=").tvm


@pytest.mark.parametrize(
    "text",
    [
        "rpi4,mcpu=cortex-a73,num-cores=2,vector_bits=256",
        "rpi5,mattr=+dotprod-fullfp16",
        "x86-64-v3,features=avx2 fma",
        '{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a73", "num-cores": 3}',
        '{"extends": "rpi4", "tvm": {"mattr": ["+crc"]}, "hardware": {"l2_kib": 512}}',
        "llvm -mtriple=x86_64-linux-gnu -mcpu=haswell -fast-math",
        "llvm",
    ],
)
def test_the_name_of_a_changed_target_resolves_to_it(text):
    target = resolve(text)
    assert resolve(target.name) == target


def test_a_tvm_dictionary_that_is_a_board_is_that_board():
    assert resolve("llvm -mcpu=cortex-a72 -mtriple=aarch64-linux-gnu -num-cores=4") == resolve("rpi4")
    assert resolve('{"kind": "llvm", "mtriple": "aarch64-unknown-linux-gnu"}') == resolve("arm64")


def test_a_tvm_dictionary_finds_the_facts_of_the_nearest_target():
    target = resolve("llvm -mtriple=x86_64-linux-gnu -mcpu=skylake-avx512 -num-cores=8")
    assert target.base == "x86-64-v4"
    assert target.hardware.vector_bits == 512
    assert target.tvm == {
        "kind": "llvm",
        "mtriple": "x86_64-unknown-linux-gnu",
        "mcpu": "skylake-avx512",
        "num-cores": 8,
    }


def test_a_triple_left_out_is_the_machines_own():
    assert resolve("llvm").tvm["mtriple"] == resolve("native").tvm["mtriple"]


def test_another_kind_of_target_has_this_machine_for_a_host():
    target = resolve('{"kind": "cuda", "arch": "sm_80"}')
    assert target.tvm == {"host": resolve("native").tvm, "kind": "cuda", "arch": "sm_80"}
    assert target.name == "kind=cuda,arch=sm_80"


def test_a_file_of_ones_own_stands_beside_the_shipped_ones(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'doc = "mine"\nextends = "arm64"\n[tvm]\nmcpu = "cortex-a35"\nnum-cores = 2\n[hardware]\nl2_kib = 256\n'
        '[link]\ncflags = ["-O1"]\n'
    )
    mine, base = resolve(str(path)), resolve("arm64")
    assert (mine.name, mine.doc, mine.base) == ("mine", "mine", "mine")
    assert mine.tvm == base.tvm | {"mcpu": "cortex-a35", "num-cores": 2}
    assert (mine.hardware.l2_kib, mine.hardware.cores, mine.hardware.l1_kib) == (256, 2, base.hardware.l1_kib)
    assert mine.link == Link(**{**vars(base.link), "cflags": ("-O1",)})
    assert resolve(f"{path},num-cores=3").hardware.cores == 3


# ---- native -----------------------------------------------------------------------------------------------------


def pretend(monkeypatch, system: str, machine: str, features: str, cores: int = 3) -> None:
    machine_pretended = Host(system, machine, frozenset(features.split()), cores, 48, 1280)
    monkeypatch.setattr("nncc.target.descriptions.host", lambda: machine_pretended)


V3 = "sse3 ssse3 sse4_1 sse4_2 popcnt cx16 avx avx2 fma f16c bmi1 bmi2 lzcnt movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    "system, machine, features, expected",
    [
        ("Linux", "x86_64", "", "x86-64"),
        ("Linux", "x86_64", V3.replace(" movbe", ""), "x86-64-v2"),
        ("Linux", "x86_64", V3, "x86-64-v3"),
        ("Linux", "x86_64", f"{V3} avx_vnni", "x86-64-v3-vnni"),
        ("Linux", "x86_64", V4, "x86-64-v4"),
        ("Linux", "x86_64", f"{V4} avx512_vnni avx_vnni", "x86-64-v4-vnni"),
        ("Linux", "aarch64", "asimd", "arm64"),
        ("Linux", "aarch64", "asimd asimddp asimdhp", "arm64-dotprod"),
        ("Linux", "armv7l", "neon vfpv4", "armv7"),
        ("Linux", "riscv64", "", "riscv64"),
        ("Darwin", "arm64", "", "arm64-macos"),
        ("Windows", "AMD64", V3, "x86-64-windows"),
    ],
)
def test_native_is_the_best_target_that_the_processor_can_run(monkeypatch, system, machine, features, expected):
    pretend(monkeypatch, system, machine, features)
    native, chosen = resolve("native"), resolve(expected)
    assert native.base == expected
    assert native.tvm == chosen.tvm | {"num-cores": 3}
    assert native.hardware == Hardware(**{**vars(chosen.hardware), "cores": 3, "l1_kib": 48, "l2_kib": 1280})
    assert native.doc == f"this machine: {expected}, 3 cores"


def test_a_machine_without_a_target_is_told_so(monkeypatch):
    pretend(monkeypatch, "Plan9", "mips", "")
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    monkeypatch.setattr("platform.machine", lambda: "mips")
    assert refusal("native") == (
        "this machine (Plan9 on mips) is none of the targets of native.toml",
        "name the target, or describe it in a TOML file",
    )
    assert "native" not in [target.name for target in available()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_host_says_what_it_is():
    machine = host()
    assert machine.cores >= 1
    assert machine.missing(resolve("native")) == []
    elsewhere = "rpi4" if machine.machine == "x86_64" else "x86-64"
    assert machine.missing(resolve(elsewhere)) is None


# ---- what goes wrong --------------------------------------------------------------------------------------------


def test_an_unknown_name_suggests_a_known_one():
    assert refusal("rpi5x") == ("unknown target `rpi5x`", "did you mean `rpi5`? `nncc targets` lists all of them")
    assert refusal("zzz") == ("unknown target `zzz`", "`nncc targets` lists all of them")
    assert refusal("../targets/rpi4") == (
        "unknown target `../targets/rpi4`",
        "`nncc targets` lists all of them",
    )
    assert refusal("gone/mine.toml") == ("there is no target file `gone/mine.toml`", None)


def test_overrides_that_make_no_sense_are_refused():
    message, hint = refusal("rpi4,mpcu=x")
    assert message == "the target `rpi4,mpcu=x` has the unknown key `mpcu`"
    assert hint is not None
    assert hint.startswith("did you mean `mcpu`? known keys: mattr, keys, ")
    assert refusal("rpi4,4") == ("the target `rpi4,4` has the word `4`, which is not `key=value`", None)
    assert refusal("rpi4,num-cores=four") == (
        "the target `rpi4,num-cores=four` has `num-cores=four`: not an integer",
        None,
    )
    assert refusal("rpi4,fma=maybe") == ("the target `rpi4,fma=maybe` has `fma=maybe`: not true or false", None)
    assert refusal("rpi4,int8_dot=dot") == (
        "the target `rpi4,int8_dot=dot` has `int8_dot=dot`: not one of none, sdot, smull, vnni512, vnni256, avxvnni, "
        "pmaddwd",
        None,
    )


def test_json_that_is_none_of_ours_is_refused():
    reason = "Expecting value: line 1 column 9 (char 8)"
    assert refusal('{"kind":') == (f'the target is not valid JSON: {reason}: {{"kind":', None)
    assert refusal('{"tvm": {}}') == (
        '{"tvm": {}}: has neither `kind` nor `extends`',
        "a target of TVM has a `kind`, a target of nncc an `extends`",
    )
    assert refusal('{"extends": "rpi4", "hardware": {"l3_kib": 1}}')[0] == (
        '{"extends": "rpi4", "hardware": {"l3_kib": 1}}: [hardware] has no key `l3_kib`'
    )


def test_old_strings_that_cannot_be_split_are_refused():
    assert refusal("llvm -mcpu") == ("the target `llvm -mcpu` has the word `-mcpu`, which is not `-option=value`", None)
    assert refusal("llvm -mattr='+a") == (
        "the target `llvm -mattr='+a` cannot be split into words: No closing quotation",
        None,
    )
    sparc = json.dumps({"kind": "llvm", "mtriple": "sparc-unknown-linux"})
    assert refusal("llvm -mtriple=sparc-linux") == (
        f"no target is like `{sparc}`",
        f"describe the machine in a TOML file; known triples: {TRIPLES}",
    )


SECTIONS = "doc, extends, choose, tvm, hardware, link, accelerator"
ONE_LEVEL = "only one level: extend a target that stands by itself"
FACTS = (
    "vector_bits, vector_registers, fma, lane_operand, int8_dot, l1_kib, l2_kib, cores, peak_gflops, dram_gbps, "
    "features, multiprocessors, shared_kib, multiprocessor_shared_kib, multiprocessor_threads, tensor_tf32_gflops, "
    "tensor_fp16_gflops, tensor_int8_gops, golden"
)


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("dco = 'x'", "a target has no key `dco`", f"did you mean `doc`? known keys: {SECTIONS}"),
        ("doc = 3", "`doc` is 3, not a string", None),
        ("tvm = 3", "`tvm` is 3, not a table", None),
        ("[hardware]\nl2_kb = 3", "[hardware] has no key `l2_kb`", f"did you mean `l2_kib`? known keys: {FACTS}"),
        ("[hardware]\nl2_kib = '3'", "`l2_kib` is '3', not an integer", None),
        ("[hardware]\ncores = true", "`cores` is True, not an integer", None),
        ("[hardware]\nfeatures = 'avx2'", "`features` is 'avx2', not a list of strings", None),
        ("[link]\nformat = 'pe'", "`format` is 'pe', not one of elf, coff, macho", None),
        ("extends = 'rpi4'", "`extends` names `rpi4`, which has `extends` itself", ONE_LEVEL),
        ("extends = 'native'", "`extends` names `native`, which has `choose` itself", ONE_LEVEL),
        ("extends = 'arm65'", "`extends` names the unknown target `arm65`", "did you mean `arm64`?"),
        ("doc = 'x'", "[tvm] has no `kind`", 'TVM\'s kind of target: `kind = "llvm"` for processors'),
        ("[tvm]\nkind = 'llvm'", "[tvm] has no `mtriple`", 'for example `mtriple = "aarch64-unknown-linux-gnu"`'),
        ("doc = ", "Invalid value (at ", None),
    ],
)  # fmt: skip
def test_a_file_that_is_off_is_named_with_the_key(tmp_path, text, message, hint):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    found, found_hint = refusal(str(path))
    assert found.startswith(f"{path}: {message}")
    assert (found_hint or None) == hint


def test_llvm_is_asked_whether_it_knows_the_processor():
    with pytest.raises(TargetError) as caught:
        resolve("rpi4,mcpu=cortex-a722,features=").tvm_target()
    triple = "aarch64-unknown-linux-gnu"
    assert caught.value.message == (
        f"target `rpi4,mcpu=cortex-a722,features=`: LLVM knows no processor `cortex-a722` for `{triple}`"
    )
    assert caught.value.hint == "did you mean `cortex-a72`?"


def test_what_tvm_does_not_take_is_an_error_of_the_target():
    with pytest.raises(TargetError) as caught:
        resolve('{"extends": "rpi4", "tvm": {"bogus": 1}}').tvm_target()
    assert caught.value.message.startswith("target `rpi4,bogus=1`: TVM does not take {")
    assert "'bogus'" in caught.value.message
