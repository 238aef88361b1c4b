"""Contestants in processes of their own, which run in turn A B A B ... and are idle while another one does."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Failed", "Running", "quartiles", "row_text", "take_turns", "times_and_ratios"]

SECONDS = 0.25
"""What one contestant runs in one round, about."""


class Failed(Exception):
    """A contestant ended; the message is its last line."""


class Running:
    """A contestant in a process of its own, which has loaded its model and waits for its turn."""

    def __init__(
        self,
        who: str,
        python: str,
        program: Path,
        model: Path,
        work: Path,
        words: Sequence[str],
        environment: Mapping[str, str],
        patience: float | None = None,
    ) -> None:
        """Waits until it is ready; Failed where that, or a later answer, takes longer than `patience` seconds."""
        self.patience = patience
        files = [str(work / "inputs.npz"), str(work / "expected.npz")]
        self.said = (work / f"{who}.txt").open("w+")
        self.process = subprocess.Popen(
            [python, str(program), who, str(model), *files, *words],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
        )
        self._line()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def turn(self, count: int) -> list[float]:
        """The seconds of each of `count` runs."""
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it had to say is in its last line
        return json.loads(self._line())

    def _line(self) -> str:
        if not select.select([self.process.stdout], [], [], self.patience)[0]:
            self.process.kill()
            self.process.communicate()
            raise Failed(f"it did not answer within {self.patience:.0f} s")
        answer = self.process.stdout.readline()
        if not answer:
            status = self.process.wait()
            self.said.seek(0)
            last = [text.strip() for text in self.said if text.strip()][-1:] or ["it said nothing"]
            raise Failed(f"{last[0][:300]} (exit status {status})")
        return answer


def take_turns(running: dict[str, Running], rounds: int, name: str, seconds: float = SECONDS) -> list[dict[str, float]]:
    """The median seconds of each contestant in each round, in which it runs for about `seconds`; who fails on the way
    is taken out of `running`."""
    found: list[dict[str, float]] = []
    counts = dict.fromkeys(running, 5)
    for _ in range(rounds + 1):
        times = {}
        for who in list(running):
            try:
                times[who] = statistics.median(running[who].turn(counts[who]))
            except Failed as error:
                print(f"{name}: {who} is left out: {error}", file=sys.stderr)
                del running[who]
        found.append(times)
        if len(found) == 1:  # it only says how many runs a round has
            counts = {who: max(1, int(seconds / each)) for who, each in times.items()}
    return found[1:]


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]


def times_and_ratios(running: Iterable[str], rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What a row says of the rounds: by contestant the median in milliseconds, and of all but nncc the quartiles of
    the ratios to nncc's time in the same round."""
    return {
        "milliseconds": {who: round(1e3 * statistics.median(r[who] for r in rounds), 4) for who in running},
        "ratios": {
            who: [round(q, 3) for q in quartiles([r[who] / r["nncc"] for r in rounds])]
            for who in running
            if who != "nncc"
        },
    }


def row_text(row: Mapping[str, Any]) -> str:
    """A row in one line, for who watches."""
    times = "  ".join(f"{who} {ms:.3g}" for who, ms in row["milliseconds"].items())
    ratios = "  ".join(f"{who} {mid:.2f} ({low:.2f}-{high:.2f})" for who, (low, mid, high) in row["ratios"].items())
    return f"{row['model']:24} ms: {times}   ratios: {ratios}"
