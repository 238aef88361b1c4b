"""The C source of a model: its description, its straight-line calls, and the runtime in the same translation unit."""

from __future__ import annotations

from collections.abc import Mapping

from nncc.codegen.emit_description import emit_description, size_in_c
from nncc.codegen.flatten import symbol_prefix
from nncc.ir import Call, Program, Ref

__all__ = ["emit_header", "emit_source"]

_RUN_ON = "int {prefix}run_on(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream);"
"""What libraries for CUDA have besides."""


def emit_source(program: Program, build: str, compiler: str, rpc: bool = False) -> str:
    """model.c, which the runtime's ``internal.h`` describes; with `rpc`, TVM's RPC server can measure the library."""
    prefix = symbol_prefix(program.name)
    types = {call.kernel: [_TYPES.get(ref.space, "const void*") for ref in call.args] for call in program.calls}
    prototypes = "\n".join(
        f"extern int32_t {prefix}{kernel}({', '.join(parameters) or 'void'});"
        for kernel, parameters in sorted(types.items())
        if kernel
    )
    shim = '#include "rpc_shim.c"\n' if rpc else ""
    return f"""{_dims_macro(program)}#include "internal.h"

{prototypes}

{emit_description(program, build, compiler)}
{_invoke(program, prefix)}
{_sorts(program)}{_packed(program)}#include "runtime.c"
{shim}"""


_TYPES = {"dim": "int64_t"}
"""What a kernel's parameter is in C, where it is no pointer."""
_PARAMETERS = """uint8_t* arena, const uint8_t* weights, const int64_t* dims,
    const void* const* in, void* const* out, double* seconds"""


def _dims_macro(program: Program) -> str:
    return f"#define NNCC_DIMS {len(program.dims)}\n" if program.dims else ""


def _invoke(program: Program, prefix: str) -> str:
    """model_invoke, and for open dimensions what chooses the calls."""
    numbers = {dim.name: number for number, dim in enumerate(program.dims)}

    def function(name: str, first: int, stop: int) -> str:
        body = "\n".join(f"  {_call(i, program.calls[i], prefix, numbers)}" for i in range(first, stop))
        return f"""static int32_t {name}({_PARAMETERS}) {{
  (void)arena; (void)weights; (void)dims; (void)in; (void)out; (void)seconds;
{body}
  return 0;
}}
"""

    if not program.variants:
        return function("model_invoke", 0, len(program.calls))
    bodies = [function(f"model_calls_{i}", v.first, v.stop) for i, v in enumerate(program.variants)]
    cases = "\n".join(
        f"    case {i}: return model_calls_{i}(arena, weights, dims, in, out, seconds);"
        for i in range(len(program.variants))
    )
    return (
        "\n".join(bodies)
        + f"""
static int32_t model_invoke({_PARAMETERS}) {{
  switch (model_variant(dims)) {{
{cases}
    default: return -1; /* nncc_resize has refused such sizes */
  }}
}}
"""
    )


def _sorts(program: Program) -> str:
    """sort.c, once for each element type that a kernel sorts."""
    from nncc.compat import StringImm, structural_walk
    from nncc.passes.own_sort import C_TYPES

    names: set[str] = set()
    for function in program.kernels.functions.values():
        structural_walk(function.body, [(StringImm, lambda text: names.add(str(text.value)))])
    prefix = f"{symbol_prefix(program.name)}sort_"
    dtypes = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    lines = [
        f'#define NNCC_SORT_T {C_TYPES[d]}\n#define NNCC_SORT_NAME {prefix}{d}\n#include "sort.c"\n' for d in dtypes
    ]
    return "".join(lines)


def _packed(program: Program) -> str:
    """expand.c and what it expands, where constants are stored without their zeros."""
    if not program.packed:
        return ""
    rows = ",\n".join(f"  {{{p.at}, {p.nbytes}, {p.to}, {p.elements}, {p.width}}}" for p in program.packed)
    table = f"static const nncc_packed packed_constants[] = {{\n{rows}\n}};"
    return f'#define NNCC_PACKED {len(program.packed)}\n#include "expand.c"\n{table}\n'


def _call(number: int, call: Call, prefix: str, dims: Mapping[str, int]) -> str:
    args = [_place(ref, dims) for ref in call.args]
    if not call.kernel:
        source, destination = args
        return f"NNCC_COPY({number}, {destination}, {source}, {size_in_c(call.nbytes, dims)});"
    return f"NNCC_CALL({number}, {prefix}{call.kernel}({', '.join(args)}));"


def _place(ref: Ref, dims: Mapping[str, int]) -> str:
    if ref.space == "dim":
        return f"dims[{ref.at}]"
    offset = size_in_c(ref.offset, dims) if ref.offset else ""
    if ref.space == "input":
        return f"(const unsigned char*)in[{ref.at}] + {offset}" if offset else f"in[{ref.at}]"
    if ref.space == "output":
        return f"(unsigned char*)out[{ref.at}] + {offset}" if offset else f"out[{ref.at}]"
    return f"{ref.space} + {ref.at}" + (f" + {offset}" if offset else "")


def _comment(text: str) -> str:
    """Text that stays inside a C comment: an ONNX name may hold its end, also spelled by trigraphs and split lines."""
    return "".join(c if c.isprintable() and c not in "*\\?" else "_" for c in text)


def emit_header(program: Program, interface: str) -> str:
    """model.h: the public interface (`interface` is nncc.h's text) and this model's names and sizes."""
    guard = f"{symbol_prefix(program.name).upper()}H"
    macro = guard[:-2]
    lines = [f"/* {_comment(program.name)} for {program.target.name}, compiled by nncc. */", interface.rstrip(), ""]
    lines += [f"#ifndef {guard}", f"#define {guard}", ""]
    for what, specs in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        lines.append(f"#define {macro}_{what}S {len(specs)}")
        for i, spec in enumerate(specs):
            most = " at most" if spec.extents else ""
            lines.append(f"#define {macro}_{what}_{i}_BYTES {spec.nbytes} /*{most} {_comment(str(spec))} */")
    for i, dim in enumerate(program.dims):
        lines.append(f"#define {macro}_DIM_{i} {i} /* {_comment(dim.name)}, {dim.low} to {dim.high} */")
    lines.append(f"#define {macro}_ARENA_BYTES {program.arena_bytes}")
    prefix = symbol_prefix(program.name)
    lines += [
        "",
        "/* A static library names its functions after its model, so that one program can hold several. */",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"const nncc_info* {prefix}describe(void);",
        f"int {prefix}create(nncc_context** context, int num_threads);",
        f"int {prefix}run(nncc_context* context, const void* const* inputs, void* const* outputs);",
        f"int {prefix}profile(nncc_context* context, const void* const* inputs, void* const* outputs, "
        "double* seconds);",
        *([_RUN_ON.format(prefix=prefix)] if program.target.tvm.get("kind") == "cuda" else []),
        f"int {prefix}resize(nncc_context* context, const int64_t* sizes);",
        f"int {prefix}input_shape(const nncc_context* context, int32_t input, int64_t* shape);",
        f"int {prefix}output_shape(const nncc_context* context, int32_t output, int64_t* shape);",
        f"void {prefix}destroy(nncc_context* context);",
        f"const char* {prefix}last_error(void);",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        f"#endif /* {guard} */",
        "",
    ]
    return "\n".join(lines)
