"""`nncc check`: what can be compiled and what cannot, all of it at once, and what it will take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from compiled import Net
from onnx import TensorProto, helper

from nncc.check import Check, check_model
from nncc.cli import cli
from nncc.errors import ModelError
from nncc.reports.check import check_facts, check_text
from nncc.target import resolve

BOARD = resolve("rpi4")


def check(model: onnx.ModelProto, folder: Path, **options: Any) -> Check:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return check_model(path, BOARD, **options)


def made(nodes: list[onnx.NodeProto], shape: list[Any], domains: tuple[str, ...] = ("",)) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in domains]
    graph = helper.make_graph(nodes, "net", [value], [result])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_a_convolution_is_counted_as_it_will_be_computed(tmp_path: Path) -> None:
    net = Net()
    x = net.input(1, 8, 16, 16)
    net.output(net.op("Relu", net.op("Conv", x, net.weight(4, 8, 3, 3), pads=[1, 1, 1, 1])))
    found = check(net.model(), tmp_path)
    assert found.compiles
    assert {use.operator: use.count for use in found.uses} == {"Conv": 1, "Relu": 1}
    assert (found.macs, found.integer_macs) == (4 * 8 * 9 * 16 * 16, 0)
    assert found.parameter_bytes == {"float": 4 * 4 * 8 * 9}
    assert found.activation_bytes == 2 * 4 * 4 * 16 * 16  # the convolution's and the result
    assert found.seconds is not None and 0 < found.seconds < 1e-3


def test_all_that_cannot_be_compiled_is_found_and_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="fine"),
        helper.make_node("Fancy", ["a"], ["b"], name="first", domain="acme"),
        helper.make_node("Fancy", ["b"], ["c"], name="second", domain="acme"),
        helper.make_node("Odd", ["c"], ["y"], name="third", domain="acme"),
    ]
    found = check(made(nodes, [2, 3], ("", "acme")), tmp_path)
    assert not found.compiles
    wrong = {use.operator: (use.count, use.nodes, use.problem) for use in found.uses if use.problem}
    assert wrong == {
        "acme Fancy": (2, ("first", "second"), "nncc does not know this operator"),
        "acme Odd": (1, ("third",), "nncc does not know this operator"),
    }


def test_open_dimensions_are_named_and_guessed_alike_for_all_inputs(tmp_path: Path) -> None:
    one, other = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "S"]) for name in "ab")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "net", [one, other], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = check(model, tmp_path, shape={"b": (2, 7)})
    assert [(each.name, each.shape, each.checked) for each in found.open_inputs] == [
        ("a", ("N", "S"), (2, 7)),
        ("b", ("N", "S"), (2, 7)),
    ]
    assert [str(spec) for spec in found.outputs] == ["y: float32[2x7]"]
    assert [each.checked for each in check(model, tmp_path).open_inputs] == [(1, 128), (1, 128)]


def test_products_of_quantized_tensors_are_counted_as_such(tmp_path: Path) -> None:
    net = Net()
    x = net.input(4, 8)
    scale, zero = net.constant(0.1, np.float32), net.constant(0, np.int8)
    quantized = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
    weights = net.op("DequantizeLinear", net.constant(np.ones((8, 16)), np.int8), scale, zero)
    net.output(net.op("MatMul", quantized, weights))
    found = check(net.model(), tmp_path)
    assert (found.macs, found.integer_macs) == (4 * 8 * 16, 4 * 8 * 16)


def test_a_shape_that_contradicts_the_model_is_its_own_error(tmp_path: Path) -> None:
    model = made([helper.make_node("Relu", ["x"], ["y"])], ["N", 3])
    found = check(model, tmp_path, shape={"x": (1, 4)})
    assert [problem.message for problem in found.problems] == [
        "`--shape x=1x4` contradicts the model, where it is `N`x3"
    ]
    assert not found.compiles


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        check_model(tmp_path / "net.onnx", BOARD)


def test_the_text_says_what_is_wrong_where_and_what_to_do(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Fancy", ["x"], ["a"], name="first", domain="acme"),
        helper.make_node("Relu", ["a"], ["y"], name="last"),
    ]
    text = check_text(check_facts(check(made(nodes, ["N", 3], ("", "acme")), tmp_path), BOARD))
    assert text == (
        "net cannot be compiled for rpi4; ai.onnx 17, acme 1\n"
        "\n"
        "operator    in the file  compiled  not\n"
        "Relu                  1         1\n"
        "acme Fancy            1              1\n"
        "\n"
        "1 acme Fancy (`first`): nncc does not know this operator\n"
        "  hint: cut the model before it, or export it with other operators\n"
        "\n"
        "`x` is Nx3; checked as 1x3: `--shape x=1x3`\n"
    )


def test_the_command_says_so_by_its_exit_status(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(made([helper.make_node("Relu", ["x"], ["y"])], [2, 3]), good)
    onnx.save(made([helper.make_node("Fancy", ["x"], ["y"], domain="acme")], [2, 3], ("", "acme")), bad)
    result = CliRunner().invoke(cli, ["check", str(good), "--target", "rpi4", "--json"])
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["compiles"] and facts["operators"][0]["operator"] == "Relu"
    assert CliRunner().invoke(cli, ["check", str(bad), "--target", "rpi4"]).exit_code == 1
