"""The loop over the passes: checked after each, and the one that breaks the graph is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from graphs import ops, parse

from nncc import passes
from nncc.errors import InternalError, ModelError
from nncc.frontend.onnx import import_onnx
from nncc.passes.fold_constants import fold_constants
from nncc.passes.rewriting import Report
from nncc.passes.simplify import simplify
from nncc.verify import compare, reference, sample_inputs

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def test_a_pass_that_breaks_the_graph_is_blamed_by_name(monkeypatch):
    def break_it(graph: onnx_ir.Model) -> Report:
        next(iter(graph.graph)).op_type = "NoSuchOperator"
        return Report(1)

    monkeypatch.setattr(passes, "SIMPLIFY", (break_it,))
    with pytest.raises(InternalError, match=r"pass `break_it` made an invalid graph.*NoSuchOperator"):
        simplify(parse("g (float[2] x) => (float[2] y) { y = Relu (x) }"))


def test_a_pass_that_renames_an_output_is_blamed_by_name(monkeypatch):
    def rename(graph: onnx_ir.Model) -> Report:
        graph.graph.outputs[0].name = "other"
        return Report()

    monkeypatch.setattr(passes, "SIMPLIFY", (rename,))
    with pytest.raises(InternalError, match="pass `rename` changed the inputs or outputs"):
        simplify(parse("g (float[2] x) => (float[2] y) { y = Relu (x) }"))


def test_an_output_of_two_shapes_is_the_models_fault(monkeypatch):
    def reshape(graph: onnx_ir.Model) -> Report:
        graph.graph.outputs[0].shape = onnx_ir.Shape([3])
        return Report()

    monkeypatch.setattr(passes, "SIMPLIFY", (reshape,))
    with pytest.raises(ModelError) as caught:
        simplify(parse("g (float[2] x) => (float[2] y) { y = Relu (x) }"))
    assert caught.value.message == (
        "the model contradicts itself: `y` has the shape 2 by one part of it, and 3 by another"
    )
    assert caught.value.hint == "export it again, or ask its author"


def test_importing_the_passes_loads_neither_onnx_nor_numpy_nor_tvm():
    code = "import sys, nncc.passes.simplify, nncc.frontend.onnx, nncc.verify, nncc.text; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"onnx", "onnx_ir", "numpy", "tvm", "onnxruntime"} & set(loaded)


def test_parts_of_a_constant_are_constants():
    text = """g (int64[1] x) => (int64[1] y) {
      c = Constant <value = int64[3] {4, 5, 6}> ()
      a, b, d = Split <axis = 0> (c)
      e = Mul (x, b)
      y = Add (e, d)
    }"""
    model = simplify(parse(text, opset=13))
    assert ops(model) == ["Mul", "Add"]
    assert sorted(int(v.const_value.numpy()[0]) for v in model.graph.graph.initializers.values()) == [5, 6]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v2"])
def test_classic_networks_lose_their_batch_norms_and_compute_the_same(name):
    model = import_onnx(LIGHT / f"light_{name}.onnx")
    fold_constants(model.graph)  # the wheel's weights are ConstantOfShape: draw better ones
    rng = np.random.default_rng(0)
    for value in model.graph.graph.initializers.values():
        shape = value.const_value.shape.numpy()
        if value.dtype == onnx_ir.DataType.FLOAT and shape:
            scale = np.sqrt(2 / max(np.prod(shape[1:]), 1))
            array = rng.normal(0, scale, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
            value.const_value = onnx_ir.tensor(array.astype(np.float32), name=value.name)
    after = simplify(model)
    assert not {"BatchNormalization", "ConstantOfShape", "Dropout", "Constant"} & set(ops(after))
    inputs = sample_inputs(model)
    for comparison in compare(reference(model, inputs), reference(after, inputs)):
        assert comparison.ok, comparison
