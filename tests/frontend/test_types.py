"""Models whose operands or outputs are of types that their operators do not have."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from nncc.errors import ModelError
from nncc.frontend.onnx import import_onnx

HINT = "export it again, or ask its author: ONNX Runtime refuses it too"


def imported(
    folder: Path, nodes: list[onnx.NodeProto], inputs: dict[str, int], outputs: list[tuple[str, int, list[int] | None]]
) -> None:
    values = [helper.make_tensor_value_info(name, kind, [2, 3]) for name, kind in inputs.items()]
    results = [helper.make_tensor_value_info(*output) for output in outputs]
    graph = helper.make_graph(nodes, "net", values, results)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    import_onnx(folder / "net.onnx")


def refused(folder: Path, *model: object) -> tuple[str, str | None]:
    with pytest.raises(ModelError) as caught:
        imported(folder, *model)  # type: ignore[arg-type]
    return caught.value.message, caught.value.hint


def test_an_operand_of_a_type_that_the_operator_does_not_take(tmp_path: Path) -> None:
    node = helper.make_node("Neg", ["x"], ["y"], name="minus")
    assert refused(tmp_path, [node], {"x": TensorProto.UINT16}, [("y", TensorProto.UINT16, [2, 3])]) == (
        "Neg `minus` cannot take `x`, which is uint16",
        HINT,
    )


def test_an_operand_that_has_to_be_there(tmp_path: Path) -> None:
    node = helper.make_node("Sum", ["x", ""], ["y"], name="total")
    assert refused(tmp_path, [node], {"x": TensorProto.FLOAT}, [("y", TensorProto.FLOAT, [2, 3])]) == (
        "Sum `total` lacks input 1, `data_0`, which is not optional",
        HINT,
    )


def test_operands_of_two_types_where_there_is_to_be_one(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"], name="sum")
    inputs = {"a": TensorProto.FLOAT, "b": TensorProto.DOUBLE}
    assert refused(tmp_path, [node], inputs, [("y", TensorProto.FLOAT, [2, 3])]) == (
        "Add `sum` has operands of float and of double, which have to be of one type",
        HINT,
    )


def test_operands_may_differ_where_the_definition_says_so(tmp_path: Path) -> None:
    node = helper.make_node("Pow", ["a", "b"], ["y"])
    imported(tmp_path, [node], {"a": TensorProto.FLOAT, "b": TensorProto.INT64}, [("y", TensorProto.FLOAT, [2, 3])])


def test_an_output_that_is_declared_otherwise_than_it_is_computed(tmp_path: Path) -> None:
    node = helper.make_node("Greater", ["a", "b"], ["y"])
    inputs = {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT}
    assert refused(tmp_path, [node], inputs, [("y", TensorProto.INT16, [2, 3])]) == (
        "output `y` is declared as int16, and computed as bool",
        HINT,
    )


def test_an_output_that_is_named_twice(tmp_path: Path) -> None:
    outputs = [("y", TensorProto.FLOAT, [2, 3])] * 2
    assert refused(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {"x": TensorProto.FLOAT}, outputs) == (
        "output `y` is named twice",
        "export the model with each output once",
    )
