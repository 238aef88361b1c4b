"""`nncc distill` on one screen: two graphs and samples become a graph whose weights are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nncc.distillation.augment import check_augmentations
from nncc.distillation.batches import Feeds, Run, held_out, in_memory, one_by_one, stack, takes_batches
from nncc.distillation.check import agreement, check_faithful
from nncc.distillation.checkpoint import fingerprint, load, save
from nncc.distillation.kept_memory import kept_memory
from nncc.distillation.network import Network, trainable_graph
from nncc.distillation.objective import Term, features, outputs, scaled
from nncc.distillation.teacher import teacher_of
from nncc.distillation.train import Lesson, Trained, train
from nncc.distillation.weights import find_weights, write_weights
from nncc.errors import ModelError, UsageError
from nncc.quant.calibrate import check_samples
from nncc.quant.metric import agreement_of

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

    from nncc.distillation.settings import Settings
    from nncc.quant.request import Start, Tell

__all__ = ["Outcome", "distill_graph"]


@dataclass(frozen=True)
class Outcome:
    """A trained graph, and how it came about."""

    graph: onnx_ir.Model
    trained: Trained
    learning_rate: float
    terms: tuple[str, ...]
    """What was compared, in words."""
    parameters: int
    """Elements of the weights that were trained."""
    integers: int
    """Those of them that the file has as integers."""
    zeros_kept: int
    """Elements that are zero and stay so."""
    agreement: Mapping[str, tuple[float, float]]
    """With the teacher on the held-out samples, before and after, by kind, as ONNX Runtime computes it."""
    seen: int
    held_out: int
    varied: int
    """How often those held out were varied to judge the loss by; 0 where they were taken as they are."""
    batched: bool
    """Whether the student computes a batch at once."""


def distill_graph(
    student: onnx_ir.Model,
    teacher: onnx_ir.Model,
    samples: Sequence[Feeds],
    settings: Settings,
    checkpoint: Path | None = None,
    resume: bool = False,
    start: Start = lambda name, what: None,
    tell: Tell = lambda done, total, what: None,
) -> Outcome:
    """The student with weights that make it answer as the teacher does. The given graphs are not changed.

    Raises ModelError where the student cannot be trained or the two do not fit, RunError where training diverges and
    for samples that do not fit or are not finite,
    UsageError and DataError for settings and a checkpoint that do not fit.
    """
    check_samples(student, samples, "training")
    check_augmentations(settings.augment, samples[0])
    student = student.clone()
    _lift_constants(student)
    weights = find_weights(student, settings.keep_zeros)
    if not weights:
        raise ModelError("the student has no weights that can be trained: constants of float32, or integers of such")
    with _torch(settings.threads):
        start("prepare", f"{len(weights)} weights")
        graph = trainable_graph(student, weights)
        network = Network(graph, weights)
        check_faithful(network, student, samples, "before training")
        samples = in_memory(samples)
        terms = _terms(network, graph, teacher, samples, settings)
        values = _student(network, terms, samples)
        lesson = Lesson(
            network,
            values[0],
            teacher_of(teacher, [term.teacher for term in terms], samples),
            terms,
            samples,
            *held_out(len(samples), settings.seed, settings.held_out),
            settings,
        )
        judge = _Judge(teacher, [samples[at] for at in lesson.held], settings.batch)
        before = judge(student)
        mark = _mark(student, teacher, samples, settings) if checkpoint is not None else ""
        state = load(checkpoint, mark) if checkpoint is not None and resume else None
        start("train", f"{len(lesson.train)} samples")
        trained = train(
            lesson, state, lambda now: save(checkpoint, now, mark) if checkpoint is not None else None, tell
        )
        start("check", "")
        write_weights(student, weights, network.real())
        check_faithful(network, student, samples, "after training")
        after = judge(student)
    return Outcome(
        graph=student,
        trained=trained,
        learning_rate=lesson.learning_rate,
        terms=tuple(f"{term.kind} of `{term.teacher}`" for term in terms),
        parameters=sum(weight.start.size for weight in weights),
        integers=sum(weight.start.size for weight in weights if weight.grid is not None),
        zeros_kept=sum(int((weight.keep == 0).sum()) for weight in weights if weight.keep is not None),
        agreement={kind: (before[kind], after[kind]) for kind in before},
        seen=len(lesson.train),
        held_out=len(lesson.held),
        varied=lesson.rounds,
        batched=values[1],
    )


def _terms(
    network: Network, graph: onnx_ir.Model, teacher: onnx_ir.Model, samples: Sequence[Feeds], settings: Settings
) -> tuple[Term, ...]:
    """What is compared, in units of how much the teacher's values vary over the first samples."""
    terms = outputs(graph, teacher)
    if settings.feature_weight:
        known = [str(value.name) for node in graph.graph for value in node.outputs]
        terms += features(graph, teacher, known, settings.feature_weight)
    first = samples[0]
    like = [s for s in samples[:64] if all(s[name].shape == array.shape for name, array in first.items())]
    feeds = stack(like)
    with torch.no_grad():
        ours = _student(network, terms, samples)[0](feeds)
    found = scaled(terms, ours, teacher_of(teacher, [term.teacher for term in terms], samples)(feeds))
    if settings.feature_weight and not any(term.inside for term in found):
        raise UsageError(
            f"`feature_weight` is {settings.feature_weight:g}, but no layer inside the student corresponds to one of "
            "the teacher",
            "leave it out: outputs are compared without it",
        )
    return found


def _student(network: Network, terms: Sequence[Term], samples: Sequence[Feeds]) -> tuple[Run, bool]:
    """The student's values of the terms for a batch, and whether it computes them at once."""
    names = [term.student for term in terms]

    def run(feeds: Feeds) -> list[Tensor]:
        return network({name: torch.from_numpy(array) for name, array in feeds.items()}, names)

    together = takes_batches(run, samples)
    return (run if together else one_by_one(run, samples[0])), together


class _Judge:
    """Agreement with the teacher on held-out samples, by ONNX Runtime: of the kind that fits, and sqnr."""

    def __init__(self, teacher: onnx_ir.Model, held: Sequence[Feeds], batch: int) -> None:
        self._kinds = tuple(dict.fromkeys((agreement_of(teacher), "sqnr")))
        self._teacher, self._held, self._batch = self._run(teacher, held), held, batch

    def __call__(self, student: onnx_ir.Model) -> dict[str, float]:
        run = self._run(student, self._held)
        return {kind: agreement(kind, self._teacher, run, self._held, self._batch) for kind in self._kinds}

    @staticmethod
    def _run(graph: onnx_ir.Model, samples: Sequence[Feeds]) -> Run:
        return teacher_of(graph, [str(value.name) for value in graph.graph.outputs], samples)


def _lift_constants(graph: onnx_ir.Model) -> None:
    """Constant nodes become initializers, in place: the one form in which weights are found."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from nncc.passes.rewriting import quiet

    with quiet():
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)


def _mark(student: onnx_ir.Model, teacher: onnx_ir.Model, samples: Sequence[Feeds], settings: Settings) -> str:
    import onnx_ir

    first, second = (onnx_ir.to_proto(g).SerializeToString(deterministic=True) for g in (student, teacher))
    return fingerprint(first, second, samples, settings)


@contextmanager
def _torch(threads: int) -> Iterator[None]:
    """While inside, torch has so many threads (0: its own choice) and takes deterministic kernels where it has them."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    try:
        torch.set_num_threads(threads or before)
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # nothing reads it, and it takes a tenth of a step
        with kept_memory():
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        memory.fill_uninitialized_memory = fills
