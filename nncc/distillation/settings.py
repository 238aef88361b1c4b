"""Every choice of a distillation, explained where it is declared."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How a student is trained."""

    epochs: int | None = None
    """How often all samples are seen; by default as often as makes 3000 steps, and at least 3 times."""
    batch: int = 64
    """Samples that one step looks at."""
    learning_rate: float | None = None
    """The largest step of Adam, reached after a warm-up, from which a cosine leads to 0; by default 0.002, or 0.0002
    where weights are integers."""
    time_budget: float | None = None
    """Seconds after which training ends; the learning rate reaches 0 then. What comes out depends on the machine."""
    temperature: float = 2.0
    """Of the softmax that a classifier's logits are compared through: more looks at the answers that are not chosen."""
    logits_weight: float = 0.05
    """How much the squared error of a classifier's logits counts beside their divergence."""
    feature_weight: float = 0.0
    """How much layers inside count, where teacher and student correspond; 0 compares outputs only."""
    augment: tuple[str, ...] = ()
    """Samples are varied before teacher and student see them: images by flip (left and right) and shift (by up to a
    tenth); signals and spectrograms, along their longest axis, by cut (stretches come from others), warp (slower or
    faster, earlier or later) and level (louder or softer, of another colour); all by spread (noise that is correlated
    as the samples are), mixup (two are added in parts) and noise."""
    keep_zeros: bool = True
    """Zeros stay zero in tensors that have a pattern of them, as pruning leaves it."""
    held_out: int | None = None
    """How many samples are not trained with, but judged by; 0 where all serve both ends, as a few that are varied may:
    they are judged by other variations then. By default a tenth, or of few samples a quarter."""
    patience: int = 20
    """Training ends after so many evaluations on held-out samples without a better one."""
    seed: int = 0
    """Of the order of samples, of what is held out, and of how samples are varied."""
    threads: int = 0
    """Threads; 0 for one per processor. Results differ in the last digits with their number."""
