"""What a library says of itself, as C: the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence

from nncc.ir import Program, TensorSpec

__all__ = ["c_string", "emit_description"]


def emit_description(program: Program, build: str, compiler: str) -> str:
    """``model_info``, the ``nncc_info`` of nncc.h, and the tables that it points to."""
    features = ",".join(program.target.hardware.features)
    names = ", ".join(c_string(call.kernel or "copy") for call in program.calls) or "0"
    calls = tuple(zip(program.calls, program.times, strict=True))
    flops = ", ".join(str(times * program.flops.get(call.kernel, 0)) for call, times in calls) or "0"
    nbytes = ", ".join(str(times * program.call_bytes(call)) for call, times in calls) or "0"
    return f"""{_tensors("inputs", program.inputs)}
{_tensors("outputs", program.outputs)}
static const char* const call_names[] = {{{names}}};
static const double call_flops[] = {{{flops}}};
static const double call_bytes[] = {{{nbytes}}};

static const nncc_info model_info = {{
  .abi_version = NNCC_ABI_VERSION,
  .num_inputs = {len(program.inputs)},
  .num_outputs = {len(program.outputs)},
  .num_calls = {len(program.calls)},
  .name = {c_string(program.name)},
  .target = {c_string(program.target.name)},
  .build = {c_string(build)},
  .compiler = {c_string(compiler)},
  .features = {c_string(features)},
  .inputs = inputs,
  .outputs = outputs,
  .call_names = call_names,
  .call_flops = call_flops,
  .call_bytes = call_bytes,
  .arena_bytes = {program.arena_bytes},
  .scratch_bytes = {program.scratch_bytes},
  .weights_bytes = {program.weights.nbytes},
}};
"""


def c_string(text: str) -> str:
    """A C string literal; ONNX names may hold anything."""
    out = []
    for byte in text.encode():
        plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
        out.append(chr(byte) if plain else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def _tensors(what: str, specs: Sequence[TensorSpec]) -> str:
    lines = []
    for i, spec in enumerate(specs):
        dims = ", ".join(map(str, spec.shape)) or "0"
        lines.append(f"static const int64_t {what}_shape_{i}[] = {{{dims}}};")
    rows = ",\n".join(
        f"  {{{c_string(s.name)}, {c_string(s.dtype)}, {len(s.shape)}, {what}_shape_{i}, {s.nbytes}}}"
        for i, s in enumerate(specs)
    )
    lines.append(f"static const nncc_tensor {what}[] = {{\n{rows or '  {0}'}\n}};")
    return "\n".join(lines)
