"""Models that lie: whatever a file says, it is compiled or refused; nothing crashes, hangs or is written elsewhere."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import Worker, attempt, fuzz, seeds
from hostile import HOSTILE, NEVER_ENDING, SLOW
from mutations import MUTATIONS, mutated
from wire import fields, written

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.onnx"))
GOOD = ("compiled", "ran", "refused")


@pytest.mark.parametrize("path", CORPUS, ids=[path.stem for path in CORPUS])
def test_a_model_that_once_broke_the_compiler_does_no_more(path: Path) -> None:
    verdict, text = attempt(path.read_bytes())
    assert verdict in GOOD, text


def _attempts(words: list[str]) -> list[str]:
    """What becomes of hostile models that is not as it should be, in a process of little memory."""
    worker, wrong = Worker(), []
    try:
        for word in words:
            verdict, text = worker.attempt((HOSTILE | NEVER_ENDING)[word]().SerializeToString(), run=word in HOSTILE)
            if verdict not in GOOD:
                wrong.append(f"{word}: {verdict}: {text}")
            if verdict in ("crash", "hang"):
                worker.close()
                worker = Worker()
    finally:
        worker.close()
    return wrong


def test_models_that_ask_for_too_much_are_compiled_or_refused_in_little_time_and_memory() -> None:
    assert _attempts([word for word in (*HOSTILE, *NEVER_ENDING) if word not in SLOW]) == []


@pytest.mark.slow
@pytest.mark.parametrize("word", SLOW)
def test_a_model_that_takes_long_does_not_take_for_ever(word: str) -> None:
    assert _attempts([word]) == []


def test_fields_of_a_message_are_read_as_they_are_written() -> None:
    data = seeds()[0].SerializeToString()
    assert written(fields(data)) == data


def test_the_same_seed_makes_the_same_models() -> None:
    pool = seeds()[:20]
    once, again = (mutated(pool[3], random.Random(5), pool) for _ in range(2))
    assert once == again
    assert once != pool[3].SerializeToString()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_every_mutation_changes_some_model(mutation) -> None:  # type: ignore[no-untyped-def]
    pool = seeds()[::40]
    changed = 0
    for number, model in enumerate(pool):
        copy = type(model)()
        copy.CopyFrom(model)
        mutation(copy, random.Random(number), pool)
        changed += copy != model
    assert changed


def test_half_a_minute_of_mutated_models_has_no_finding() -> None:
    report = fuzz(seconds=30, seed=2026, pool=seeds())
    assert [(finding.kind, finding.text) for finding in report.findings] == []
    assert sum(report.verdicts.values()) > 10, report.verdicts


@pytest.mark.slow
def test_ten_minutes_of_mutated_models_have_no_finding() -> None:
    report = fuzz(seconds=600, seed=1, pool=seeds())
    assert [(finding.kind, finding.text) for finding in report.findings] == []
