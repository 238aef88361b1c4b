"""TIR kernels with C signatures: plain pointers in, an int32 status out, workspaces from the caller's arena.

TVM's own MakePackedAPI gives every kernel a DLTensor interface with dozens of run-time checks, and makes it need TVM's
runtime. Shapes are static here, so a pointer says everything; or they depend on open dimensions, whose sizes follow:

    int32_t kernel(const float* x, const float* w, float* y [, int64_t dim ...] [, uint8_t* workspace])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.codegen.bound_buffers import bound_buffers
from nncc.codegen.fetch_ahead import fetch_ahead
from nncc.codegen.integer_dots import integer_dots
from nncc.codegen.look_up import look_up
from nncc.codegen.shuffle_lanes import shuffle_lanes
from nncc.codegen.split_periods import split_periods
from nncc.codegen.split_registers import split_registers
from nncc.codegen.transpose_lanes import transpose_lanes
from nncc.codegen.vector_functions import MATH
from nncc.codegen.vector_math import vector_math
from nncc.compat import (
    IRModule,
    PointerType,
    PrimType,
    StringImm,
    is_buffer,
    s_tir,
    structural_map,
    structural_walk,
    tirx,
    tvm,
    vectorize_calls,
)
from nncc.errors import InternalError
from nncc.ir import Lowered, align
from nncc.kernels.dots import DOTS, Dot
from nncc.scheduling import DIMS
from nncc.target import Hardware

__all__ = ["OWN", "chains_of", "lower_kernels"]

OWN = "nncc:"
"""What the name of a function of our own C begins with, in place of the model's prefix."""
_MAX_STACK = 1024
"""Bytes: TVM's kMaxStackAlloca. Smaller buffers live on the stack, in registers once LLVM is done."""


class _LiftWorkspace:
    """Turns allocations outside of parallel loops into offsets of one workspace argument.

    Those inside a parallel loop are per thread: they stay calls of TVMBackendAllocWorkspace, which the runtime serves
    from the thread's scratch; `scratch` is what they need at most.
    """

    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace
        self.bytes = 0
        self.scratch = 0

    def __call__(self, stmt: Any, in_parallel: bool = False) -> Any:
        if isinstance(stmt, tirx.SeqStmt):
            parts = [self(part, in_parallel) for part in stmt.seq]
            same = all(a.same_as(b) for a, b in zip(parts, stmt.seq, strict=True))
            return stmt if same else tirx.SeqStmt(parts)
        if isinstance(stmt, tirx.For):
            body = self(stmt.body, in_parallel or int(stmt.kind) == int(tirx.ForKind.PARALLEL))
            if body.same_as(stmt.body):
                return stmt
            return tirx.For(
                stmt.loop_var,
                stmt.min,
                stmt.extent,
                stmt.kind,
                body,
                stmt.thread_binding,
                stmt.annotations,
                stmt.step,
                stmt.span,
            )
        if isinstance(stmt, tirx.AttrStmt):
            body = self(stmt.body, in_parallel)
            return (
                stmt
                if body.same_as(stmt.body)
                else tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, body, stmt.span)
            )
        if isinstance(stmt, tirx.IfThenElse):
            then = self(stmt.then_case, in_parallel)
            other = self(stmt.else_case, in_parallel) if stmt.else_case is not None else None
            return tirx.IfThenElse(stmt.condition, then, other, stmt.span)
        if isinstance(stmt, tirx.While):
            return tirx.While(stmt.condition, self(stmt.body, in_parallel), stmt.span)
        if isinstance(stmt, tirx.AllocBuffer):
            return self._allocation(stmt, in_parallel)
        return stmt

    def _allocation(self, stmt: Any, in_parallel: bool) -> Any:
        buffer = stmt.buffer
        size = 1
        for dimension in buffer.shape:
            if not isinstance(dimension, tirx.IntImm):
                raise InternalError(f"a kernel allocates `{buffer.name}` with the run-time size {buffer.shape}")
            size *= int(dimension)
        dtype = tvm.DataType(str(buffer.dtype))
        size *= (dtype.bits * dtype.lanes + 7) // 8
        if size < _MAX_STACK or buffer.scope() not in ("global", ""):
            return stmt
        if in_parallel:
            self.scratch += align(size)
            return stmt
        offset, self.bytes = self.bytes, self.bytes + align(size)
        pointer = tirx.handle_add_byte_offset(self.workspace, tirx.IntImm("int32", offset))
        return tirx.DeclBuffer(
            buffer, data=tirx.reinterpret(PointerType(PrimType(str(buffer.dtype)), "global"), pointer)
        )


def _make_bare(host: Any, workspace: dict[str, int], scratch: dict[str, int]) -> Any:
    """The pass that stands where MakePackedAPI stands in TVM's pipeline."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.MakeBarePointers")
    def apply(function: Any, module: Any, context: Any) -> Any:
        attrs = function.attrs
        if "global_symbol" not in attrs:
            return function
        symbol = str(attrs["global_symbol"])
        params: list[Any] = []
        declarations: list[Any] = []
        offsets: list[Any] = []
        for parameter in function.params:
            if not is_buffer(parameter):
                raise InternalError(f"the kernel `{symbol}` has the scalar parameter `{parameter.name}`")
            pointer = tirx.Var(f"{parameter.name}_p", PointerType(PrimType(str(parameter.dtype)), "global"))
            params.append(pointer)
            offset = parameter.elem_offset
            if isinstance(offset, tirx.Var) and not any(offset.same_as(b.var) for b in offsets):
                offsets.append(tirx.Bind(offset, tirx.IntImm(str(offset.ty.dtype), 0)))
            declarations.append(tirx.DeclBuffer(parameter, data=pointer))
            # Element alignment only: users' pointers may be misaligned, and unaligned moves cost nothing.
            element = max(1, tvm.DataType(str(parameter.dtype)).bits // 8)
            alignment = tirx.IntImm("int32", element)
            declarations.append(tirx.AttrStmt(parameter, "storage_alignment", alignment, tirx.Evaluate(0)))
        for name, variable in _dims(function, sorted(attrs.get(DIMS, {}))).items():
            params.append(tirx.Var(f"{name}_size", "int64"))
            size = params[-1] if str(variable.ty.dtype) == "int64" else tirx.Cast(str(variable.ty.dtype), params[-1])
            offsets.append(tirx.Bind(variable, size))
        base = tirx.Var("workspace", PointerType(PrimType("uint8"), "global"))
        lift = _LiftWorkspace(base)
        body = lift(function.body)
        workspace[symbol], scratch[symbol] = lift.bytes, lift.scratch
        if lift.bytes:
            params.append(base)
        body = tirx.AttrStmt("default", "device_id", tirx.IntImm("int32", 0), body)
        body = tirx.AttrStmt("default", "device_type", tirx.IntImm("int32", 1), body)
        body = tirx.SeqStmt([*offsets, *declarations, body, tirx.Return(tirx.IntImm("int32", 0))])
        bare = tirx.PrimFunc(params, body, PrimType("int32"), attrs=attrs, span=function.span).with_attr("target", host)
        return bare.without_attr("tirx.is_entry_func") if "tirx.is_entry_func" in bare.attrs else bare

    return apply


def _dims(function: Any, names: Sequence[str]) -> dict[str, Any]:
    """By name, in this order, the variables that are free in a function: the sizes of open dimensions."""
    found: dict[str, Any] = {}

    def note(variable: Any) -> None:
        other = found.setdefault(variable.name, variable)
        if variable.name in names and not other.same_as(variable):
            raise InternalError(f"a kernel has two variables `{variable.name}`")

    for parameter in function.params:
        for size in parameter.shape:
            structural_walk(size, [(tirx.Var, note)])
    structural_walk(function.body, [(tirx.Var, note)])
    return {name: found.get(name, tirx.Var(name, "int64")) for name in names}


def _own_names(function: Any, prefix: str) -> Any:
    """The function with calls of our own C by the names that this model has for it."""
    found: list[str] = []
    structural_walk(function.body, [(StringImm, lambda text: found.append(str(text.value)))])
    if not any(text.startswith(OWN) for text in found):
        return function

    def named(text: Any) -> Any:
        value = str(text.value)
        return StringImm(prefix + value.removeprefix(OWN)) if value.startswith(OWN) else text

    return function.with_body(structural_map(function.body, [(StringImm, named)]))


def chains_of(hardware: Hardware) -> int:
    """Four interleaved evaluations of exp and its like hide each other's latency; of 16 registers, two are enough."""
    return 4 if hardware.vector_registers >= 32 else 2


def lower_kernels(
    functions: dict[str, Any],
    target: Any,
    prefix: str,
    *,
    chains: int = 1,
    dots: Sequence[Dot] = (DOTS["none"],),
    lookups: int = 0,
) -> Lowered:
    """Lower scheduled TIR functions for `target` (a TVM target); symbols are `prefix` + name.

    `chains` are the evaluations of exp and the like that run interleaved, `dots` are the ways to multiply integers,
    `lookups` the most bytes that are looked up at once.
    """
    for name in (*MATH, "nearbyint"):  # which LLVM has in vectors too
        vectorize_calls(f"tirx.{name}")
    functions = {name: _own_names(function, prefix) for name, function in functions.items()}
    scheduled, lowered = s_tir.transform, tirx.transform
    workspace: dict[str, int] = {}
    scratch: dict[str, int] = {}
    module = IRModule({name: f.with_attr("global_symbol", prefix + name) for name, f in functions.items()})
    # In this mode kernels call the runtime's functions by name and need no loader to fill pointers in.
    module = module.with_attr("system_lib_prefix", prefix)
    module = lowered.BindTarget(target.with_host(target))(module)
    passes = [
        scheduled.CanonicalizeLoop(),
        scheduled.LowerInitBlock(),
        scheduled.PlanAndUpdateBufferAllocationLocation(),
        scheduled.ConvertBlocksToOpaque(),
        scheduled.CompactBufferAllocation(),
        scheduled.LowerAutoCopy(),
        bound_buffers(),
        scheduled.LowerMatchBuffer(),
        scheduled.StmtSimplify(),
        scheduled.AnnotateIrregularLoop(),
        scheduled.LowerOpaqueBlock(),
        lowered.FlattenBuffer(),
        lowered.BF16ComputeLegalize(),
        lowered.NarrowDataType(32),
        scheduled.LoopPartition(),
        lowered.VectorizeLoop(True),
        scheduled.InjectVirtualThread(),
        scheduled.InjectDoubleBuffer(),
        lowered.UnrollLoop(),
        lowered.StmtSimplify(),
        split_registers(),  # before storage is shared: a tile in the place of its copy would be in memory as that is
        integer_dots(*dots),
        lowered.StorageRewrite(),
        scheduled.HoistIfThenElse(),
        scheduled.RenormalizeSplitPattern(),
        lowered.StmtSimplify(),
        lowered.RemoveNoOp(),
        scheduled.RewriteUnsafeSelect(),
        split_periods(),
        lowered.ConvertSSA(),  # what was split off has the variables of the rest
        lowered.StmtSimplify(),
        look_up(lookups),
        shuffle_lanes(),
        transpose_lanes(),
        fetch_ahead(),
        lowered.CommonSubexprElim(),
        vector_math(chains),
        lowered.FP8ComputeLegalize(),
        lowered.VerifyMemory(),
        lowered.AnnotateEntryFunc(),
        lowered.SplitHostDevice(),
        _make_bare(target, workspace, scratch),
        lowered.FP8StorageLegalize(),
        lowered.BF16StorageLegalize(),
        lowered.LowerTVMBuiltin(),
        lowered.LowerIntrin(),
    ]
    # Its substitute for the variable of a loop with one step left is an int32, which a kernel with 64-bit indices
    # refuses.
    options = {"s_tir.LoopPartition": {"no_unroll_loop_with_extent_one": True}}
    with target, tvm.transform.PassContext(opt_level=3, config=options):
        module = tvm.transform.Sequential(passes)(module)
    strip = len(prefix)
    return Lowered(module, {s[strip:]: n for s, n in workspace.items()}, {s[strip:]: n for s, n in scratch.items()})
