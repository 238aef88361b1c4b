"""model.c and model.h: valid C whatever the names, and the numbers of the program."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from compiled import Net, compile_net

from nncc.codegen.emit_c import emit_header, emit_source
from nncc.codegen.emit_description import c_string
from nncc.resources import runtime_folder

ODD = 'in"put\\ ??/*/ é\n%s'


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model whose names C would not take as they are."""
    net = Net()
    x = net.input(2, 3, name=ODD)
    net.output(net.op("TopK", x, net.ints(2), outputs=2)[0], net.op("Relu", x), net.op("Identity", x))
    return compile_net(net, tmp_path_factory.mktemp("odd"), name='we"ird* model')


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("plain", '"plain"'),
        ('a"b', '"a\\042b"'),
        ("a\\b", '"a\\134b"'),
        ("??/", '"\\077\\077/"'),
        ("é\n", '"\\303\\251\\012"'),
    ],
)
def test_strings_are_escaped(text, literal):
    assert c_string(text) == literal


def test_odd_names_come_back_as_they_were(odd):
    inputs = odd.sample()
    assert list(inputs) == [ODD]
    assert np.array_equal(odd.run(inputs)[odd.program.outputs[2].name], inputs[ODD])
    assert odd.artifact.description["name"] == json.loads(odd.artifact.json.read_text())["name"] == 'we"ird* model'


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("cc", ("-x", "c", "-std=c99")),
        ("cc", ("-x", "c", "-std=c11", "-O2")),
        ("c++", ("-x", "c++", "-std=c++11")),
        ("c++", ("-x", "c++", "-std=c++17")),
    ],
)
def test_the_header_compiles_without_a_warning(odd, tmp_path, compiler, flags):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    macro = "NNCC_WE_IRD__MODEL"
    shutil.copy(odd.artifact.header, tmp_path / "model.h")
    (tmp_path / "use.c").write_text(
        f'#include "model.h"\n#include "model.h"\nchar input[{macro}_INPUT_0_BYTES], arena[{macro}_ARENA_BYTES + 1];\n'
        f"int main(void) {{ return {macro}_INPUTS == 1 && {macro}_OUTPUTS == 3 && sizeof input == 24 && NNCC_OK == 0"
        " ? 0 : (int)sizeof arena; }\n"
    )
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([compiler, *flags, *strict, tmp_path / "use.c", "-o", tmp_path / "use"], check=True)
    subprocess.run([tmp_path / "use"], check=True)


def test_the_source_compiles_without_a_warning(odd, tmp_path):
    """-Wpedantic aside: the runtime uses what GNU C has."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    source = tmp_path / "model.c"
    source.write_text(emit_source(odd.program, "0" * 32, "nncc test"))
    strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{runtime_folder()}"]
    subprocess.run(["cc", *strict, source], check=True)


def test_source_and_header_say_what_the_program_says(odd):
    program = odd.program
    source = emit_source(program, "feed", "nncc test")
    assert f".arena_bytes = {program.arena_bytes}," in source and '.build = "feed",' in source
    assert source.count("NNCC_CALL(") + source.count("NNCC_COPY(") == len(program.calls)
    assert "NNCC_COPY(2, out[2], in[0], 24);" in source
    assert source.count('#include "sort.c"') == 1
    header = emit_header(program, "/* interface */")
    assert "NNCC_WE_IRD__MODEL_OUTPUT_2_BYTES 24" in header
