"""Inputs that decide shapes become constants; the compiler's own error says which have to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from compiled import agrees
from onnx import helper

from nncc.cli import cli
from nncc.errors import ModelError
from nncc.frontend.onnx import import_onnx


def _sum(tmp_path, axes=(1,), declared=("k",)):
    """sum(x, axes) with axes as an input."""
    inputs = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 3, 4)),
        helper.make_tensor_value_info("axes", onnx.TensorProto.INT64, declared),
    ]
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    graph = helper.make_graph([node], "net", inputs, [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)])
    path = tmp_path / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("axes", ["1", " 0, 2 ", "[-1]", np.array([1]), [0, 1], np.array([2], np.int32)])
def test_a_bound_input_is_a_constant_of_its_type(tmp_path, axes):
    model = import_onnx(_sum(tmp_path), bind={"axes": axes})
    assert [spec.name for spec in model.inputs] == ["x"]
    bound = model.graph.graph.initializers["axes"].const_value.numpy()
    assert bound.dtype == np.int64 and bound.ndim == 1


def test_a_library_with_a_bound_input_computes_what_onnx_runtime_computes(tmp_path):
    agrees(_sum(tmp_path), tmp_path, bind={"axes": "0,2"})


def test_values_come_from_a_file_too(tmp_path):
    np.save(tmp_path / "axes.npy", np.array([0], np.int64))
    model = import_onnx(_sum(tmp_path), bind={"axes": f"@{tmp_path / 'axes.npy'}"})
    assert model.outputs[0].shape == (3, 4)


def test_the_command_line_binds(tmp_path):
    path = _sum(tmp_path)
    done = CliRunner().invoke(cli, ["show", str(path), "--bind", "axes=0,1", "--shape", "x=2x3x4"])
    assert done.exit_code == 0, done.output
    assert "y: float32[4]" in done.output


def test_an_output_whose_shape_an_input_decides_asks_for_it(tmp_path):
    with pytest.raises(ModelError) as caught:
        import_onnx(_sum(tmp_path), shape={"axes": (2,)})
    assert str(caught.value) == "the shape of output `y` depends on the data, not only on the shapes of the inputs"
    assert caught.value.hint == "fix it with `--bind axes=...`, if it is the same in every run"


def test_what_decides_is_found_behind_other_operators_but_not_behind_shapes(tmp_path):
    from nncc.frontend.binding import deciding_inputs
    from nncc.frontend.read_graph import read_graph

    inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("x", onnx.TensorProto.FLOAT, (2, 3)),
            ("like", onnx.TensorProto.FLOAT, (3, 2)),
            ("rows", onnx.TensorProto.INT32, (2,)),
        )
    ]
    nodes = [
        helper.make_node("Shape", ["like"], ["sizes"]),
        helper.make_node("Reshape", ["x", "sizes"], ["a"]),
        helper.make_node("Cast", ["rows"], ["wide"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", ["a", "wide"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", inputs, [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)])
    path = tmp_path / "reshape.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    assert deciding_inputs(read_graph(path)) == ("rows",)


@pytest.mark.parametrize(
    ("bind", "declared", "message", "hint"),
    [
        (
            {"axis": "1"},
            ("k",),
            "`--bind axis=...` names no input of the model",
            "did you mean `axes`?",
        ),
        (
            {"axes": "one"},
            ("k",),
            "`--bind axes=...`: `one` is no list of numbers",
            "for example `--bind axes=0,1`, or `--bind axes=@FILE.npy`",
        ),
        (
            {"axes": "1.5"},
            ("k",),
            "`--bind axes=...` has values that are none of int64",
            "the input is of int64",
        ),
        (
            {"axes": "99999999999999999999"},
            ("k",),
            "`--bind axes=...` has values that are none of int64",
            "the input is of int64",
        ),
        ({"axes": "0,1"}, (1,), "`--bind axes=...` has the shape 2; the input has 1", None),
        ({"axes": "0,1"}, (1, 1), "`--bind axes=...` has the shape 2; the input has 1x1", None),
        ({"axes": np.array(["a"])}, ("k",), "`--bind axes=...` is of <U1; the input is of int64", None),
        (
            {"axes": "@nowhere.npy"},
            ("k",),
            "`--bind axes=...`: `nowhere.npy` cannot be read as .npy: No such file or directory",
            "write it with `numpy.save`",
        ),
    ],
)
def test_what_cannot_be_bound_is_refused(tmp_path, bind, declared, message, hint):
    with pytest.raises(ModelError) as caught:
        import_onnx(_sum(tmp_path, declared=declared), bind=bind)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_several_arrays_in_a_file_are_refused(tmp_path):
    np.savez(tmp_path / "axes.npz", a=np.array([0]), b=np.array([1]))
    with pytest.raises(ModelError) as caught:
        import_onnx(_sum(tmp_path), bind={"axes": f"@{tmp_path / 'axes.npz'}"})
    assert str(caught.value) == f"`--bind axes=...`: `{tmp_path / 'axes.npz'}` holds several arrays"


def test_a_word_without_a_value_is_a_mistake_of_the_command_line(tmp_path):
    done = CliRunner().invoke(cli, ["show", str(_sum(tmp_path)), "--bind", "axes"])
    assert done.exit_code == 2
    assert "`--bind axes` is not NAME=VALUES" in done.output
