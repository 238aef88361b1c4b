"""Records measured again: those that hold no longer are refused, in the same folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nncc.errors import RecordError
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.target import Target
from nncc.tuning.candidates import Kernel
from nncc.tuning.contest import margin
from nncc.tuning.cycle_lab import lab_of
from nncc.tuning.exchange import load_function
from nncc.tuning.lab import PASSED_OVER, Lab
from nncc.tuning.record import Key, Record
from nncc.tuning.record_files import Journal
from nncc.tuning.record_set import RecordSet
from nncc.tuning.runners import open_runner
from nncc.tuning.writer import Writer

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True)
class Verdict:
    """Of one record: what it takes of the default's time now; None where that cannot be said, and why."""

    record: Record
    ratio: float | None
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether the record stays: what cannot be measured here is no worse for it."""
        return not self.error and (self.ratio is None or self.ratio < 1.0)


def verify(
    records: RecordSet,
    target: Target,
    folder: Path,
    runner: str = "local",
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> list[Verdict]:
    """Measure the best record of each kernel for `target` again, and refuse in `folder` what is no faster any more.

    A record whose numbers are wrong, or whose decisions its template no longer takes, is refused too.
    """
    key = Key.of(target)
    runs = open_runner(runner, target)
    records = records.on(runs.processor())
    found = [(task, records.best(task.hash, key)) for task in records.tasks.values() if task.kind == "kernel"]
    kept = [(task, best) for task, best in found if best is not None and best.decisions and best.ratio < margin(runs)]
    if not kept:
        runs.close()
        raise RecordError(
            f"`{folder}` holds no winners for `{key.file_name}`", "`nncc records stats` shows what it has"
        )
    templates = load_templates()
    lab = lab_of(target)(target, templates, (), runs, PASSED_OVER, seed=0)
    writer = Writer(Journal(folder, key) if runs.stores_times else None, key, runs.processor(), "")
    verdicts = []
    try:
        for number, (task, best) in enumerate(kept):
            progress(number, len(kept), task.text)
            verdict = _measured(best, records, target, templates, lab)
            if not verdict.holds:
                reason = verdict.error or f"measured again, it takes {verdict.ratio:.3f} of the default's time"
                writer.refuse(task, best.decisions, reason)
            verdicts.append(verdict)
    finally:
        lab.close()
        runs.close()
    return verdicts


def _measured(best: Record, records: RecordSet, target: Target, templates: dict, lab: Lab) -> Verdict:
    if best.task.hash not in records.workloads:
        return Verdict(best, None)
    try:
        function, constants = load_function(records.workloads[best.task.hash])
    except RecordError as unreadable:
        return Verdict(best, None, unreadable.message)
    choices, default = Choices(best.decisions), Choices()
    with target.tvm_target():
        schedule_kernel(function, templates, target.hardware, choices)
        schedule_kernel(function, templates, target.hardware, default)
        if choices.refused:
            return Verdict(best, None, f"the template has no such {' or '.join(sorted(choices.refused))}")
        plain, tuned = (Kernel(function, constants, each.taken) for each in (default, choices))
        error = lab.check([plain, tuned])
        if error:
            return Verdict(best, None, error)
        (result,) = lab.measure(plain, [tuned], sure=True)
    return Verdict(best, result.timing.ratio if result.timing is not None else None, result.error)
