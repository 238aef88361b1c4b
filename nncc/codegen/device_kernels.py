"""Scheduled TIR becomes CUDA C++: the device kernels as one source, and what the host launches for each function.

TVM's pipeline for GPUs, up to the split of host and device. The host half that is left of a function is not compiled:
it only says what is launched with which pointers, which `Launch` says as well.
"""

from __future__ import annotations

import re
from typing import Any

from nncc.codegen.integer_dots import integer_dots
from nncc.compat import IRModule, StringImm, is_buffer, s_tir, tirx, tvm
from nncc.errors import InternalError, ModelError
from nncc.ir import Launch, Lowered, align
from nncc.resources import runtime_folder

__all__ = ["lower_device_kernels"]

_AXES = {f"{unit}.{axis}": (unit, at) for unit in ("blockIdx", "threadIdx") for at, axis in enumerate("xyz")}
_PRELUDE = ("device.cuh", "device_units.cuh")
"""In front of the kernels, in this order."""
_DYNAMIC_SHARED = "tirx.use_dyn_shared_memory"
_MOST_BLOCKS = 65535
"""Along y and z (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""
_DEVICE_KERNEL = 2
"""The ``calling_conv`` of device kernels (tvm::CallingConv::kDeviceKernelLaunch)."""


def lower_device_kernels(functions: dict[str, Any], target: Any, prefix: str) -> Lowered:
    """Lower scheduled TIR functions for `target` (TVM's, with a host); symbols are `prefix` + name."""
    module = IRModule({name: f.with_attr("global_symbol", prefix + name) for name, f in functions.items()})
    module = tirx.transform.BindTarget(target)(module)
    with target, tvm.transform.PassContext(opt_level=3):
        module = tvm.transform.Sequential(_passes())(module)
        device = {v: f for v, f in module.functions.items() if int(f.attrs.get("calling_conv", 0)) == _DEVICE_KERNEL}
        launches, workspace = {}, {}
        for name in functions:
            walk = _Host(module[name])
            launches[name], workspace[name] = tuple(walk.launches), walk.workspace
        finish = tvm.transform.Sequential(_device_passes())
        code = _source(finish(IRModule(device)), target) if device else ""
    prelude = "".join((runtime_folder() / name).read_text() for name in _PRELUDE)
    return Lowered(prelude + code, workspace, launches=launches)


def _passes() -> list[Any]:
    scheduled, lowered = s_tir.transform, tirx.transform
    return [
        scheduled.CanonicalizeLoop(),
        scheduled.LowerCrossThreadReduction(),
        scheduled.LowerInitBlock(),
        scheduled.PlanAndUpdateBufferAllocationLocation(),
        scheduled.ConvertBlocksToOpaque(),
        scheduled.LiftThreadBinding(),
        scheduled.ManifestSharedMemoryLocalStage(),
        scheduled.CompactBufferAllocation(),
        scheduled.LowerAutoCopy(),
        scheduled.UnifyThreadBinding(),
        scheduled.LowerMatchBuffer(),
        scheduled.StmtSimplify(),
        scheduled.InjectPermutedLayout(),
        scheduled.AnnotateIrregularLoop(),
        scheduled.InjectSoftwarePipeline(),
        scheduled.TransformMmaBufferLayout(),
        scheduled.LowerOpaqueBlock(),
        lowered.FlattenBuffer(),
        lowered.BF16ComputeLegalize(),
        lowered.NarrowDataType(32),
        scheduled.LoopPartition(),
        lowered.VectorizeLoop(True),
        scheduled.InjectVirtualThread(),
        scheduled.InjectDoubleBuffer(),
        lowered.StorageRewrite(),
        scheduled.HoistIfThenElse(),
        lowered.UnrollLoop(),
        integer_dots(),
        scheduled.RenormalizeSplitPattern(),
        lowered.StmtSimplify(),
        lowered.RemoveNoOp(),
        scheduled.RewriteUnsafeSelect(),
        lowered.FP8ComputeLegalize(),
        lowered.VerifyMemory(),
        lowered.AnnotateEntryFunc(),
        scheduled.ThreadSync("shared"),
        scheduled.ThreadSync("shared.dyn"),
        scheduled.ThreadSync("warp"),
        scheduled.InferFragment(),
        scheduled.LowerThreadAllreduce(),
        scheduled.MergeSharedMemoryAllocations(),
        lowered.SplitHostDevice(),
    ]


def _device_passes() -> list[Any]:
    lowered = tirx.transform
    return [
        lowered.FP8StorageLegalize(),
        lowered.BF16StorageLegalize(),
        lowered.LowerWarpMemory(),
        lowered.StmtSimplify(),
        lowered.LowerIntrin(),
    ]


def _source(module: Any, target: Any) -> str:
    """The kernels' CUDA C++ without TVM's prelude, in place of which ours stands."""
    text = tvm.get_global_func("target.build.cuda")(module, target).inspect_source()
    start = text.find('extern "C" __global__')
    if start < 0:
        raise InternalError("flatten: TVM's code for CUDA has no kernels")
    body = re.sub(r'^extern "C" __global__ [^{;]*;\n', "", text[start:], flags=re.MULTILINE)
    return re.sub(r"\bint64_t\b", "long long", body)


class _Host:
    """Reads the host half of a function: its launches, and what it allocates for them in device memory."""

    def __init__(self, function: Any) -> None:
        self.name = str(function.attrs["global_symbol"])
        self.launches: list[Launch] = []
        self.workspace = 0
        self.places: list[tuple[Any, int, int]] = []
        """Variables of buffers, the argument each is part of, and at which byte."""
        for number, parameter in enumerate(function.params):
            if not is_buffer(parameter):
                raise InternalError(f"the kernel `{self.name}` has the scalar parameter `{parameter.name}`")
            self.places.append((parameter, number, 0))
        self.arguments = len(function.params)
        self.read(function.body)

    def read(self, stmt: Any) -> None:
        if isinstance(stmt, tirx.SeqStmt):
            for part in stmt.seq:
                self.read(part)
        elif isinstance(stmt, tirx.AttrStmt):
            self.read(stmt.body)
        elif isinstance(stmt, tirx.DeclBuffer):
            argument, offset = self.place(stmt.data)
            self.places.append((stmt.buffer, argument, offset))
        elif isinstance(stmt, tirx.AllocBuffer):
            dtype = tvm.DataType(str(stmt.buffer.dtype))
            nbytes = (dtype.bits * dtype.lanes + 7) // 8
            for dimension in stmt.buffer.shape:
                nbytes *= int(dimension)
            self.places.append((stmt.buffer, self.arguments, self.workspace))
            self.workspace += align(nbytes, 256)
        elif isinstance(stmt, tirx.Evaluate):
            self.launch(stmt.value)
        else:
            raise InternalError(f"the kernel `{self.name}` has {type(stmt).__name__} on the host: {str(stmt)[:200]}")

    def launch(self, call: Any) -> None:
        if getattr(call, "op", None) is None:  # what is left of an empty statement
            return
        if getattr(call.op, "name", "") != "tirx.call_ffi_kernel":
            raise InternalError(f"the kernel `{self.name}` does on the host what no GPU can: {str(call)[:200]}")
        symbol = str(call.args[0].value) if isinstance(call.args[0], StringImm) else str(call.args[0])
        tags = [str(tag) for tag in call.attrs.launch_params]
        pointers, extents = call.args[1 : len(call.args) - len(tags)], call.args[len(call.args) - len(tags) :]
        sizes = {"blockIdx": [1, 1, 1], "threadIdx": [1, 1, 1]}
        shared = 0
        for tag, extent in zip(tags, extents, strict=True):
            if not isinstance(extent, tirx.IntImm):
                raise InternalError(f"the kernel `{symbol}` is launched with the run-time size {extent}")
            if tag == _DYNAMIC_SHARED:
                shared = int(extent)
            else:
                unit, at = _AXES[tag]
                sizes[unit][at] = int(extent)
        (gx, gy, gz), (bx, by, bz) = sizes["blockIdx"], sizes["threadIdx"]
        if max(gy, gz) > _MOST_BLOCKS:
            raise ModelError(
                f"the kernel `{self.name}` has {max(gy, gz)} blocks along an axis; a GPU takes {_MOST_BLOCKS}",
                "compile the model for a smaller batch",
            )
        args = tuple(self.place(pointer) for pointer in pointers)
        self.launches.append(Launch(symbol, (gx, gy, gz), (bx, by, bz), args, shared))

    def place(self, data: Any) -> tuple[int, int]:
        """The argument that a pointer ``buffer.data`` is part of, and at which byte."""
        variable = data.args[0] if hasattr(data, "args") else data
        for known, argument, offset in self.places:
            if known.same_as(variable):
                return argument, offset
        raise InternalError(f"the kernel `{self.name}` launches with a pointer of unknown origin: {data}")
