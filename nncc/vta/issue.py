"""In which order operations are issued, and which tokens they exchange.

The queues are followed in time, by how long each operation takes about. Compute and store queue keep the program's
order. Loads of one memory do too, but of those whose turn it is in different memories the one that can begin first is
taken: so the weights of the next layer come while its data is not yet there.

A token is exchanged only for what a queue cannot know from earlier ones: each queue's knowledge is a clock, how many
operations of each queue are complete for sure. Between loads and stores no tokens go: an operation of the compute queue
tells one of the other, an empty one where none does anyway.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nncc.errors import InternalError
from nncc.vta.hazards import COMPUTE, LOAD, STORE, Work
from nncc.vta.stream import Load

__all__ = ["MOST_TOKENS", "Issued", "issue"]

MOST_TOKENS = 255
"""That may be under way between two queues in one direction."""


@dataclass
class Issued:
    """An operation at its place in the order, and its tokens; `work` is None where it only passes tokens on."""

    work: int | None
    queue: int
    layer: int
    pops: set[int] = field(default_factory=set)
    """Queues whose token it waits for."""
    pushes: set[int] = field(default_factory=set)
    """Queues that it gives a token to when it is complete."""
    clock: tuple[int, int, int] = (0, 0, 0)
    """Operations of each queue that are complete for sure when it is."""


class _Ready(NamedTuple):
    start: float
    operation: int
    """The one that it is, or is for."""
    queue: int
    work: int | None
    needs: dict[int, int]
    """By neighbouring queue, how many of its operations must be complete."""


def issue(program: Sequence[Work], needed: Sequence[tuple[int, ...]], relay_cycles: int) -> list[Issued]:
    """All operations in the order in which they are fetched, and at the end one that knows all to be complete.

    `needed` are operations of other queues that each must wait for; an empty operation takes `relay_cycles`. Raises
    InternalError if more tokens could be under way than the machine counts.
    """
    return _Queues(program, needed, relay_cycles).run()


class _Queues:
    def __init__(self, program: Sequence[Work], needed: Sequence[tuple[int, ...]], relay_cycles: int) -> None:
        self.program, self.needed, self.relay_cycles = program, needed, relay_cycles
        self.order: list[Issued] = []
        self.waiting: dict[tuple[int, str], deque[int]] = {}
        """Operations that were not issued, by queue and, of loads, by memory."""
        for index, work in enumerate(program):
            memory = work.operation.memory if work.queue == LOAD and isinstance(work.operation, Load) else ""
            self.waiting.setdefault((work.queue, memory), deque()).append(index)
        self.free = [0.0, 0.0, 0.0]
        self.known = [[0, 0, 0] for _ in range(3)]
        self.done: list[list[float]] = [[], [], []]
        """By queue, when each of its operations is complete."""
        self.issued: list[list[Issued]] = [[], [], []]
        self.position: dict[int, int] = {}
        """Of an operation that was issued, how many of its queue are complete when it is."""
        self.told: dict[int, list[int]] = {LOAD: [], STORE: []}
        """Of each operation of the compute queue, how many of another queue it knows to be complete."""

    def run(self) -> list[Issued]:
        while any(self.waiting.values()):
            ready = [each for key, queue in self.waiting.items() if queue and (each := self.ready(key[0], queue[0]))]
            if not ready:
                raise InternalError("accelerator: operations wait for each other")
            self.issue(min(ready, key=_turn))
        counts = {queue: len(self.done[queue]) for queue in (LOAD, STORE)}
        last = max(self.done[LOAD][-1:] + self.done[STORE][-1:], default=0.0)
        self.issue(_Ready(last, len(self.program) - 1, COMPUTE, None, counts))
        _check_tokens(self.issued)
        return self.order

    def ready(self, queue: int, index: int) -> _Ready | None:
        """When an operation could begin; or the empty one that has to tell it first. None if that is not known yet."""
        needs: dict[int, int] = {}
        start = self.free[queue]
        for other in self.needed[index]:
            if other not in self.position:
                return None
            at, source = self.position[other], self.program[other].queue
            if at <= self.known[queue][source]:
                continue
            if queue != COMPUTE and source != COMPUTE:
                teller = bisect_left(self.told[source], at)
                if teller == len(self.told[source]):
                    return self.relay(source, at, index)
                at, source = teller + 1, COMPUTE
                if at <= self.known[queue][source]:
                    continue
            needs[source] = max(needs.get(source, 0), at)
        for source, at in needs.items():
            start = max(start, self.done[source][at - 1])
        return _Ready(start, index, queue, index, needs)

    def relay(self, source: int, at: int, index: int) -> _Ready:
        """An empty operation that waits for one of `source`, and for all that are complete by then."""
        start = max(self.free[COMPUTE], self.done[source][at - 1])
        return _Ready(start, index, COMPUTE, None, {source: max(at, bisect_right(self.done[source], start))})

    def issue(self, ready: _Ready) -> None:
        queue = ready.queue
        issued = Issued(ready.work, queue, self.program[ready.operation].layer if self.program else 0)
        for source, at in ready.needs.items():
            if at > self.known[queue][source]:
                issued.pops.add(source)
                teller = self.issued[source][at - 1]
                teller.pushes.add(queue)
                self.known[queue] = [max(pair) for pair in zip(self.known[queue], teller.clock, strict=True)]
        cycles = self.relay_cycles if ready.work is None else self.program[ready.work].cycles
        self.free[queue] = ready.start + cycles
        self.done[queue].append(self.free[queue])
        self.known[queue][queue] = len(self.done[queue])
        issued.clock = (self.known[queue][0], self.known[queue][1], self.known[queue][2])
        self.issued[queue].append(issued)
        self.order.append(issued)
        if queue == COMPUTE:
            for source, told in self.told.items():
                told.append(self.known[queue][source])
        if ready.work is not None:
            self.position[ready.work] = len(self.done[queue])
            for (of, _), waiting in self.waiting.items():
                if of == queue and waiting and waiting[0] == ready.work:
                    waiting.popleft()


def _turn(ready: _Ready) -> tuple[float, int, bool, int]:
    """Who is first: what can begin first, then stores, empty operations, and what is first in the program."""
    return ready.start, -ready.queue, ready.work is not None, ready.operation


def _check_tokens(queues: list[list[Issued]]) -> None:
    """No more tokens may be under way than the machine counts, however fast each queue is."""
    for source, target in ((LOAD, COMPUTE), (COMPUTE, LOAD), (COMPUTE, STORE), (STORE, COMPUTE)):
        pushes = [at for at, each in enumerate(queues[source], 1) if target in each.pushes]
        clocks = [each.clock[target] for each in queues[source]]
        pops = [at for at, each in enumerate(queues[target], 1) if source in each.pops]
        for taken, at in enumerate(pops):
            free = bisect_left(clocks, at)  # these do not wait for what takes the token
            if bisect_right(pushes, free) - taken > MOST_TOKENS:
                raise InternalError(f"accelerator: more than {MOST_TOKENS} tokens are under way from queue {source}")
