"""`nncc compare --bisect`: the first operator that differs from ONNX Runtime, as a model that shows it by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from compiled import Net

from nncc.bisect import Culprit, bisect, write_culprit
from nncc.cli import cli
from nncc.compat import relax
from nncc.config import Config
from nncc.frontend import converters
from nncc.frontend.onnx import import_onnx
from nncc.reports.compare import culprit_facts, culprit_text
from nncc.verify import sample_inputs


def chain() -> Net:
    """Exp and Tanh between others that a defect spreads through."""
    net = Net()
    x = net.input(2, 8)
    h = net.op("MatMul", x, net.weight(8, 8))
    h = net.op("Exp", h)
    h = net.op("Add", h, net.weight(8))
    h = net.op("Tanh", h)
    h = net.op("MatMul", h, net.weight(8, 4))
    net.output(net.op("Sigmoid", h))
    return net


def wrong(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler takes Tanh for `kind`."""
    made = {**converters.CONVERTERS, "Tanh": lambda builder, inputs, attributes: kind(inputs[0])}
    monkeypatch.setattr(converters, "CONVERTERS", made)


def found(net: Net, folder: Path) -> Culprit | None:
    model = import_onnx(net.save(folder / "net.onnx"))
    return bisect(model, Config(target="native"), sample_inputs(model))


def test_a_model_that_is_right_has_no_culprit(tmp_path: Path) -> None:
    assert found(chain(), tmp_path) is None


def test_the_first_wrong_operator_is_found_and_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(relax.op.sin, monkeypatch)
    culprit = found(chain(), tmp_path)
    assert culprit is not None
    assert [op_type for op_type, _ in culprit.nodes] == ["Tanh"]
    assert (culprit.position, culprit.of) == (4, 6)
    assert [each.ok for each in culprit.found] == [False]
    model, inputs, expected = write_culprit(culprit, tmp_path / "culprit")
    session = onnxruntime.InferenceSession(str(model))
    given, wanted = dict(np.load(inputs)), dict(np.load(expected))
    (result,) = session.run(list(wanted), given)
    np.testing.assert_array_equal(result, next(iter(wanted.values())))
    np.testing.assert_allclose(result, np.tanh(next(iter(given.values()))), rtol=1e-6)


def test_a_defect_of_two_operators_together_is_found_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tanh is wrong only where its input is computed in the same function, as a fusion would be."""

    def together(builder: Any, inputs: Any, attributes: Any) -> Any:
        known = isinstance(builder.lookup_binding(inputs[0]), relax.Call) if isinstance(inputs[0], relax.Var) else True
        return relax.op.sin(inputs[0]) if known else relax.op.tanh(inputs[0])

    monkeypatch.setattr(converters, "CONVERTERS", {**converters.CONVERTERS, "Tanh": together})
    culprit = found(chain(), tmp_path)
    assert culprit is not None
    assert [op_type for op_type, _ in culprit.nodes] == ["Add", "Tanh"]


def test_what_fails_to_compile_is_a_culprit_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(value: Any) -> Any:
        raise ValueError("no such thing")

    wrong(fails, monkeypatch)
    culprit = found(chain(), tmp_path)
    assert culprit is not None
    assert [op_type for op_type, _ in culprit.nodes] == ["Tanh"]
    assert culprit.error == "the operator `Tanh` is used in a form that cannot be compiled: no such thing"


def test_the_command_says_where_and_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chain().save(tmp_path / "net.onnx")
    right = CliRunner().invoke(cli, ["compare", str(path), "--bisect"])
    assert (right.exit_code, right.stdout) == (0, "net for native agrees with ONNX Runtime; inputs: random, seed 0\n")
    wrong(relax.op.sin, monkeypatch)
    result = CliRunner().invoke(cli, ["compare", str(path), "--bisect", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "the first difference from ONNX Runtime is at Tanh `" in result.stdout
    assert "`, operator 4 of 6\n" in result.stdout
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["culprit.onnx", "expected.npz", "inputs.npz"]
    onnx.checker.check_model(str(tmp_path / "out" / "culprit.onnx"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.onnx", "n.onnx", "--bisect"], "`--bisect` takes one model, and compiles it itself"),
        (["m.onnx"], "there is nothing to compare with"),
        (["m.onnx", "n.onnx"], "there are no samples to compare the models on"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["compare", *words])
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_text_names_the_operators_before_it() -> None:
    culprit = Culprit(None, (("Add", "sum"), ("Tanh", "last")), 4, 6, {}, {}, (), "why")  # type: ignore[arg-type]
    files = [Path("c/culprit.onnx"), Path("c/inputs.npz"), Path("c/expected.npz")]
    assert culprit_text(culprit_facts(culprit, "net", "rpi4", "x.npz", files)) == (
        "net for rpi4; inputs: x.npz\n"
        "\n"
        "the first difference from ONNX Runtime is at Tanh `last`, operator 4 of 6\n"
        "it shows together with the 1 operator before it:\n"
        "  Add  sum\n"
        "why\n"
        "\n"
        "written to c/culprit.onnx, with c/inputs.npz and c/expected.npz: a report of the defect needs no more\n"
    )
