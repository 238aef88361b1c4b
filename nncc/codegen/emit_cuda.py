"""The C source of a model for CUDA: its description, its launches in order, and the runtime in the same translation
unit. No header of CUDA is needed to compile it."""

from __future__ import annotations

import re

from nncc.codegen.emit_description import c_string, emit_description
from nncc.errors import TargetError
from nncc.ir import Call, Launch, Program, Ref

__all__ = ["architecture", "emit_source"]


def emit_source(program: Program, build: str, compiler: str, rpc: bool = False) -> str:
    """model.c, which the runtime's ``internal_cuda.h`` describes; with `rpc`, TVM's RPC server can measure the library.

    Raises TargetError as `architecture`.
    """
    number, exact = architecture(program)
    shared: dict[str, int] = {}
    for call in program.calls:
        for launch in program.launches[call.kernel] if call.kernel else ():
            shared[launch.symbol] = max(launch.shared_bytes, shared.get(launch.symbol, 0))
    kernels = "\n".join(f"  {{{c_string(symbol)}, {nbytes}}}," for symbol, nbytes in shared.items())
    places = {symbol: place for place, symbol in enumerate(shared)}
    body = "\n".join(line for i, call in enumerate(program.calls) for line in _call(i, call, program, places))
    shim = '#include "rpc_shim.c"\n' if rpc else ""
    return f"""#include "internal_cuda.h"

{emit_description(program, build, compiler)}
enum {{ MODEL_KERNELS = {len(shared)}, MODEL_ARCHITECTURE = {number}, MODEL_EXACT = {int(exact)} }};

static const rt_kernel model_kernels[] = {{
{kernels or "  {0},"}
}};

static int model_invoke(rt_pass* pass, rt_address arena, rt_address weights, const rt_address* in,
                        const rt_address* out) {{
  (void)pass; (void)arena; (void)weights; (void)in; (void)out;
{body}
  return NNCC_OK;
}}

#include "cuda.c"
{shim}"""


def architecture(program: Program) -> tuple[int, bool]:
    """Ten times the compute capability of the target's ``arch``, and whether the code runs on no other (``sm_90a``).

    Raises TargetError if the target has no such word.
    """
    arch = str(program.target.tvm.get("arch", ""))
    found = re.fullmatch(r"sm_(\d{2,3})(a?)", arch)
    if found is None:
        raise TargetError(
            f"target `{program.target.name}`: `{arch}` is no architecture of CUDA",
            "give [tvm] an `arch` as TVM spells it, `sm_` and two or three digits",
        )
    return int(found[1]), bool(found[2])


def _call(number: int, call: Call, program: Program, kernels: dict[str, int]) -> list[str]:
    if not call.kernel:
        source, destination = call.args
        return [f"  NNCC_DEVICE_COPY({number}, {_place(destination)}, {_place(source)}, {call.nbytes});"]
    return [_launch(number, call, launch, kernels) for launch in program.launches[call.kernel]]


def _launch(number: int, call: Call, launch: Launch, kernels: dict[str, int]) -> str:
    arguments = [_place(call.args[argument], offset) for argument, offset in launch.args]
    sizes = ", ".join(map(str, (*launch.grid, *launch.block, launch.shared_bytes)))
    return f"  NNCC_LAUNCH({number}, {kernels[launch.symbol]}, {sizes}, {', '.join(arguments)});"


def _fixed(ref: Ref) -> int:
    """The offset of a reference: there are no open dimensions on GPUs."""
    assert isinstance(ref.offset, int)
    return ref.offset


def _place(ref: Ref, offset: int = 0) -> str:
    """An address in C, `offset` bytes behind where `ref` begins."""
    if ref.space in ("input", "output"):
        base, offset = f"{'in' if ref.space == 'input' else 'out'}[{ref.at}]", _fixed(ref) + offset
    else:
        base, offset = ref.space, ref.at + offset
    return f"{base} + {offset}" if offset else base
