"""A time budget that ends leaves a state from which a larger one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from students import classifier, data

import nncc

pytest.importorskip("torch")


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
