"""What README.md and CONTRIBUTING.md say is so: their commands parse, their programs run, their names exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tiny_model import tiny_model

import nncc
from nncc.cli import cli
from nncc.pipeline import STAGES
from nncc.resources import runtime_folder
from nncc.target import resolve
from nncc.verify import reference

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING}
READERS_OWN = {"classify.c", "main.c", "first.h", "second.h", "make_zoo.py"}
"""Files that the pages name and whose reader makes them."""

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")


def blocks(language: str, holding: str = "") -> list[str]:
    """The fenced blocks of README in `language` with `holding` in them, in order."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for block in found if holding in block]


def bash(script: str, folder: Path, stdin: bytes = b"") -> str:
    """What `script` prints, run in `folder` with the nncc that is tested in PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def code_words(text: str) -> list[str]:
    """What stands in backticks, outside of fenced blocks; none goes over the end of a line."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    path = r"[\w.*-]+(/[\w.*-]*)+|[\w*-]+\.(py|c|h|md|toml)"
    words = [word for word in code_words(PAGES[page]) if re.fullmatch(path, word)]
    words = [w for w in words if w not in READERS_OWN and "NAME" not in w and not w.startswith("fmnist_dsnet-")]
    assert len(words) > 3
    assert [word for word in words if not list(ROOT.glob(word.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES)
def test_what_is_said_to_be_in_a_file_is_there(page):
    said = re.findall(r"`(\w+)`(?:,[^`.]*)? in\s+`([\w./-]+\.\w+)`", PAGES[page])
    wrong = [(name, file) for name, file in said if not re.search(rf"\b{name}\b", (ROOT / file).read_text())]
    assert wrong == []


def test_the_map_has_the_stages_in_order():
    rows = re.findall(r"^\| `(\w+)` +\|.*->", CONTRIBUTING, re.MULTILINE)
    assert rows == [stage.name for stage in STAGES]


def test_links_lead_somewhere():
    headings = {re.sub(r"\W+", "-", heading.lower()) for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        known = target[1:] in headings if target.startswith("#") else (ROOT / target).is_file()
        assert known or target.startswith("https://"), target


def test_every_flag_is_an_option():
    options = {"--help", "--version"}
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    for command in (*cli.commands.values(), *(each for group in groups for each in group.commands.values())):
        for parameter in command.params:
            options |= {*parameter.opts, *parameter.secondary_opts}
    for program in ("bench", "count", "accuracy", "agreement", "gpu", "../tests/fuzz/fuzzing"):
        text = (ROOT / "benchmarks" / f"{program}.py").read_text()
        options |= set(re.findall(r'add_argument\(\s*"(--[a-z][a-z0-9]*)"', text))
    options |= set(re.findall(r'^    "  (--[a-z]+)', (runtime_folder() / "bench_main.c").read_text(), re.MULTILINE))
    options |= {"--host", "--port", "--tracker", "--key"}  # of TVM's tracker and server
    table = README.partition("## From tvmc")[2]
    former = {flag for row in table.splitlines() if row.startswith("|") for flag in _flags(row.split("|")[1])}
    assert len(former - options) > 3
    for flag in former - options:
        answer = CliRunner().invoke(cli, ["compile", "m.onnx", flag, "x"]).stderr
        assert f"there is no option `{flag}`" in answer
        assert "--help" not in answer and "did you mean" not in answer, f"{flag} gets an answer of its own: {answer}"
    rest = README.replace(table, "") + "\n".join("|".join(row.split("|")[2:]) for row in table.splitlines())
    assert _flags(rest) - options == set()


def _flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def test_every_command_is_one():
    absent = set(re.findall(r"there is no `nncc (\w+)", README))
    named = {word for text in (*code_words(README), *blocks("sh")) for word in re.findall(r"\bnncc ([a-z]+)\b", text)}
    assert len(named) >= len(cli.commands)
    assert named - absent <= set(cli.commands)
    assert not absent & set(cli.commands)


def test_every_command_line_of_a_block_is_understood():
    lines = [line for block in blocks("sh") for part in block.splitlines() for line in part.split("&&")]
    calls = [shlex.split(line, comments=True)[1:] for line in lines if line.strip().startswith("nncc ")]
    assert len(calls) >= 10
    for name, *words in calls:
        cli.commands[name].make_context(name, words)


def test_every_variable_of_the_environment_is_read():
    sources = "".join(path.read_text() for path in (ROOT / "nncc").glob("**/*.py"))
    for name in re.findall(r"`(NNCC_\w+?)(?:=\w+)?`", README):
        assert f'"{name}"' in sources, name


def test_every_target_is_one(tmp_path):
    (tmp_path / "board.toml").write_text(blocks("toml")[0])
    assert resolve(str(tmp_path / "board.toml")).hardware.l2_kib == 128
    section = README.partition("`--target` takes")[2].partition("A TOML file says")[0]
    words = [word.strip("\"'") for line in section.splitlines() if line.startswith("*") for word in code_words(line)]
    assert len(words) >= 10
    for word in words:
        resolve(word)


# ---- programs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader works: the model is there, and what the Python of README made."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "tests" / "models").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "models" / "fmnist_dsnet.onnx", folder / "tests" / "models")
    (folder / "example.py").write_text("".join(blocks("python")))
    first, second = bash(f"{shlex.quote(sys.executable)} example.py", folder).split()
    assert first == second, "nncc's calls and TensorFlow Lite's give the same class"
    return folder


@needs_cc
def test_the_c_program_computes_what_python_does(folder):
    [program] = blocks("c")
    [commands] = blocks("sh", "cc classify.c")
    image = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)
    (folder / "classify.c").write_text(program)
    (folder / "image.raw").write_bytes(image.tobytes())
    printed = bash(commands.replace("cc ", "cc -Wall -Wextra -Werror ", 1), folder)
    with nncc.load(folder / "fmnist_dsnet-native" / "fmnist_dsnet.so") as module:
        expected = module.run({"input": image})["logits"]
    assert np.array_equal(np.array(printed.split(), np.float32), expected[0])


@needs_cc
def test_two_models_link_into_one_program_as_shown(tmp_path):
    models = {"first": tiny_model(batch=2), "second": tiny_model((("Sigmoid", ""),), batch=2)}
    body = "".join(
        f"  if (nncc_{name}_create(&context, 2)) return 1;\n"
        f"  if (nncc_{name}_run(context, (const void*[]){{image, offset}}, (void*[]){{y}})) return 1;\n"
        f"  nncc_{name}_destroy(context);\n"
        f'  for (int i = 0; i < 10; i++) printf("%.9g\\n", y[i]);\n'
        for name in models
    )
    for name, model in models.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "first.h"\n#include "second.h"\n\nint main(void) {\n'
        "  static float image[2 * 3 * 8 * 8], offset[5], y[10];\n  nncc_context* context;\n"
        "  for (int i = 0; i < 2 * 3 * 8 * 8; i++) image[i] = i % 7 - 3;\n"
        f"{body}  return 0;\n}}\n"
    )
    [commands] = blocks("sh", "--emit a")
    printed = bash(f"({commands}) >/dev/null\n./main", tmp_path)
    image = (np.arange(2 * 3 * 8 * 8) % 7 - 3).astype(np.float32).reshape(2, 3, 8, 8)
    inputs = {"image": image, "offset": np.zeros(5, np.float32)}
    expected = np.stack([reference(tmp_path / f"{name}.onnx", inputs)["y"] for name in models])
    found = np.array(printed.split(), np.float32).reshape(expected.shape)
    # One convolution and one product of 256 terms: rounding is some 1e-6 of the largest.
    assert abs(found - expected).max() <= 1e-5 * abs(expected).max()


def test_the_files_that_are_enough_for_a_board_are_enough(folder, tmp_path):
    sentence = README.partition("on a board, the files")[2].partition("are enough")[0]
    source = Path(nncc.__file__).parent.parent
    for word in code_words(sentence):
        if (source / word).is_dir():
            shutil.copytree(source / word, tmp_path / word)
        else:
            (tmp_path / word).parent.mkdir(exist_ok=True)
            shutil.copy(source / word, tmp_path / word)
    library = folder / "fmnist_dsnet-native" / "fmnist_dsnet.so"
    script = (
        "import sys, nncc, numpy\n"
        f"m = nncc.load({str(library)!r})\n"
        "m.run({'input': numpy.zeros((1, 1, 28, 28), numpy.float32)})\n"
        "print(nncc.__file__, *{'tvm', 'onnx', 'click'} & set(sys.modules))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == [str(tmp_path / "nncc" / "__init__.py")]
