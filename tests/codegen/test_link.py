"""A generated C file, kernels and weights become libraries that export, need and contain exactly what they should."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import nncc.codegen.link as linker
from nncc.codegen import objectfile
from nncc.codegen.link import PUBLIC_FUNCTIONS, link, static_names
from nncc.codegen.objectfile import conceal, rename
from nncc.codegen.toolchains import Toolchain, toolchains
from nncc.emulation import emulator
from nncc.errors import InternalError, OutputError, TargetError, ToolError, UsageError
from nncc.resources import targets_folder
from nncc.target import Target, resolve

RUNTIME = Path(linker.__file__).parent.parent / "runtime"

# y[i] = x[i] + weights[i % 4], in four tasks; {0} is what makes the model's names its own.
MODEL = """
#include "internal.h"
static const int64_t shape[] = {{8}};
static const nncc_tensor input = {{"x", "float32", 1, shape, 32}}, output = {{"y", "float32", 1, shape, 32}};
static const char* const names[] = {{"add"}};
static const double flops[] = {{8}}, bytes[] = {{80}};
static const nncc_info model_info = {{.abi_version = NNCC_ABI_VERSION, .num_inputs = 1, .num_outputs = 1,
  .num_calls = 1, .name = "{0}", .target = "any", .build = "0", .compiler = "test", .features = "",
  .inputs = &input, .outputs = &output, .call_names = names, .call_flops = flops, .call_multiplications = flops,
  .call_bytes = bytes, .call_weight_bytes = bytes,
  .arena_bytes = 64, .scratch_bytes = 64, .weights_bytes = 16}};
extern int32_t nncc_{0}_add(const void*, const void*, void*);
static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const int64_t* dims, const void* const* in,
                            void* const* out, double* seconds) {{
  (void)arena, (void)dims;
  NNCC_CALL(0, nncc_{0}_add(in[0], weights, out[0]));
  return 0;
}}
#include "runtime.c"
"""

# What TVM makes of a parallel kernel: exported, registered by a constructor, launched through the runtime.
KERNEL = """
#include <stdint.h>
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
typedef struct {{ void* sync; int32_t num_task; }} group;
extern int TVMBackendParallelLaunch(int (*task)(int, group*, void*), void* data, int num_task);
extern int TVMFFIEnvModRegisterSystemLibSymbol(const char* name, void* symbol);
typedef struct {{ const float *x, *w; float* y; }} args;
static int add_task(int task, group* g, void* data) {{
  args* a = data;
  for (int i = task * 8 / g->num_task; i < (task + 1) * 8 / g->num_task; ++i) a->y[i] = a->x[i] + a->w[i % 4];
  return 0;
}}
EXPORT int32_t nncc_{0}_add(const void* x, const void* w, void* y) {{
  args a = {{x, w, y}};
  return TVMBackendParallelLaunch(add_task, &a, 4);
}}
EXPORT __attribute__((weak)) float shared_helper(float x) {{ return x; }}
__attribute__((constructor)) static void __tvm_module_startup(void) {{
  TVMFFIEnvModRegisterSystemLibSymbol("nncc_{0}_add", (void*)nncc_{0}_add);
}}
"""


def named(name: str) -> tuple[Target, list[Toolchain]]:
    target = resolve(name)
    return target, toolchains(target)


def by(name: str, tool: str) -> tuple[Target, Toolchain]:
    target, found = named(name)
    for toolchain in found:
        if toolchain.name == tool:
            return target, toolchain
    pytest.skip(f"no {tool} for {name} on this machine")


def make(folder: Path, target: Target, toolchain: Toolchain, emit=("so",), name="m", weights=(1, 2, 3, 4)):
    """The files of a little model, its inputs and outputs in a new `folder`."""
    folder.mkdir(parents=True)
    (folder / "source.c").write_text(MODEL.format(name))
    (folder / "kernel.c").write_text(KERNEL.format(name))
    (folder / "blob").write_bytes(struct.pack("<4f", *weights))
    form = ["-Xclang", "-object-file-name=kernels.o"] if target.link.format == "coff" else ["-fPIC"]
    subprocess.run(
        [*toolchain.command, "-c", "-O2", "-g0", *form, *target.link.cflags, "kernel.c", "-o", "kernels.o"],
        cwd=folder,
        check=True,
        env=os.environ | {"ZIG_LOCAL_CACHE_DIR": str(folder / "zig")},
    )
    return link(
        target,
        folder / "out",
        source=folder / "source.c",
        kernels=folder / "kernels.o",
        weights=folder / "blob",
        stem=f"{name}_lib",
        include=[RUNTIME],
        static_prefix=name,
        emit=emit,
        toolchain=toolchain,
    )


def dynamic(library: Path) -> tuple[set[str], set[str]]:
    """Names that an ELF library exports and libraries that it needs."""
    symbols = subprocess.run(["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True)
    rows = [line.split() for line in symbols.stdout.splitlines()]
    exported = {row[7] for row in rows if len(row) > 7 and row[4] in ("GLOBAL", "WEAK") and row[6] != "UND"}
    tags = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    return exported, {line.split("[")[1].rstrip("]") for line in tags.splitlines() if "(NEEDED)" in line}


CASES = [
    *[("native", tool) for tool in ("cc", "zig")],
    *[("arm64", tool) for tool in ("zig", "aarch64-linux-gnu-gcc")],
    ("armv7", "arm-linux-gnueabihf-gcc"),
    ("riscv64", "riscv64-linux-gnu-gcc"),
]
needs_readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")


@needs_readelf
@pytest.mark.parametrize("name, tool", CASES)
def test_a_library_exports_needs_and_contains_nothing_else(name, tool, tmp_path):
    target, toolchain = by(name, tool)
    library = make(tmp_path / "m", target, toolchain)["so"]
    assert library == tmp_path / "m" / "out" / "m_lib.so"
    exported, needed = dynamic(library)
    assert exported == set(PUBLIC_FUNCTIONS)
    allowed = {"libc.so.6", "libm.so.6", "libpthread.so.0"}
    assert {word for word in needed if not word.startswith("ld-linux")} <= allowed
    stack = subprocess.run(["readelf", "-lW", library], capture_output=True, text=True, check=True).stdout
    assert "RWE" not in stack, "an executable stack"
    data = library.read_bytes()
    assert b"nncc-target:" + target.name.encode() + b"\0" in data
    for path in (tmp_path, Path.home(), RUNTIME):
        assert str(path).encode() not in data
    assert [path.name for path in (tmp_path / "m" / "out").iterdir()] == ["m_lib.so"], "something was left behind"


@pytest.mark.parametrize("name, tool", [("native", "cc"), ("native", "zig"), ("arm64", "zig")])
def test_the_same_inputs_give_the_same_bytes_in_another_folder(name, tool, tmp_path):
    target, toolchain = by(name, tool)
    first = make(tmp_path / "a", target, toolchain, ("so", "a", "o"))
    second = make(tmp_path / "elsewhere" / "b", target, toolchain, ("so", "a", "o"))
    for kind in ("so", "a", "o"):
        assert first[kind].read_bytes() == second[kind].read_bytes(), kind
        assert str(tmp_path).encode() not in first[kind].read_bytes(), kind


@pytest.mark.parametrize("tool", ["cc", "zig"])
def test_a_library_computes(tool, tmp_path):
    target, toolchain = by("native", tool)
    library = ctypes.CDLL(str(make(tmp_path / "m", target, toolchain)["so"]))
    context = ctypes.c_void_p()
    assert library.nncc_create(ctypes.byref(context), 2) == 0
    x, y = (ctypes.c_float * 8)(*range(8)), (ctypes.c_float * 8)()
    inputs, outputs = (ctypes.c_void_p * 1)(ctypes.addressof(x)), (ctypes.c_void_p * 1)(ctypes.addressof(y))
    assert library.nncc_run(context, inputs, outputs) == 0
    assert list(y) == [1, 3, 5, 7, 5, 7, 9, 11]
    library.nncc_destroy(context)


@pytest.mark.parametrize("tool", ["cc", "zig"])
def test_other_weights_in_the_same_place_are_not_taken_from_a_cache(tool, tmp_path):
    target, toolchain = by("native", tool)
    for weights in ((1, 2, 3, 4), (5, 6, 7, 8)):
        library = make(tmp_path / "m", target, toolchain, weights=weights)["so"]
        assert struct.pack("<4f", *weights) in library.read_bytes()
        shutil.rmtree(tmp_path / "m")


MAIN = """
#include <stdio.h>
#include "nncc.h"
#define MODEL(m) int nncc_##m##_create(nncc_context**, int); void nncc_##m##_destroy(nncc_context*); \\
  int nncc_##m##_run(nncc_context*, const void* const*, void* const*); const nncc_info* nncc_##m##_describe(void);
MODEL(one) MODEL(two)
int main(void) {
  float x[8] = {0, 1, 2, 3, 4, 5, 6, 7}, y[8];
  const void* in[] = {x};
  void* out[] = {y};
  nncc_context *a, *b;
  if (nncc_one_create(&a, 2) || nncc_two_create(&b, 1)) return 1;
  if (nncc_one_run(a, in, out)) return 2;
  printf("%s %g %g\\n", nncc_one_describe()->name, y[0], y[7]);
  if (nncc_two_run(b, in, out)) return 3;
  printf("%s %g %g\\n", nncc_two_describe()->name, y[0], y[7]);
  nncc_one_destroy(a);
  nncc_two_destroy(b);
}
"""


@pytest.mark.parametrize("kind", ["a", "o"])
@pytest.mark.parametrize("name, tool", [("native", "cc"), ("native", "zig"), ("arm64", "aarch64-linux-gnu-gcc")])
def test_two_models_link_into_one_program(name, tool, kind, tmp_path):
    target, toolchain = by(name, tool)
    one = make(tmp_path / "1", target, toolchain, (kind,), "one", (1, 2, 3, 4))[kind]
    two = make(tmp_path / "2", target, toolchain, (kind,), "two", (10, 20, 30, 40))[kind]
    assert one.name == {"a": "libone_lib.a", "o": "one_lib.o"}[kind]
    (tmp_path / "main.c").write_text(MAIN)
    command = [*toolchain.command, "-I", RUNTIME, tmp_path / "main.c", one, two, "-o", tmp_path / "main", "-lpthread"]
    subprocess.run(command, check=True, env=os.environ | {"ZIG_LOCAL_CACHE_DIR": str(tmp_path / "zig")})
    try:
        words = emulator(target)
    except TargetError as error:
        pytest.skip(str(error))
    done = subprocess.run([*words, tmp_path / "main"], capture_output=True, text=True, check=True)
    assert done.stdout == "one 1 11\ntwo 10 47\n"


def made_twice(folder: Path, target: Target, toolchain: Toolchain) -> Path:
    """A library; it and its archive have the same bytes wherever they are made, and do not say where."""
    made = [make(folder / place, target, toolchain, ("so", "a")) for place in ("1", "2/3")]
    for kind in ("so", "a"):
        assert made[0][kind].read_bytes() == made[1][kind].read_bytes()
        assert str(folder).encode() not in made[0][kind].read_bytes()
    return made[0]["so"]


@pytest.mark.slow
def test_a_windows_library_exports_nothing_else(tmp_path):
    target, toolchain = by("x86-64-windows", "zig")
    library = made_twice(tmp_path, target, toolchain)
    assert library.name == "m_lib.dll"
    assert pe_exports(library.read_bytes()) == ("m_lib.dll", sorted(PUBLIC_FUNCTIONS))


@pytest.mark.slow
def test_two_windows_models_link_into_one_program(tmp_path):
    target, toolchain = by("x86-64-windows", "zig")
    one = make(tmp_path / "1", target, toolchain, ("a",), "one")["a"]
    two = make(tmp_path / "2", target, toolchain, ("a",), "two")["a"]
    (tmp_path / "main.c").write_text(MAIN)
    command = [
        *toolchain.command,
        "-I",
        RUNTIME,
        tmp_path / "main.c",
        one,
        two,
        "-o",
        tmp_path / "main.exe",
        "-lpthread",
    ]
    subprocess.run(command, check=True, env=os.environ | {"ZIG_LOCAL_CACHE_DIR": str(tmp_path / "zig")})


@pytest.mark.slow
def test_a_macos_library_exports_nothing_else(tmp_path):
    target, toolchain = by("arm64-macos", "zig")
    library = made_twice(tmp_path, target, toolchain)
    assert library.name == "m_lib.dylib"
    symbols = objectfile._macho_symbols(library.read_bytes())
    exported = {symbol.name.decode() for symbol in symbols if symbol.exported}
    # zig's linker has names of its own, and takes no list of what to export.
    assert exported - {"__mh_dylib_header", "___dso_handle"} <= {f"_{name}" for name in PUBLIC_FUNCTIONS}
    assert all(f"_{name}\0".encode() not in exported for name in ("nncc_m_add", "shared_helper"))


def pe_exports(data: bytes) -> tuple[str, list[str]]:
    """Name and exported names of a 64-bit DLL."""
    (head,) = struct.unpack_from("<I", data, 0x3C)
    sections, optional = struct.unpack_from("<H", data, head + 6)[0], struct.unpack_from("<H", data, head + 20)[0]
    table = head + 24 + optional

    def place(address: int) -> int:
        for at in range(table, table + 40 * sections, 40):
            size, start, _, offset = struct.unpack_from("<IIII", data, at + 8)
            if start <= address < start + size:
                return address - start + offset
        raise AssertionError(f"no section holds {address:#x}")

    def text(address: int) -> str:
        at = place(address)
        return data[at : data.index(b"\0", at)].decode()

    at = place(struct.unpack_from("<I", data, head + 24 + 112)[0])
    count, _, names = struct.unpack_from("<III", data, at + 24)
    found = [text(struct.unpack_from("<I", data, place(names) + 4 * i)[0]) for i in range(count)]
    return text(struct.unpack_from("<I", data, at + 12)[0]), sorted(found)


# ---- object files -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel_objects(tmp_path_factory) -> dict[str, bytes]:
    """What TVM makes of a parallel kernel on each of the three formats, and for 32 bits."""
    import tvm
    from tvm import te

    x = te.placeholder((64, 64), "float32", "x")
    y = te.compute((64, 64), lambda i, j: te.exp(x[i, j]), "y")
    module = tvm.IRModule({"main": te.create_prim_func([x, y]).with_attr("global_symbol", "nncc_m_exp")})
    schedule = tvm.s_tir.Schedule(module)
    schedule.parallel(schedule.get_loops(schedule.get_sblock("y"))[0])
    module = schedule.mod.with_attr("system_lib_prefix", "nncc_m_")
    objects = {}
    for name in ("x86-64", "armv7", "riscv64", "x86-64-windows", "arm64-macos"):
        built = tvm.compile(module, target=resolve(name).tvm_target())
        path = tmp_path_factory.mktemp(name) / "k.o"
        built.mod.write_to_file(str(path))
        objects[name] = path.read_bytes()
    return objects


OBJECTS = ["x86-64", "armv7", "riscv64", "x86-64-windows", "arm64-macos"]


def symbols(data: bytes) -> dict[str, bool]:
    found = objectfile._SYMBOLS[objectfile._format(data)](data)
    return {symbol.name.decode(): symbol.exported for symbol in found}


@pytest.mark.parametrize("name", OBJECTS)
def test_kernels_are_hidden_and_stay_what_they_were(name, kernel_objects):
    data = kernel_objects[name]
    hidden = conceal(data)
    assert len(hidden) == len(data)
    assert symbols(hidden).keys() == symbols(data).keys()
    assert any(exported for exported in symbols(data).values())
    assert conceal(hidden) == hidden
    if name == "x86-64-windows":
        assert b"-export" in data
        assert b"-export" not in hidden
    else:
        changed = sum(a != b for a, b in zip(data, hidden, strict=True))
        assert changed == sum(symbols(data).values()), "one byte a symbol"


@pytest.mark.parametrize("name", OBJECTS)
def test_what_kernels_call_is_renamed_in_place(name, kernel_objects):
    data, names = kernel_objects[name], static_names("m")
    renamed = rename(data, names)
    lead = "_" if name == "arm64-macos" else ""
    before, after = symbols(data), symbols(renamed)
    called = [old for old in names if lead + old in before]
    assert {"TVMBackendParallelLaunch", "TVMFFIEnvModRegisterSystemLibSymbol"} <= set(called)
    assert after.keys() == {
        lead + names[symbol.removeprefix(lead)] if symbol.removeprefix(lead) in called else symbol for symbol in before
    }
    assert rename(renamed, {new: old for old, new in names.items()}) == data


def test_a_symbol_that_is_the_tail_of_another_is_not_renamed(kernel_objects):
    data = kernel_objects["x86-64"]
    symbol = next(s for s in objectfile._elf_symbols(data) if s.name == b"TVMBackendParallelLaunch")
    glued = bytearray(data)
    glued[symbol.name_at - 1 : symbol.name_at] = b"x"
    with pytest.raises(InternalError) as caught:
        rename(bytes(glued), static_names("m"))
    assert caught.value.message == (
        "link: the kernel object's symbol `TVMBackendParallelLaunch` cannot be renamed in place"
    )


def test_what_is_no_object_is_refused():
    with pytest.raises(InternalError) as caught:
        conceal(b"#!/bin/sh\n")
    assert caught.value.message == ("link: the kernel object begins with b'#!/bin/s': neither ELF, Mach-O nor COFF")


def test_static_names_are_as_long_as_the_old_and_differ_between_models():
    one, two = static_names("one"), static_names("two")
    assert all(len(old) == len(new) for old, new in one.items())
    assert len({*one.values(), *two.values()}) == 2 * len(one)
    header = (RUNTIME / "internal.h").read_text()
    for macro, name in linker._RUNTIME_FUNCTIONS.items():
        assert f"#define {macro} {name}\n" in header


# ---- what goes wrong --------------------------------------------------------------------------------------------


def attempt(tmp_path: Path, **changes):
    (tmp_path / "source.c").write_text("int broken(void) { return missing; }\n")
    (tmp_path / "blob").write_bytes(b"1234")
    arguments = {
        "source": tmp_path / "source.c",
        "kernels": None,
        "weights": tmp_path / "blob",
        "stem": "m",
        "include": [],
        "static_prefix": "m",
        "emit": ("so",),
        "toolchain": None,
    }
    return link(changes.pop("target", resolve("native")), tmp_path / "out", **(arguments | changes))


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(tmp_path):
    _, toolchain = by("native", "cc")
    with pytest.raises(ToolError) as caught:
        attempt(tmp_path, toolchain=toolchain)
    lines = caught.value.message.splitlines()
    assert lines[0] == "cc failed with exit status 1:"
    assert lines[1].startswith("  cc -c -O2 ")
    assert any("error: " in line and "missing" in line and line.startswith("model.c:1:") for line in lines[2:])
    assert not (tmp_path / "out").exists()


def test_a_long_complaint_is_trimmed_to_its_end(tmp_path):
    script = tmp_path / "noisycc"
    script.write_text("#!/bin/sh\nfor i in $(seq 100); do echo line $i >&2; done\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(ToolError) as caught:
        attempt(tmp_path, toolchain=Toolchain("cc", (str(script),)))
    lines = caught.value.message.splitlines()
    assert lines[0] == "noisycc failed with exit status 3:"
    assert lines[2:4] == ["(40 lines before)", "line 41"]
    assert lines[-1] == "line 100"


def test_a_compiler_that_cannot_be_started_is_an_error_of_the_tool(tmp_path):
    with pytest.raises(ToolError) as caught:
        attempt(tmp_path, toolchain=Toolchain("cc", ("./gone",)))
    assert caught.value.message.startswith("cannot run `./gone`: No such file or directory: ./gone -c ")


def test_a_full_disk_is_an_error_of_the_output(tmp_path):
    script = tmp_path / "fullcc"
    script.write_text("#!/bin/sh\necho 'cannot write model.o: No space left on device' >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(OutputError) as caught:
        attempt(tmp_path, toolchain=Toolchain("cc", (str(script),)))
    assert caught.value.message.startswith(f"the disk is full: {script} -c ")
    assert caught.value.hint == "free some space"


def test_a_folder_that_is_a_file_is_an_error_of_the_output(tmp_path):
    (tmp_path / "out").write_text("")
    _, toolchain = by("native", "cc")
    with pytest.raises(OutputError) as caught:
        attempt(tmp_path, toolchain=toolchain)
    assert caught.value.message == f"cannot write to `{tmp_path / 'out'}`: File exists"


def test_a_failure_leaves_an_older_library_alone(tmp_path):
    _, toolchain = by("native", "cc")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m.so").write_bytes(b"old")
    with pytest.raises(ToolError):
        attempt(tmp_path, toolchain=toolchain)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.so"]
    assert (tmp_path / "out" / "m.so").read_bytes() == b"old"


def test_outputs_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(UsageError) as caught:
        attempt(tmp_path, emit=("so", "exe"))
    assert (caught.value.message, caught.value.hint) == ("unknown kind of output `exe`", "known: so, a, o")
    with pytest.raises(UsageError) as caught:
        attempt(tmp_path, emit=("o",), target=resolve("arm64-macos"))
    assert caught.value.message == "target `arm64-macos` has no relocatable output"
    with pytest.raises(UsageError) as caught:
        attempt(tmp_path, static_prefix="a-b")
    assert caught.value.message == "`a-b` is not a prefix for C names"


@pytest.mark.parametrize("path", sorted(targets_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_every_target_says_how_it_is_linked(path):
    facts = resolve(path.stem).link
    assert facts.zig
    assert facts.machine
    assert facts.gcc or facts.format == "macho"
    assert bool(facts.emulator) == bool(facts.packages)
