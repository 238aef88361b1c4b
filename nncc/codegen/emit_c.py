"""The C source of a model: its description, its calls, in loops and branches where there are some, and the runtime, all
in one translation unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nncc.codegen.emit_description import emit_description
from nncc.codegen.flatten import symbol_prefix
from nncc.ir import Branch, Call, Loop, Program, Ref, Step, calls_of

__all__ = ["emit_header", "emit_source"]

_RUN_ON = "int {prefix}run_on(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream);"
"""What libraries for CUDA have besides."""


def emit_source(program: Program, build: str, compiler: str, rpc: bool = False) -> str:
    """model.c, which the runtime's ``internal.h`` describes; with `rpc`, TVM's RPC server can measure the library."""
    prefix = symbol_prefix(program.name)
    arity = {call.kernel: len(call.args) for call in program.calls if call.kernel}
    body = "\n".join(_steps(program.steps, prefix))
    prototypes = "\n".join(
        f"extern int32_t {prefix}{kernel}({', '.join(['const void*'] * count) or 'void'});"
        for kernel, count in sorted(arity.items())
    )
    shim = '#include "rpc_shim.c"\n' if rpc else ""
    return f"""#include "internal.h"

{prototypes}

{emit_description(program, build, compiler)}
static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const void* const* in, void* const* out,
                            double* seconds) {{
  (void)arena; (void)weights; (void)in; (void)out; (void)seconds;
{body}
  return 0;
}}

{_sorts(program)}{_packed(program)}#include "runtime.c"
{shim}"""


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


def _steps(steps: Sequence[Step], prefix: str, first: int = 0, depth: int = 0) -> Iterator[str]:
    """Lines of C; calls are numbered from `first` on, the number of the iteration of loop `depth` is ``i<depth>``."""
    indent = "  " * (depth + 1)
    for step in steps:
        if isinstance(step, Call):
            yield f"{indent}{_call(first, step, prefix, f'i{depth}')}"
            first += 1
            continue
        if isinstance(step, Branch):
            parts = [(f"if (*(const uint8_t*)({_place(step.condition)})) {{", step.then), ("} else {", step.otherwise)]
        else:
            parts = [(_loop(step, depth + 1), step.steps)]
        for line, inside in parts:
            yield indent + line
            if isinstance(step, Loop) and step.counter is not None:
                yield f"{indent}  memcpy({_place(step.counter)}, &i{depth + 1}, sizeof i{depth + 1});"
            yield from _steps(inside, prefix, first, depth + 1)
            first += sum(1 for _ in calls_of(tuple(inside)))
        yield indent + "}"


def _loop(loop: Loop, depth: int) -> str:
    """The line with which a loop begins. One without a number of iterations ends by its condition alone."""
    if isinstance(loop.trips, Ref):
        trips = f"nncc_int64({_place(loop.trips)})"
    else:
        trips = "INT64_MAX" if loop.trips is None else str(loop.trips)
    condition = f" && *(const uint8_t*)({_place(loop.condition)})" if loop.condition is not None else ""
    return f"for (int64_t i{depth} = 0, n{depth} = {trips}; i{depth} < n{depth}{condition}; ++i{depth}) {{"


def _call(number: int, call: Call, prefix: str, iteration: str) -> str:
    if not call.kernel:
        strides = call.strides or (0, 0)
        source, destination = (
            _place(ref, f" + {iteration} * {stride}" if stride else "")
            for ref, stride in zip(call.args, strides, strict=True)
        )
        return f"NNCC_COPY({number}, {destination}, {source}, {call.nbytes});"
    return f"NNCC_CALL({number}, {prefix}{call.kernel}({', '.join(map(_place, call.args))}));"


def _place(ref: Ref, moved: str = "") -> str:
    """An address in C; `moved` is added to it, in bytes."""
    if ref.space not in ("input", "output"):
        return f"{ref.space} + {ref.at + ref.offset}{moved}"
    base, cast = ("in", "const unsigned char*") if ref.space == "input" else ("out", "unsigned char*")
    offset = (f" + {ref.offset}" if ref.offset else "") + moved
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
            lines.append(f"#define {macro}_{what}_{i}_BYTES {spec.nbytes} /* {_comment(str(spec))} */")
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
        f"void {prefix}destroy(nncc_context* context);",
        f"const char* {prefix}last_error(void);",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        f"#endif /* {guard} */",
        "",
    ]
    return "\n".join(lines)
