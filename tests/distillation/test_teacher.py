"""A teacher is asked for a whole batch at once wherever that gives what it gives for each sample."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from students import FLOAT, classifier, saved

from nncc.frontend.onnx import read_graph
from nncc.quant.session import Session

torch = pytest.importorskip("torch")

from nncc.distillation.batches import stack  # noqa: E402
from nncc.distillation.teacher import teacher_of  # noqa: E402


@pytest.fixture
def runs(monkeypatch):
    """The sizes of the batches that ONNX Runtime is given from now on."""
    sizes, run = [], Session.run

    def counted(self, inputs, names):
        sizes.append(len(next(iter(inputs.values()))))
        return run(self, inputs, names)

    monkeypatch.setattr(Session, "run", counted)
    return sizes


def samples(*shape, count=8):
    return [{"image": each[None]} for each in np.random.default_rng(0).standard_normal((count, *shape), np.float32)]


def test_a_batch_that_is_fixed_to_one_is_opened(tmp_path, runs):
    """Its Reshape says 1 too; the answers are those of the teacher as it is."""
    given = samples(3, 6, 6)
    fixed, free = (read_graph(classifier(tmp_path / f"{batch}.onnx", batch=batch)) for batch in (1, "N"))
    ask = teacher_of(fixed, ["logits", "scores"], given)
    runs.clear()
    found = ask(stack(given))
    assert runs == [8]
    wanted = teacher_of(free, ["logits", "scores"], given)(stack(given))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))
    assert [value.shape[0] for value in fixed.graph.inputs] == [1], "the graph itself stays as it was"


def test_one_that_mixes_samples_is_asked_for_each(tmp_path, runs):
    nodes = [helper.make_node("Softmax", ["image"], ["scores"], axis=0)]
    path = saved(tmp_path / "m.onnx", nodes, [("image", FLOAT, [1, 4])], [("scores", FLOAT, [1, 4])], {})
    given = samples(4)
    ask = teacher_of(read_graph(path), ["scores"], given)
    runs.clear()
    assert ask(stack(given))[0].tolist() == [[1.0] * 4] * 8
    assert runs == [1] * 8


def test_one_whose_constants_fix_the_batch_is_asked_for_each(tmp_path, runs):
    nodes = [helper.make_node("Concat", ["image", "row"], ["wide"], axis=1)]
    constants = {"row": np.ones((1, 2), np.float32)}
    path = saved(tmp_path / "m.onnx", nodes, [("image", FLOAT, [1, 4])], [("wide", FLOAT, [1, 6])], constants)
    given = samples(4)
    ask = teacher_of(read_graph(path), ["wide"], given)
    runs.clear()
    assert ask(stack(given))[0].shape == (8, 6)
    assert runs == [1] * 8
