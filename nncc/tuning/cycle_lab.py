"""Candidates for an accelerator: each a program of its own on the simulator, in milliseconds, without a library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncc.errors import InternalError, RunError
from nncc.target import Target
from nncc.tuning.candidates import Kernel
from nncc.tuning.lab import Lab, Result
from nncc.tuning.measure import Timing
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.stream import Plan

__all__ = ["CycleLab", "lab_of"]


class CycleLab(Lab):
    """A lab whose times are exact: one run says all."""

    def measure(
        self, reference: Kernel, candidates: Sequence[Kernel], sure: bool = False, seconds: float = 0.0
    ) -> list[Result]:
        """The results of the candidates, in order, beside the reference."""
        default = self._seconds(reference)
        return [self._result(kernel, default) for kernel in candidates]

    def check(self, kernels: Sequence[Kernel]) -> str:
        """Whether the other kernels compute what the first does, bit by bit, on random inputs; else what is wrong."""
        from nncc.vta.alone import random_arguments, result_of

        layer, _, machine = self._parts(kernels[0])
        given = random_arguments(layer, machine, self._seed)
        try:
            expected, *others = (result_of(*self._parts(kernel), given) for kernel in kernels)
        except (InternalError, RunError) as error:
            return error.message
        wrong = next((other for other in others if not np.array_equal(other, expected)), None)
        if wrong is None:
            return ""
        return f"{np.count_nonzero(wrong != expected)} of {wrong.size} bytes are not those of the untuned kernel"

    def _result(self, kernel: Kernel, default: float) -> Result:
        try:
            seconds = self._seconds(kernel)
        except (InternalError, RunError) as error:
            return Result(None, error.message)
        ratio = seconds / default
        return Result(Timing(seconds, default, ratio, ratio, ratio, 1))

    def _seconds(self, kernel: Kernel) -> float:
        """The cycles of a kernel's program, by the clock beside the machine's DRAM."""
        from nncc.vta.alone import cycles_of

        layer, plan, machine = self._parts(kernel)
        return cycles_of(layer, plan, machine) / (1e6 * machine.clock_beside_memory_mhz)

    def _parts(self, kernel: Kernel) -> tuple[Layer, Plan, Machine]:
        """What the kernel computes, how and on what; InternalError for one of the host."""
        from nncc.vta.decisions import layer_of, read_plan

        machine, layer = self.target.hardware.accelerator, layer_of(kernel.function)
        if machine is None or layer is None:
            raise InternalError("a kernel of the host has no cycles of an accelerator")
        return layer, read_plan(str(kernel.decisions.get("plan", ""))), machine


def lab_of(target: Target) -> type[Lab]:
    """The kind of lab that measures a target's candidates."""
    return CycleLab if target.hardware.drives_accelerator else Lab
