"""The state of a training as a file: what goes on from it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from students import classifier, data

import nncc
from nncc.errors import DataError, NnccError, UsageError

torch = pytest.importorskip("torch")
HINT = "without `--resume` training starts from the beginning, and the checkpoint is replaced"


def test_a_larger_time_budget_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = classifier(Path("s.onnx"), noise=0.3), classifier(Path("t.onnx")), data(Path("d.npz"))
    words = {"checkpoint": "state", "epochs": 10**5, "batch": 16, "threads": 1}
    first = nncc.distill(*models, "a.onnx", time_budget=0.2, **words).outcome.trained
    more = first.seconds + 0.3
    second = nncc.distill(*models, "b.onnx", time_budget=more, resume=True, **words).outcome.trained
    assert first.ended == second.ended == "the time budget"
    assert second.steps > first.steps and second.seconds >= more
    assert second.first_loss == first.first_loss and second.best_loss <= first.best_loss


@pytest.mark.parametrize("damage", ["cut", "byte", "fields", "kinds"])
def test_a_damaged_checkpoint_has_its_error(damage, tmp_path):
    """A byte of what torch unpickles; with any error of Python's that it makes of it."""
    from nncc.distillation.checkpoint import load

    path = tmp_path / "state"
    if damage in ("cut", "byte"):
        torch.save({"nncc.distill": 1, "mark": "x", "numbers": [torch.ones(3)]}, path)
        whole = path.read_bytes()
        broken = [whole[:-40]] if damage == "cut" else [
            whole[:at] + bytes([byte]) + whole[at + 1 :] for at in range(60, 200) for byte in (0x30, 0xFF)
        ]  # fmt: skip
    else:
        torch.save({"nncc.distill": 1, "mark": "x"} | ({"epochs": "a"} if damage == "kinds" else {}), path)
        broken = [path.read_bytes()]
    for each in broken:
        path.write_bytes(each)
        with pytest.raises(DataError) as caught:
            load(path, "x")
        assert (str(caught.value), caught.value.hint) == (f"`{path}` is no checkpoint of `nncc distill`", HINT)


def test_other_data_does_not_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = classifier(Path("s.onnx"), noise=0.3), classifier(Path("t.onnx"))
    words = {"checkpoint": "state", "epochs": 1, "threads": 1}
    nncc.distill(*models, data(Path("d.npz")), "a.onnx", **words)
    np.savez("other.npz", image=np.load("d.npz")["image"] + 1)
    with pytest.raises(NnccError) as caught:
        nncc.distill(*models, "other.npz", "b.onnx", resume=True, **words)
    assert isinstance(caught.value, UsageError)
    assert (str(caught.value), caught.value.hint) == (
        "the checkpoint `state` is of another training: student, teacher, data or settings differ",
        HINT,
    )
