"""The loop: Adam with a warm-up and a cosine, judged on held-out samples; the best weights are what counts.

Beside the weights of the moment, their average over the last steps is judged. While steps are large it is far better
than they are, so that training which gets on is seen to, and one that ends early leaves a good student; at the end of
the cosine both are the same. Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization" (2013), 4.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nncc.distillation.augment import augmented
from nncc.distillation.batches import Feeds, Run, batches, stack
from nncc.distillation.checkpoint import State
from nncc.distillation.objective import Term, loss
from nncc.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

    from nncc.distillation.network import Network
    from nncc.distillation.settings import Settings
    from nncc.quant.request import Tell

__all__ = ["Lesson", "Trained", "train"]

STEPS = 3000
"""What training takes by default."""
_LEAST_EPOCHS = 3
_EVALUATED = 50
"""Steps between evaluations, at least."""
_WARM_UP = 0.05
"""Part of the training in which the learning rate rises."""
_LARGEST_GRADIENT = 1.0
"""Longer gradients (over all weights) are shortened to this."""
LEARNING_RATE, LEARNING_RATE_INTEGERS = 2e-3, 2e-4
_AVERAGED = 8
"""Of polynomial-decay averaging: after n steps, the last n / 9 of them make most of the average."""
_JUDGED = 512
"""Variations, at least, that weights are judged on where no samples are held out."""


@dataclass(frozen=True)
class Lesson:
    """What is trained, by what, with what."""

    network: Network
    student: Run
    """The values of `terms`, with gradients, for a batch."""
    teacher: Run
    terms: tuple[Term, ...]
    samples: Sequence[Feeds]
    train: Sequence[int]
    held: Sequence[int]
    settings: Settings

    @property
    def learning_rate(self) -> float:
        """The largest one."""
        integers = any(weight.grid is not None for weight in self.network.weights)
        return self.settings.learning_rate or (LEARNING_RATE_INTEGERS if integers else LEARNING_RATE)

    @property
    def rounds(self) -> int:
        """How often the held-out samples are varied to judge by; 0 where they are taken as they are.

        Samples that are trained with are answered better than others, the more so the longer training goes on: what is
        learned from their variations shows on variations that are not trained with.
        """
        return -(-_JUDGED // len(self.held)) if self.settings.augment and self.held == self.train else 0


@dataclass(frozen=True)
class Trained:
    """What came of it; the network has the best weights."""

    epochs: int
    steps: int
    seconds: float
    first_loss: float
    """On the held-out samples, before training."""
    best_loss: float
    ended: str
    """Why: all epochs | the time budget | no better for a while"""


def train(
    lesson: Lesson,
    state: State | None = None,
    saved: Callable[[State], None] = lambda state: None,
    tell: Tell = lambda done, total, what: None,
) -> Trained:
    """Train the network, from `state` on where that is given; `saved` gets the state after each evaluation.

    The same lesson gives the same weights, on the same machine and without a time budget. Raises RunError where the
    loss is no number any more.
    """
    settings, rate = lesson.settings, lesson.learning_rate
    parameters = list(lesson.network.parameters())
    optimizer = torch.optim.Adam(parameters, rate, fused=True)
    if state is None:
        start = _copies(parameters)
        first = evaluate(lesson, [start])[0]
        state = State(0, 0, 0.0, start, _copies(start), optimizer.state_dict(), _copies(start), first, first, 0)
    else:
        _assign(parameters, state.numbers)
        optimizer.load_state_dict(state.optimizer)
    average = _copies(state.average)
    each = max(1, sum(1 for _ in batches(lesson.samples, lesson.train, settings.batch, None)))
    epochs = settings.epochs or max(_LEAST_EPOCHS, -(-STEPS // each))
    together = -(-_EVALUATED // each)
    began = time.monotonic() - state.seconds
    ended = "all epochs"
    while state.epochs < epochs:
        stop, steps, epoch = min(epochs, state.epochs + together), state.steps, state.epochs
        late = False
        for epoch in range(state.epochs, stop):
            random = np.random.default_rng((settings.seed, epoch))
            for indices in batches(lesson.samples, lesson.train, settings.batch, random):
                part = steps / (epochs * each)
                if settings.time_budget:
                    part = max(part, (time.monotonic() - began) / settings.time_budget)
                late = part >= 1
                if late:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1.0, (part + 1e-6) / _WARM_UP) * (1 + math.cos(math.pi * part)) / 2
                step(lesson, optimizer, parameters, indices, random, steps)
                steps += 1
                for mean, parameter in zip(average, parameters, strict=True):
                    mean.lerp_(parameter.detach(), (_AVERAGED + 1) / (_AVERAGED + steps))
                tell(steps, epochs * each, f"loss {state.best_loss:.4g}, {state.first_loss:.4g} before")
            if late:
                break
        numbers = _copies(parameters)
        losses = evaluate(lesson, [numbers, average])
        found = min(losses)
        better = found < state.best_loss
        state = State(
            epoch if late else stop,
            steps,
            time.monotonic() - began,
            numbers,
            _copies(average),
            optimizer.state_dict(),
            _copies(average if losses[1] == found else numbers) if better else state.best,
            min(found, state.best_loss),
            state.first_loss,
            0 if better else state.stale + 1,
        )
        saved(state)
        if late:
            ended = "the time budget"
            break
        if state.stale >= settings.patience:
            ended = "no better for a while"
            break
    _assign(parameters, state.best)
    return Trained(state.epochs, state.steps, state.seconds, state.first_loss, state.best_loss, ended)


def step(
    lesson: Lesson,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    indices: Sequence[int],
    random: np.random.Generator,
    steps: int,
) -> None:
    """One step down the gradient of the loss of a batch."""
    feeds = augmented(stack([lesson.samples[at] for at in indices]), lesson.settings.augment, random)
    theirs = lesson.teacher(feeds)
    optimizer.zero_grad(set_to_none=True)
    value = loss(lesson.terms, lesson.student(feeds), theirs, lesson.settings)
    if not torch.isfinite(value):
        raise RunError(
            f"training diverges: the loss is {float(value.detach())} after {steps} steps",
            "give a smaller `--learning-rate`; layers that saturate can also do with a larger `--batch`",
        )
    value.backward()
    torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
    optimizer.step()


def evaluate(lesson: Lesson, candidates: Sequence[Sequence[Tensor]]) -> list[float]:
    """The loss with each of these weights, a mean over the held-out samples or over the same variations of them each
    time; the network's own are as before.

    The variations are the same for any seed, so that trainings with several can be compared.
    """
    totals, random = [0.0] * len(candidates), np.random.default_rng((0, 0, 1))  # training's generators have two numbers
    parameters = list(lesson.network.parameters())
    own = _copies(parameters)
    with torch.no_grad():
        for _ in range(max(1, lesson.rounds)):
            shuffled = random if lesson.rounds else None
            for indices in batches(lesson.samples, lesson.held, lesson.settings.batch, shuffled):
                feeds = stack([lesson.samples[at] for at in indices])
                if lesson.rounds:
                    feeds = augmented(feeds, lesson.settings.augment, random)
                theirs = lesson.teacher(feeds)
                for at, numbers in enumerate(candidates):
                    _assign(parameters, numbers)
                    value = loss(lesson.terms, lesson.student(feeds), theirs, lesson.settings)
                    totals[at] += float(value) * len(indices)
    _assign(parameters, own)
    means = [total / (len(lesson.held) * max(1, lesson.rounds)) for total in totals]
    return [math.inf if math.isnan(mean) else mean for mean in means]


def _copies(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def _assign(parameters: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, number in zip(parameters, numbers, strict=True):
            parameter.copy_(number)
