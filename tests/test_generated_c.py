"""The library as its users meet it: what it needs, exports and allocates, any alignment, threads, sanitizers."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from compiled import ROUNDING, Compiled, Net, compile_net

from nncc.codegen.emit_c import emit_source
from nncc.codegen.link import PUBLIC_FUNCTIONS, link
from nncc.codegen.toolchains import Toolchain
from nncc.resources import runtime_folder
from nncc.runtime.loader import load
from nncc.verify import compare

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="reads ELF files")


def small_network() -> Net:
    """Every template, a kernel with a workspace, one with scratch memory, our own C, copies: a bit of everything."""
    net = Net()
    image = net.input(1, 3, 33, 29, name="image")
    x = net.op("Relu", net.conv(image, 3, 24, (3, 3), strides=[2, 2], pads=[1] * 4))
    x = net.op("Add", x, net.conv(x, 24, 24, (3, 3), group=24, pads=[1] * 4))
    x = net.op("Concat", x, net.conv(x, 24, 40, (1, 1)), axis=1)
    x = net.op("HardSwish", net.conv(x, 64, 64, (3, 3), pads=[1] * 4))
    tokens = net.op("Transpose", net.op("Reshape", x, net.ints(1, 64, -1)), perm=[0, 2, 1])
    scores = net.op("Softmax", net.op("MatMul", tokens, net.op("Transpose", tokens, perm=[0, 2, 1])))
    x = net.op("ReduceMean", net.op("MatMul", scores, tokens), axes=[1], keepdims=0)
    logits = net.op("Gemm", x, net.weight(64, 37), net.weight(37, scale=1.0))
    net.output(logits, *net.op("TopK", logits, net.ints(5), outputs=2), net.op("Identity", image))
    net.output(net.op("Gather", net.input(9, 17, name="table"), net.input(5, dtype=np.int64, name="index")))
    return net


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Compiled:
    return compile_net(small_network(), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def parts(small, tmp_path_factory):
    """parts(*flags): an archive of the model, its C compiled with `flags`."""
    from nncc.compat import tvm

    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("parts")
    program = small.program
    generated = tvm.get_global_func("target.build.llvm")(program.kernels, program.target.tvm_target())
    generated.write_to_file(str(folder / "kernels.o"), "o")
    program.weights.tofile(folder / "weights.bin")
    (folder / "model.c").write_text(emit_source(program, "0", "nncc test"))

    def archive(*flags: str) -> Path:
        output = folder / "_".join(re.sub(r"\W", "", flag) for flag in flags)
        output.mkdir()
        return link(
            program.target,
            output,
            source=folder / "model.c",
            kernels=folder / "kernels.o",
            weights=folder / "weights.bin",
            stem="net",
            include=[runtime_folder()],
            static_prefix="net",
            emit=("a",),
            toolchain=Toolchain("cc", ("cc", *flags)),
        )["a"]

    return archive


def readelf(path: Path, *flags: str) -> str:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    return subprocess.run(["readelf", "-W", *flags, path], capture_output=True, text=True, check=True).stdout


def test_it_computes_what_onnx_runtime_computes(small):
    """Ten operators deep: each adds its rounding."""
    found = small.comparisons(small.sample(), 5 * ROUNDING, threads=2)
    assert all(comparison.ok for comparison in found), "\n".join(map(str, found))


def test_it_needs_libc_and_its_like_and_nothing_else(small):
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", readelf(small.library, "-d")))
    assert "libc.so.6" in needed
    assert all(re.fullmatch(r"(libc|libm|libpthread|ld-linux[\w-]*)\.so\.\d", name) for name in needed), needed
    assert not re.search(r"RPATH|RUNPATH|TEXTREL", readelf(small.library, "-d"))
    assert "RWE" not in readelf(small.library, "-l"), "no segment is writable and executable, the stack included"


def test_it_exports_the_interface_and_nothing_else(small):
    lines = [line.split() for line in readelf(small.library, "--dyn-syms").splitlines()]
    defined = {fields[7] for fields in lines if len(fields) == 8 and fields[0][:-1].isdigit() and fields[6] != "UND"}
    assert defined == set(PUBLIC_FUNCTIONS)


def test_it_is_its_weights_and_little_more(small):
    assert small.library.stat().st_size - small.program.weights.nbytes <= 2**20


def test_weights_are_read_only_and_shared_between_processes(small):
    assert re.search(r"\.rodata.* A +0 ", readelf(small.library, "-S"))
    size = {
        name: int(size, 16)
        for name, size in re.findall(r"(\.\w+) +\w+ +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+)", readelf(small.library, "-S"))
    }
    assert size[".rodata"] >= small.program.weights.nbytes
    assert size.get(".data", 0) + size.get(".bss", 0) < 16 * 1024


@pytest.mark.parametrize("offset", [1, 4, 8])
def test_pointers_of_any_alignment_are_taken_and_nothing_else_is_touched(small, offset):
    inputs = small.sample()
    expected = small.run(inputs)
    library = ctypes.CDLL(str(small.library))
    context = ctypes.c_void_p()
    library.nncc_create.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.nncc_run.argtypes = [ctypes.c_void_p] * 3
    assert library.nncc_create(ctypes.byref(context), 2) == 0
    places, pointers = [], []
    arrays = [*inputs.values(), *(np.zeros_like(array) for array in expected.values())]
    for array in arrays:
        place = np.full(array.nbytes + 192, 0xA5, np.uint8)
        at = -place.ctypes.data % 64 + 64 + offset
        place[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        places.append((place, at))
        pointers.append(place.ctypes.data + at)
    count = len(inputs)
    ins = (ctypes.c_void_p * count)(*pointers[:count])
    outs = (ctypes.c_void_p * len(expected))(*pointers[count:])
    assert library.nncc_run(context, ins, outs) == 0
    library.nncc_destroy.argtypes = [ctypes.c_void_p]
    library.nncc_destroy(context)
    for (place, at), array in zip(places, [*inputs.values(), *expected.values()], strict=True):
        assert np.array_equal(place[at : at + array.nbytes], np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        assert (place[:at] == 0xA5).all() and (place[at + array.nbytes :] == 0xA5).all()


def test_contexts_in_threads_give_equal_results(small):
    inputs = [small.sample(seed) for seed in (1, 2)]
    alone = [small.run(each) for each in inputs]
    wrong: list[str] = []

    def work(number: int) -> None:
        with load(small.library, threads=2) as module:
            for _ in range(50):
                found = module.run(inputs[number])
                wrong.extend(name for name in found if not np.array_equal(found[name], alone[number][name]))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_do_not_depend_on_the_number_of_threads(small):
    inputs = small.sample()
    one, *more = [small.run(inputs, threads) for threads in (1, 2, 3, 7)]
    for other in more:
        assert all(comparison.ok for comparison in compare(one, other, tolerance=0.0))


USE = r"""
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net.h"

static atomic_int allocations;
#ifdef COUNT
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t items, size_t size);
void* __libc_realloc(void* pointer, size_t size);
void* malloc(size_t size) { atomic_fetch_add(&allocations, 1); return __libc_malloc(size); }
void* calloc(size_t items, size_t size) { atomic_fetch_add(&allocations, 1); return __libc_calloc(items, size); }
void* realloc(void* p, size_t size) { atomic_fetch_add(&allocations, 1); return __libc_realloc(p, size); }
#endif

static void* use(void* failed) {
  const nncc_info* info = nncc_net_describe();
  void *in[8], *out[8], *first[8];
  for (int i = 0; i < info->num_inputs; ++i) {
    const nncc_tensor* tensor = &info->inputs[i];
    in[i] = malloc(tensor->nbytes);
    memset(in[i], 0, tensor->nbytes);
    if (!strcmp(tensor->dtype, "float32")) {
      for (size_t k = 0; k < tensor->nbytes / 4; ++k) ((float*)in[i])[k] = (float)((k * 2654435761u) % 1000) / 500 - 1;
    }
  }
  for (int i = 0; i < info->num_outputs; ++i) {
    out[i] = malloc(info->outputs[i].nbytes); /* exactly: one byte more is an error that ASAN sees */
    first[i] = malloc(info->outputs[i].nbytes);
  }
  nncc_context* context = NULL;
  if (nncc_net_create(&context, 3)) *(int*)failed = 1;
  if (nncc_net_run(context, (const void* const*)in, first)) *(int*)failed = 2;
  const int before = atomic_load(&allocations);
  for (int round = 0; round < ROUNDS; ++round) {
    if (nncc_net_run(context, (const void* const*)in, out)) *(int*)failed = 3;
    for (int i = 0; i < info->num_outputs; ++i) {
      if (memcmp(out[i], first[i], info->outputs[i].nbytes)) *(int*)failed = 4;
    }
  }
#ifdef COUNT
  printf("%d allocations in %d runs\n", atomic_load(&allocations) - before, ROUNDS);
#else
  (void)before;
#endif
  nncc_net_destroy(context);
  for (int i = 0; i < info->num_inputs; ++i) free(in[i]);
  for (int i = 0; i < info->num_outputs; ++i) { free(out[i]); free(first[i]); }
  return NULL;
}

int main(void) {
  int failed[3] = {0};
#ifdef COUNT
  use(&failed[0]);
#else
  pthread_t threads[3];
  for (int i = 0; i < 3; ++i) pthread_create(&threads[i], NULL, use, &failed[i]);
  for (int i = 0; i < 3; ++i) pthread_join(threads[i], NULL);
#endif
  return failed[0] | failed[1] | failed[2];
}
"""


def program(small: Compiled, archive: Path, folder: Path, *flags: str) -> Path:
    (folder / "use.c").write_text(USE)
    libraries = [str(archive), "-lm", "-lpthread"]
    include = f"-I{small.artifact.header.parent}"
    subprocess.run(["cc", "-O1", *flags, include, folder / "use.c", *libraries, "-o", folder / "use"], check=True)
    return folder / "use"


def test_nothing_is_allocated_while_it_runs(small, parts, tmp_path):
    use = program(small, parts("-O2"), tmp_path, "-DCOUNT", "-DROUNDS=20")
    done = subprocess.run([use], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0 allocations in 20 runs\n")


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing_in_a_compiled_model(small, parts, tmp_path, sanitizer):
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g")
    use = program(small, parts(*flags), tmp_path, *flags, "-DROUNDS=20")
    done = subprocess.run([use], capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space layout is too random for this ThreadSanitizer")
    assert (done.returncode, done.stderr) == (0, "")
