"""The values that flow through the pipeline: one frozen dataclass per stage boundary.

    Model --portable passes--> Model --specialize--> Network --lower--> Kernels --schedule--> Kernels
      --flatten--> Program --build--> Artifact

`graphs` has those that are graphs, `program` what is left when none is, and `steps` what that is made of; `tensors`
says what all of them say of inputs and outputs, `extents` what a size may be, `findings` what they carry along for
reports. All are imported from here.
"""

from nncc.ir.extents import Dim, Extent, Quotient
from nncc.ir.findings import Acceleration, Decision, Fallback, Quantization
from nncc.ir.graphs import CONCATENATION, COUNT, IN_PLACE, Kernels, Model, Network, Region
from nncc.ir.operations import Operations
from nncc.ir.program import Artifact, Launch, Lowered, Packed, Program, Variant, symbol_prefix
from nncc.ir.steps import Branch, Call, Loop, Ref, Step, calls_of, with_refs
from nncc.ir.tensors import ALIGNMENT, TensorSpec, align

__all__ = [
    "ALIGNMENT",
    "CONCATENATION",
    "COUNT",
    "IN_PLACE",
    "Acceleration",
    "Artifact",
    "Branch",
    "Call",
    "Decision",
    "Dim",
    "Extent",
    "Fallback",
    "Kernels",
    "Launch",
    "Loop",
    "Lowered",
    "Model",
    "Network",
    "Operations",
    "Packed",
    "Program",
    "Quantization",
    "Quotient",
    "Ref",
    "Region",
    "Step",
    "TensorSpec",
    "Variant",
    "align",
    "calls_of",
    "symbol_prefix",
    "with_refs",
]
