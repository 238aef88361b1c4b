"""What an accelerator and its host both see: the arena and the constants, and no memory of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nncc.codegen.place import Memory, PendingBranch, PendingCall, PendingLoop, PendingStep, pending_calls

if TYPE_CHECKING:
    from nncc.vta.stream import Stream

__all__ = ["buffers_of", "with_copies"]

_CONSTANTS = {"conv2d": (1, 2), "depthwise": (1, 2), "add": (1,), "max_pool": ()}
"""By kind of layer, the positions of its weights and parameters, which it reads from the constants; see `Layer`."""


def with_copies(steps: Sequence[PendingStep], streams: Mapping[str, Stream], memory: Memory) -> list[PendingStep]:
    """The steps, with copies before those of `streams` of what these read and is not in the arena: inputs of the model,
    and constants in place of activations."""
    found: list[PendingStep] = []
    for step in steps:
        if isinstance(step, PendingBranch):
            sides = (with_copies(side, streams, memory) for side in (step.then, step.otherwise))
            found.append(PendingBranch(step.condition, *sides))
        elif isinstance(step, PendingLoop):
            found.append(replace(step, steps=with_copies(step.steps, streams, memory)))
        elif step.kernel in streams:
            stream, args = streams[step.kernel], list(step.args)
            for position, value in enumerate(args):
                if value.space == "buffer" or position in _CONSTANTS[stream.layer.kind]:
                    continue
                nbytes = stream.arguments[position]
                args[position] = memory.buffer(nbytes)
                found.append(PendingCall("", [value, args[position]], nbytes))
            found.append(replace(step, args=args))
        else:
            found.append(step)
    return found


def buffers_of(steps: Sequence[PendingStep], streams: Mapping[str, Stream], memory: Memory) -> set[int]:
    """The buffers that `streams` read or write, which have to be in the arena."""
    calls = [call for call in pending_calls(steps) if call.kernel in streams]
    return {memory.root(value.at)[0] for call in calls for value in call.args if value.space == "buffer"}
