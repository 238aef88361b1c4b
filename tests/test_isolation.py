"""A command in a process of its own: its exit status, its crashes as errors, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def program(body: str) -> list[str]:
    """Python that runs `body` isolated, as the command line does."""
    return [
        sys.executable,
        "-c",
        "import os, signal, sys, time\n"
        "from nncc.cli.errors import said\n"
        "from nncc.isolation import isolated\n"
        f"def run():\n    {body}\n"
        "sys.exit(said(lambda: isolated(run), sys.argv[1:]))",
    ]


def answer(body: str, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([*program(body), *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("body", "code"), [("pass", 0), ("sys.exit(3)", 3), ("sys.exit('words')", 1)])
def test_the_exit_status_is_that_of_the_command(body: str, code: int) -> None:
    assert answer(body)[0] == code


def test_what_it_prints_is_printed() -> None:
    assert answer("print('out'); print('err', file=sys.stderr)") == (0, "out\n", "err\n")


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV"])
def test_a_crash_is_a_defect_that_says_what_to_do(name: str) -> None:
    assert answer(f"os.kill(os.getpid(), signal.{name})") == (
        70,
        "",
        f"error: the compiler crashed ({name}) in one of its libraries\n\n"
        "This is a defect of nncc, not a mistake of yours.\n\n"
        "hint: please report this, with the model; `nncc compare MODEL --bisect` finds the operator; "
        "NNCC_TRACEBACK=1 shows the whole traceback\n",
    )


def test_a_crash_is_told_in_json_too() -> None:
    code, out, _ = answer("os.abort()", "--json")
    assert code == 70
    assert out.startswith('{"error": "the compiler crashed (SIGABRT) in one of its libraries')


def test_out_of_memory_is_said_as_such() -> None:
    code, _, err = answer("os.kill(os.getpid(), signal.SIGKILL)")
    assert code == 70
    assert err.startswith("error: the compiler was killed, as systems do that run out of memory\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_parent(number: int) -> None:
    process = subprocess.Popen(program("print(os.getpid(), flush=True); time.sleep(60)"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(number)
    process.wait(timeout=10)
    process.stdout.close()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{child}")
