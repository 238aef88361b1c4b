"""runtime.c: threads, scratch memory, errors and the processor check."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HERE, MODEL, RUNTIME, build

from nncc.errors import RunError
from nncc.runtime.loader import load

X = np.arange(32, dtype=np.float32).reshape(4, 8)
Y = X * (X + 0.5)

WAYS = {
    "plain": (),
    "serial": ("-DNNCC_NO_THREADS",),
    "no spinning": ("-DNNCC_SPIN_SECONDS=0",),  # every wait goes to sleep, so every wake-up is tried
}


def inputs(mode: int = 0) -> dict[str, np.ndarray]:
    return {"x": X, "mode": np.array([mode], np.int32)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_task_of_20000_launches_runs_exactly_once(model, way, threads):
    with load(model(*WAYS[way]), 1 if way == "serial" else threads) as loaded:
        counts = loaded.run(inputs(mode=3))["counts"]
    assert counts.tolist() == [sum(1 + n % 9 for n in range(20000)), 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_launch_inside_a_task_runs_there(model, threads):
    with load(model(), threads) as loaded:
        assert loaded.run(inputs(mode=4))["counts"].tolist() == [12, 0]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (1, "ValueError: index 7 is out of range"),
        (2, "the kernel asks for 5000 bytes of scratch memory and 4096 of 4096 are left"),
        (5, "AssertionError: shape mismatch"),
        (6, "it gave no reason"),
        (9, "ValueError: left without freeing"),
    ],
)
def test_a_kernel_that_fails_is_named_with_its_reason(model, threads, mode, reason):
    with load(model(), threads) as loaded:
        for _ in range(20):
            with pytest.raises(RunError) as caught:
                loaded.run(inputs(mode))
            assert str(caught.value) == f'kernel 1 (fake_"behave") failed: {reason}'
        assert np.array_equal(loaded.run(inputs(mode=8))["y"], Y), "the context works on after a failure"


def test_scratch_memory_is_a_stack(model):
    with load(model(), 2) as loaded:
        loaded.run(inputs(mode=8))


def test_contexts_run_at_once(model):
    failures = []

    def work() -> None:
        with load(model(), 2) as loaded:
            for i in range(200):
                results = loaded.run(inputs(mode=4))
                if not np.array_equal(results["y"], Y) or results["counts"].tolist() != [12, 0]:
                    failures.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_one_context_in_two_threads_is_refused(model):
    with load(model(), 1) as loaded:
        slow = threading.Thread(target=loaded.run, args=(inputs(mode=7),))
        slow.start()
        refused = ""
        while slow.is_alive() and not refused:
            try:
                loaded.run(inputs())
            except RunError as error:
                refused = str(error)
        slow.join()
        assert refused == "this context is running in another thread; make one context for each thread"
        assert np.array_equal(loaded.run(inputs())["y"], Y)


def test_idle_threads_sleep(model):
    with load(model(), 4) as loaded:
        loaded.run(inputs())
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1, "four spinning threads would have taken 0.3 s or more"


def test_sleeping_threads_wake_for_work(model):
    """The three tasks wait for each other, so all three threads must come, each time from their sleep."""
    with load(model(), 3) as loaded:
        for _ in range(20):
            time.sleep(0.003)
            loaded.run(inputs(mode=10))


@pytest.mark.parametrize("threads", [-1, 1025])
def test_a_senseless_number_of_threads_is_refused(model, threads):
    with pytest.raises(RunError, match=f"{threads} threads asked for; expected 1 to 1024, or 0 for one per processor"):
        load(model(), threads)


def test_the_serial_build_refuses_threads(model):
    with pytest.raises(RunError, match="2 threads asked for; this library was compiled without threads"):
        load(model("-DNNCC_NO_THREADS"), 2)


def test_the_serial_build_needs_no_pthreads(model):
    undefined = subprocess.run(
        ["nm", "-D", "-u", model("-DNNCC_NO_THREADS")], capture_output=True, text=True, check=True
    )
    assert "pthread" not in undefined.stdout


def test_threads_that_cannot_be_made_are_an_error(model):
    program = (
        "import resource, sys; from nncc.runtime.loader import load\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: load(sys.argv[1], 1000)\n"
        "except Exception as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(model())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert "of 1000 cannot be made: " in done.stdout, done.stderr


def test_an_arena_that_does_not_fit_is_an_error(model):
    with pytest.raises(RunError, match="no memory for the arena of 18446744073709551000 bytes"):
        load(model("-DFAKE_ARENA=18446744073709551000u"))


def test_no_memory_is_allocated_while_running(tmp_path):
    program = build(tmp_path / "allocations", (*MODEL, "allocations.c"))
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert done.stdout == "some in create, 0 in run\n"


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
@pytest.mark.parametrize("way", ["plain", "no spinning"])
def test_sanitizers_find_nothing(tmp_path, sanitizer, way):
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", *WAYS[way])
    program = build(tmp_path / "hammer", (*MODEL, "hammer.c"), *flags)
    done = subprocess.run([program, "40"], capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space layout is too random for this ThreadSanitizer")
    assert (done.returncode, done.stderr) == (0, "")


def test_two_models_link_into_one_program(tmp_path):
    names = {"PARALLEL_LAUNCH": "pl", "ALLOC_WORKSPACE": "aw", "FREE_WORKSPACE": "fw", "RAISE": "er"}
    names |= {"RAISE_PARTS": "ep", "PARALLEL_BARRIER": "pb", "REGISTER_SYMBOL": "rs"}
    renamed = [f"-DNNCC_SYM_{key}=nncc_0123456789abcdef_{short}" for key, short in names.items()]
    ways = {"first": (), "second": ("-DRENAMED", "-DNNCC_WEIGHTS=second_weights", *renamed)}
    objects = [
        build(tmp_path / f"{way}{i}.o", (source,), "-c", f"-DNNCC_STATIC_PREFIX={way}", *flags)
        for way, flags in ways.items()
        for i, source in enumerate(MODEL)
    ]
    program = build(tmp_path / "two", (*objects, "two_models.c"))
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "3 3 0 0\n"


@pytest.mark.parametrize(("compiler", "flags"), [("cc", ("-x", "c", "-std=c99")), ("c++", ("-x", "c++", "-std=c++17"))])
def test_the_header_is_c99_and_cpp17(tmp_path, compiler, flags):
    (tmp_path / "use.c").write_text('#include "nncc.h"\nint main(void) { return NNCC_OK; }\n')
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{RUNTIME}"]
    subprocess.run([compiler, *flags, *strict, tmp_path / "use.c", "-o", tmp_path / "use"], check=True)


# -- the processor check. What matters is what a processor without the feature does: an emulator plays it.

LACKS = (
    "nncc-bench: this processor lacks {missing}, which the kernels of target testboard need; "
    "compile for a target that does without, or for native on this machine\n"
)
AARCH64 = ("aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu")
ARMV7 = ("arm-linux-gnueabihf-gcc", "qemu-arm", "/usr/arm-linux-gnueabihf")
RISCV64 = ("riscv64-linux-gnu-gcc", "qemu-riscv64", "/usr/riscv64-linux-gnu")


def emulate(emulator: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is not installed")
    return subprocess.run([emulator, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs this machine's libc under the emulator")
@pytest.mark.parametrize(
    ("processor", "features", "missing"),
    [
        ("Nehalem", "sse3,pni,ssse3,sse4_1,sse4_2,popcnt,cx16", None),
        ("Nehalem", "sse4_2,avx2,fma", "avx2, fma"),
        ("Nehalem", "avx,f16c,bmi1,bmi2,abm,lzcnt,movbe", "avx, f16c, bmi1, bmi2, abm, lzcnt, movbe"),
        ("Haswell", "avx,avx2,fma,f16c,bmi1,bmi2,abm,lzcnt,movbe", None),
        ("Haswell", "avx2,avx512f,avx512vl,avx512_vnni,avx_vnni", "avx512f, avx512vl, avx512_vnni, avx_vnni"),
        ("Haswell,-xsave", "avx2", "avx2"),
    ],
)
def test_x86_features_are_checked_before_anything_runs(model, bench, processor, features, missing):
    arguments = ("-cpu", processor, bench(), model(f'-DFAKE_FEATURES="{features}"'), "--fill", "zeros")
    done = emulate("qemu-x86_64", *arguments)
    expected = (1, LACKS.format(missing=missing)) if missing else (0, "")
    assert (
        done.returncode,
        "".join(line for line in done.stderr.splitlines(True) if "warning" not in line),
    ) == expected


@pytest.mark.parametrize(
    ("tools", "processor", "features", "missing"),
    [
        (AARCH64, "cortex-a53", "asimd,crc32", None),
        (AARCH64, "cortex-a72", "asimd,asimddp,i8mm", "asimddp, i8mm"),
        (AARCH64, "cortex-a76", "asimd,asimddp,asimdhp,fphp,atomics", None),
        (AARCH64, "cortex-a76", "bf16,sve", "bf16, sve"),
        (ARMV7, "cortex-a7", "neon,vfpv4,idiva", None),
        (ARMV7, "cortex-a9", "neon,vfpv4,idiva", "vfpv4, idiva"),
        (RISCV64, "rv64,v=true,vext_spec=v1.0", "i,m,a,f,d,c,v", None),
        (RISCV64, "rv64,v=false", "d,v", "v"),
    ],
)
def test_features_of_boards_are_checked(model, bench, tools, processor, features, missing):
    compiler, emulator, sysroot = tools
    library = model(f'-DFAKE_FEATURES="{features}"', cc=compiler)
    done = emulate(
        emulator, "-cpu", processor, "-L", sysroot, bench(compiler), library, "--fill", "zeros", "--threads", "3"
    )
    assert (done.returncode, done.stderr) == ((1, LACKS.format(missing=missing)) if missing else (0, ""))


def test_an_unknown_feature_is_refused_not_ignored(model):
    with pytest.raises(RunError) as caught:
        load(model('-DFAKE_FEATURES="warp_drive,avx9"'))
    assert str(caught.value).endswith(
        "the kernels of target testboard need warp_drive, avx9, "
        "of which this library cannot tell whether a processor has it"
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86_64-windows-gnu", "aarch64-macos", "x86_64-linux-musl"])
def test_zig_compiles_it_for_other_systems(tmp_path, target):
    pytest.importorskip("ziglang")
    zig = ("-m", "ziglang", "cc", "-target", target)
    for output, sources, flags in [
        ("model", MODEL, ("-shared", "-fPIC")),
        ("serial", MODEL, ("-shared", "-fPIC", "-DNNCC_NO_THREADS")),
        ("bench", (str(RUNTIME / "bench_main.c"),), ()),
    ]:
        wrapper = tmp_path / "zigcc"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" {" ".join(zig)} "$@"\n')
        wrapper.chmod(0o755)
        build(tmp_path / output, sources, *flags, cc=str(wrapper))
