"""`nncc distill` as its users meet it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from students import classifier, data

from nncc.cli import cli

WITH_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The command line in this process and in a folder with a teacher, a student and data."""
    monkeypatch.chdir(tmp_path)
    classifier(Path("t.onnx"))
    classifier(Path("s.onnx"), noise=0.3)
    data(Path("d.npz"))

    def call(*words, status=0):
        given = ["distill", "s.onnx", "--teacher", "t.onnx", "--data", "d.npz", *map(str, words)]
        result = CliRunner().invoke(cli, given)
        assert result.exit_code == status, result.stdout + result.stderr
        return result

    return call


FEW = ("--epochs", "10", "--batch", "16", "--learning-rate", "0.01", "--threads", "1")


@WITH_TORCH
def test_distill_says_what_it_did(call):
    text = call(*FEW, "--augment", "flip,mixup").stdout
    lines = text.splitlines()
    assert lines[0] == "trained    260 parameters"
    assert lines[1] == "on         48 samples, 10 times, 30 steps; varied by flip, mixup"
    assert lines[2] == "loss       divergence of `logits`"
    assert lines[3].startswith("held out   loss ") and lines[3].endswith(" on 16 samples")
    assert lines[4].startswith("agreement  top1 ") and " -> top1 " in lines[4]
    assert lines[5].startswith("took       ") and lines[5].endswith("; ended by all epochs")
    assert text.endswith("\nwritten to s.distilled.onnx\n\nnext: nncc compile s.distilled.onnx --shape image=1x3x6x6\n")


@WITH_TORCH
def test_distill_says_when_it_judges_by_variations(call):
    text = call(*FEW, "--augment", "spread", "--held-out", "0").stdout
    assert text.splitlines()[3].startswith("held out   loss ")
    assert text.splitlines()[3].endswith(" on 64 samples, varied 8 times")


@WITH_TORCH
def test_distill_prints_json(call):
    facts = json.loads(call(*FEW, "-o", "o.onnx", "--json").stdout)
    assert facts["model"] == "o.onnx" and Path("o.onnx").exists()
    assert facts["parameters"] == {"trained": 260, "integers": 0, "zeros_kept": 0}
    assert facts["held_out_loss"]["after"] < facts["held_out_loss"]["before"]
    assert facts["settings"]["keep_zeros"] is True and facts["settings"]["epochs"] == 10


def test_without_torch_the_extra_is_named(call, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(status=1).stderr == (
        "error: training needs torch, which is not installed\n\nhint: `pip install 'nncc[distill]'`\n"
    )


def test_wrong_words_have_their_errors(call):
    assert call("--resume", status=2).stderr == (
        "error: `--resume` wants to know from where\n\nhint: give the file with `--checkpoint FILE`\n"
    )
    assert call("--epochs", "0", status=2).stderr == "error: `epochs` is 0; it must be more than 0\n"
    assert call("--feature-weight", "-1", status=2).stderr == "error: `feature_weight` is -1.0; it cannot be negative\n"


@WITH_TORCH
def test_files_that_must_not_be_overwritten_have_their_errors(call):
    assert call("-o", "s.onnx", status=2).stderr == (
        "error: `-o s.onnx` is the student itself\n\nhint: choose another file\n"
    )
    assert call("-o", "t.onnx", status=2).stderr == (
        "error: `-o t.onnx` is the teacher itself\n\nhint: choose another file\n"
    )


@WITH_TORCH
def test_checkpoints_that_cannot_be_written_are_refused_before_the_work(call, tmp_path):
    assert call("--checkpoint", tmp_path, status=2).stderr == (
        f"error: `--checkpoint {tmp_path}` is a folder\n\nhint: give a file, for example `{tmp_path / 'state'}`\n"
    )
    assert call("--checkpoint", "no/state", status=1).stderr == (
        "error: cannot write `no/state`: there is no folder `no`\n\nhint: make it first\n"
    )
    for model in ("s.onnx", "t.onnx", "s.distilled.onnx"):
        assert call("--checkpoint", model, status=2).stderr == (
            f"error: `--checkpoint {model}` is a model, `{model}`\n\nhint: choose another file\n"
        )
