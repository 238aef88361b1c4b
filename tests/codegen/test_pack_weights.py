"""Constants stored without their zeros: smaller libraries that compute the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from compiled import Net, agrees, compile_net

import nncc
from nncc.cli import cli
from nncc.codegen.pack_weights import expanded, pack_weights
from nncc.ir import Call, Program, Ref
from nncc.resources import runtime_folder
from nncc.runtime.loader import load
from nncc.target import resolve


def program(*constants: np.ndarray) -> Program:
    """One call of a kernel that reads these constants, each behind the other, and writes 100 bytes of the arena."""
    blobs = [np.pad(c.reshape(-1).view(np.uint8), (0, -c.nbytes % 64)) for c in constants]
    starts = np.cumsum([0, *(blob.size for blob in blobs)])
    call = Call("k", (*(Ref("weights", int(at)) for at in starts[:-1]), Ref("arena", 0)))
    return Program("p", resolve("x86-64-v3"), (), (), (call,), np.concatenate(blobs), 100, 0, None)


def constant(dtype: str, size: int, zeros: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.integers(1, 127, size).astype(dtype)
    if array.dtype.kind == "f":
        array = rng.normal(1, 0.1, size).astype(dtype)
    array[rng.permutation(size)[: round(size * zeros)]] = 0
    return array


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64"])
@pytest.mark.parametrize("size", [4096, 5003])
def test_constants_come_back_as_they_were(dtype, size):
    dense, sparse = constant(dtype, 2000, 0.0), constant(dtype, size, 0.7)
    given = program(dense, sparse, dense + 1)
    made = pack_weights(given)
    assert [ref.space for ref in made.calls[0].args] == ["weights", "arena", "weights", "arena"]
    (packed,) = made.packed
    width = sparse.dtype.itemsize
    bits, rest = packed.elements / 8, np.count_nonzero(sparse) * width
    assert (packed.width, packed.nbytes) == (width, int(bits) + rest)
    assert packed.to >= given.arena_bytes and made.arena_bytes >= packed.to + sparse.nbytes
    assert made.calls[0].args[1] == Ref("arena", packed.to)
    np.testing.assert_array_equal(expanded(made, packed)[: sparse.nbytes], sparse.view(np.uint8))
    for at, array in ((0, dense), (2, dense + 1)):
        start = made.calls[0].args[at].at
        np.testing.assert_array_equal(made.weights[start : start + array.nbytes], array.view(np.uint8))


@pytest.mark.parametrize(
    "constants",
    [
        [np.zeros(0, np.float32)],
        [constant("float32", 4096, 0.0)],
        [constant("float32", 4096, 0.2)],  # a bit for each of 32, and 80 % of them: 17 % less
        [constant("float32", 4096, 0.0), constant("float32", 200, 0.9)],  # less than a kilobyte
        [constant("float32", 60000, 0.0), constant("float32", 4096, 0.9)],  # 5 % of all
        [constant("int8", 4096, 0.3)],  # a bit for each of 8, and 70 % of them: 18 % less
    ],
)
def test_what_saves_little_stays_in_the_file(constants):
    """There it is mapped, and shared between processes."""
    given = program(*constants)
    assert pack_weights(given) is given


def sparse_net() -> Net:
    net = Net()
    x = net.input(1, 64, name="x")
    for _ in range(2):
        array = np.where(net.random.random((64, 64)) < 0.3, net.random.standard_normal((64, 64)) / 3, 0)
        x = net.op("Relu", net.op("MatMul", x, net.constant(array, np.float32)))
    net.output(x)
    return net


def test_a_library_computes_the_same_from_fewer_bytes(tmp_path):
    found = agrees(sparse_net(), tmp_path / "auto")
    assert len(found.program.packed) == 2
    whole = compile_net(sparse_net(), tmp_path / "off", compress_weights="off")
    sizes = [each.artifact.description["weights_bytes"] for each in (found, whole)]
    assert sizes == [found.program.weights.nbytes, 2 * 64 * 64 * 4]
    assert sizes[0] < 0.4 * sizes[1], "30 % and a bit for each"
    facts = found.artifact.description
    assert (facts["expanded_bytes"], facts["packed_bytes"]) == (sizes[1], sum(p.nbytes for p in found.program.packed))
    assert facts["arena_bytes"] >= whole.artifact.description["arena_bytes"] + sizes[1]
    inputs = found.sample()
    both = [load(found.library), load(found.library)]  # each has its own copy
    expected = whole.run(inputs)
    for module in (*both, *both):
        for name, array in module.run(inputs).items():
            np.testing.assert_array_equal(array, expected[name])


def test_the_report_says_what_is_stored_and_expanded(tmp_path):
    sparse_net().save(tmp_path / "net.onnx")
    words = ["compile", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "out"), "--no-verify"]
    text = CliRunner().invoke(cli, words).stdout
    assert re.search(
        r"weights +10\.\d KiB  part of the library; 32(?:\.0)? KiB of them stored in 10\.\d KiB, expanded into the "
        "arena: --compress-weights\n",
        text,
    )
    text = CliRunner().invoke(cli, [*words, "--compress-weights", "off"]).stdout
    assert re.search(r"weights +32(?:\.0)? KiB  part of the library\n", text)


def test_the_program_says_what_is_packed():
    given = pack_weights(program(constant("float32", 4096, 0.7)))
    assert given.text().splitlines()[2] == "  packed arena+128 = 4096 elements of 4 bytes, 5428 bytes at weights+0"
    assert replace(given, packed=()).text() != given.text(), "so that the hash of a build has it"


def test_the_option_has_two_words(tmp_path):
    sparse_net().save(tmp_path / "net.onnx")
    with pytest.raises(nncc.NnccError) as caught:
        nncc.compile(tmp_path / "net.onnx", compress_weights="zip")
    assert (caught.value.message, caught.value.hint) == (
        "`--compress-weights zip` is neither auto nor off",
        None,
    )


MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "expand.c"

int main(int count, char** words) {
  (void)count;
  const nncc_packed packed = {0, strtoul(words[1], 0, 10), 0, strtoul(words[2], 0, 10), strtoul(words[3], 0, 10)};
  uint8_t* stored = malloc(packed.nbytes + !packed.nbytes);
  uint8_t* to = malloc(packed.elements * packed.width + 1);
  if (fread(stored, 1, packed.nbytes, stdin) != packed.nbytes) return 2;
  const int good = nncc_expand(&packed, stored, to);
  if (good) fwrite(to, 1, packed.elements * packed.width, stdout);
  free(stored), free(to);
  return !good;
}
"""


@pytest.fixture(scope="module")
def expand(tmp_path_factory):
    """expand(stored, elements, width): what expand.c makes of it under the sanitizers, or None."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("expand")
    (folder / "main.c").write_text(MAIN)
    strict = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["cc", *strict, *sanitizers, f"-I{runtime_folder()}", "main.c", "-o", "main"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if (done.returncode and "sanitize" in done.stderr) or "cannot find" in done.stderr:
        pytest.skip("there is no sanitizer")
    assert done.returncode == 0, done.stderr

    def expand(stored: bytes, elements: int, width: int) -> bytes | None:
        words = [folder / "main", str(len(stored)), str(elements), str(width)]
        done = subprocess.run(words, input=stored, capture_output=True)
        assert done.returncode in (0, 1) and not done.stderr, done.stderr.decode()
        return done.stdout if done.returncode == 0 else None

    return expand


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("elements", [1, 8, 13, 1000])
def test_the_runtime_expands_what_was_packed(expand, width, elements):
    rng = np.random.default_rng(elements)
    array = rng.integers(1, 256, (elements, width), np.uint8) * (rng.random((elements, 1)) < 0.4).astype(np.uint8)
    mask = array.any(axis=1)
    stored = np.packbits(mask, bitorder="little").tobytes() + array[mask].tobytes()
    assert expand(stored, elements, width) == array.tobytes()


def test_damaged_constants_are_refused_and_nothing_outside_is_touched(expand):
    array = constant("float32", 100, 0.5)
    mask = array != 0
    stored = np.packbits(mask, bitorder="little").tobytes() + array[mask].tobytes()
    more = bytes([stored[0] | 0xFF]) + stored[1:]
    behind = stored[:12] + bytes([stored[12] | 0xF0]) + stored[13:]
    for damaged in (stored[:-1], stored + b"\0", stored[:5], b"", more, behind, b"\xff" * len(stored)):
        assert expand(damaged, 100, 4) is None
    assert expand(stored, 100, 4) == array.tobytes()


def test_a_damaged_library_says_so(tmp_path):
    found = compile_net(sparse_net(), tmp_path)
    data = bytearray(found.library.read_bytes())
    at = data.index(found.program.weights.tobytes()) + found.program.packed[0].at
    data[at : at + 64] = b"\xff" * 64
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(data)
    with pytest.raises(nncc.NnccError) as caught:
        load(damaged)
    assert "constant 0 of this library is damaged; copy or compile it again" in str(caught.value)
