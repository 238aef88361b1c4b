"""The C source of a model: its description, its calls, in loops and branches where there are some, and the runtime, all
in one translation unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nncc.codegen.emit_accelerator import Submission, emit_accelerator
from nncc.codegen.emit_description import emit_description, size_in_c
from nncc.ir import Branch, Call, Loop, Program, Ref, Step, calls_of, symbol_prefix

__all__ = ["emit_header", "emit_source"]

_RUN_ON = "int {prefix}run_on(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream);"
"""What libraries for CUDA have besides."""


def emit_source(
    program: Program, build: str, compiler: str, rpc: bool = False, submissions: Sequence[Submission] = ()
) -> str:
    """model.c, which the runtime's ``internal.h`` describes; with `rpc`, TVM's RPC server can measure the library.

    `submissions` are the parts of a program that has an accelerator.
    """
    prefix = symbol_prefix(program.name)
    types = {
        call.kernel: [_TYPES.get(ref.space, "const void*") for ref in call.args]
        for call in program.calls
        if call.kernel not in program.streams
    }
    submitted = {number: "" for each in submissions for number in each.calls}
    submitted |= {each.first_call: f"NNCC_SUBMIT({number});" for number, each in enumerate(submissions)}
    beside = emit_accelerator(program, submissions) if program.target.hardware.drives_accelerator else ""
    prototypes = "\n".join(
        f"extern int32_t {prefix}{kernel}({', '.join(parameters) or 'void'});"
        for kernel, parameters in sorted(types.items())
        if kernel
    )
    shim = '#include "rpc_shim.c"\n' if rpc else ""
    return f"""{_dims_macro(program)}{"#define NNCC_ACCELERATOR" + chr(10) if beside else ""}#include "internal.h"

{prototypes}

{emit_description(program, build, compiler)}
{beside}{_invoke(program, prefix, submitted)}
{_own_functions(program)}{_packed(program)}#include "runtime.c"
{shim}"""


_TYPES = {"dim": "int64_t"}
"""What a kernel's parameter is in C, where it is no pointer."""
_PARAMETERS = """uint8_t* arena, const uint8_t* weights, int64_t* dims,
    const void* const* in, void* const* out, double* seconds"""


def _dims_macro(program: Program) -> str:
    return f"#define NNCC_DIMS {len(program.dims)}\n" if program.dims else ""


def _invoke(program: Program, prefix: str, submitted: Mapping[int, str]) -> str:
    """model_invoke, and for open dimensions what chooses the calls."""
    numbers = {dim.name: number for number, dim in enumerate(program.dims)}

    def function(name: str, first: int, stop: int) -> str:
        before = sum(1 for _ in calls_of(program.steps[:first]))
        body = "\n".join(_steps(program.steps[first:stop], prefix, numbers, submitted, before))
        return f"""static int32_t {name}({_PARAMETERS}) {{
  (void)arena; (void)weights; (void)dims; (void)in; (void)out; (void)seconds;
{body}
  return 0;
}}
"""

    if not program.variants:
        return function("model_invoke", 0, len(program.steps))
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


def _own_functions(program: Program) -> str:
    """Our own functions that kernels call: sort.c and others, once for each element type."""
    from nncc.compat import StringImm, structural_walk
    from nncc.operators.non_zero import ELEMENTS
    from nncc.passes.own_sort import C_TYPES

    found: set[str] = set()
    for function in program.kernels.functions.values():
        structural_walk(function.body, [(StringImm, lambda text: found.add(str(text.value)))])
    prefix = symbol_prefix(program.name)
    lines = []
    for name in sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix)):
        stem, _, dtype = name.rpartition("_")
        symbol = f"{prefix}{name}"
        if stem == "sort":
            lines += [f"#define NNCC_SORT_T {C_TYPES[dtype]}", f"#define NNCC_SORT_NAME {symbol}"]
            lines.append('#include "sort.c"')
        elif stem in ("non_zero", "unique"):
            key = "((x) & 0x7fff)" if dtype == "float16" else "(x)"  # a zero of either sign
            lines += [f"#define NNCC_SELECT_T {ELEMENTS[dtype]}", f"#define NNCC_SELECT_NAME {symbol}"]
            lines += [f"#define NNCC_SELECT_KEY(x) {key}", f'#include "{stem}.c"']
        elif name in ("compress", "non_max_suppression"):
            lines += [f"#define NNCC_SELECT_NAME {symbol}", f'#include "{name}.c"']
    return "".join(f"{line}\n" for line in lines)


def _packed(program: Program) -> str:
    """expand.c and what it expands, where constants are stored without their zeros."""
    if not program.packed:
        return ""
    rows = ",\n".join(f"  {{{p.at}, {p.nbytes}, {p.to}, {p.elements}, {p.width}}}" for p in program.packed)
    table = f"static const nncc_packed packed_constants[] = {{\n{rows}\n}};"
    return f'#define NNCC_PACKED {len(program.packed)}\n#include "expand.c"\n{table}\n'


def _steps(
    steps: Sequence[Step],
    prefix: str,
    dims: Mapping[str, int],
    submitted: Mapping[int, str],
    first: int = 0,
    depth: int = 0,
) -> Iterator[str]:
    """Lines of C; calls are numbered from `first` on, the number of the iteration of loop `depth` is ``i<depth>``;
    `dims` are the numbers of open dimensions, `submitted` what stands in place of calls of an accelerator."""
    indent = "  " * (depth + 1)
    for step in steps:
        if isinstance(step, Call):
            line = submitted[first] if first in submitted else _call(first, step, prefix, dims, f"i{depth}")
            if line:
                yield indent + line
            first += 1
            continue
        if isinstance(step, Branch):
            condition = f"if (*(const uint8_t*)({_place(step.condition, dims)})) {{"
            parts = [(condition, step.then), ("} else {", step.otherwise)]
        else:
            parts = [(_loop(step, depth + 1, dims), step.steps)]
        for line, inside in parts:
            yield indent + line
            if isinstance(step, Loop) and step.counter is not None:
                yield f"{indent}  memcpy({_place(step.counter, dims)}, &i{depth + 1}, sizeof i{depth + 1});"
            yield from _steps(inside, prefix, dims, submitted, first, depth + 1)
            first += sum(1 for _ in calls_of(tuple(inside)))
        yield indent + "}"


def _loop(loop: Loop, depth: int, dims: Mapping[str, int]) -> str:
    """The line with which a loop begins. One without a number of iterations ends by its condition alone."""
    if isinstance(loop.trips, Ref):
        trips = f"nncc_int64({_place(loop.trips, dims)})"
    else:
        trips = "INT64_MAX" if loop.trips is None else str(loop.trips)
    condition = f" && *(const uint8_t*)({_place(loop.condition, dims)})" if loop.condition is not None else ""
    return f"for (int64_t i{depth} = 0, n{depth} = {trips}; i{depth} < n{depth}{condition}; ++i{depth}) {{"


def _call(number: int, call: Call, prefix: str, dims: Mapping[str, int], iteration: str) -> str:
    if not call.kernel:
        strides = call.strides or (0, 0)
        source, destination = (
            _place(ref, dims, f" + {iteration} * {stride}" if stride else "")
            for ref, stride in zip(call.args, strides, strict=True)
        )
        destination = f"&{destination}" if call.args[1].space == "dim" else destination
        return f"NNCC_COPY({number}, {destination}, {source}, {size_in_c(call.nbytes, dims)});"
    return f"NNCC_CALL({number}, {prefix}{call.kernel}({', '.join(_place(ref, dims) for ref in call.args)}));"


def _place(ref: Ref, dims: Mapping[str, int], moved: str = "") -> str:
    """An address in C; `moved` is added to it, in bytes. Or the size of an open dimension."""
    if ref.space == "dim":
        return f"dims[{ref.at}]"
    if ref.space not in ("input", "output"):
        if isinstance(ref.offset, int):
            return f"{ref.space} + {ref.at + ref.offset}{moved}"
        return f"{ref.space} + {ref.at} + {size_in_c(ref.offset, dims)}{moved}"
    base, cast = ("in", "const unsigned char*") if ref.space == "input" else ("out", "unsigned char*")
    offset = (f" + {size_in_c(ref.offset, dims)}" if ref.offset else "") + moved
    return f"({cast}){base}[{ref.at}]{offset}" if offset else f"{base}[{ref.at}]"


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
