"""What a library says of itself, as C: the same for every backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nncc.ir import Extent, Operations, Program, Quotient, TensorSpec

__all__ = ["c_string", "emit_description", "size_in_c"]


def emit_description(program: Program, build: str, compiler: str) -> str:
    """``model_info``, the ``nncc_info`` of nncc.h, and the tables that it points to."""
    features = ",".join(program.target.hardware.features)
    names = ", ".join(c_string(call.kernel or "copy") for call in program.calls) or "0"
    calls = tuple(zip(program.calls, program.times, strict=True))
    operations = [program.operations.get(call.kernel, Operations()) * times for call, times in calls]
    flops = _numbers(each.total for each in operations)
    multiplications = _numbers(each.multiplications for each in operations)
    nbytes = _numbers(times * program.call_bytes(call) for call, times in calls)
    weight_bytes = _numbers(times * program.call_bytes(call, "weights") for call, times in calls)
    dims = {dim.name: number for number, dim in enumerate(program.dims)}
    return f"""{_tensors("inputs", program.inputs, dims)}
{_tensors("outputs", program.outputs, dims)}
{_open(program, dims)}static const char* const call_names[] = {{{names}}};
static const double call_flops[] = {{{flops}}};
static const double call_multiplications[] = {{{multiplications}}};
static const double call_bytes[] = {{{nbytes}}};
static const double call_weight_bytes[] = {{{weight_bytes}}};

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
  .call_multiplications = call_multiplications,
  .call_bytes = call_bytes,
  .call_weight_bytes = call_weight_bytes,
  .arena_bytes = {program.arena_bytes},
  .scratch_bytes = {program.scratch_bytes},
  .weights_bytes = {program.weights.nbytes},
  .num_dims = {len(program.dims)},
  .num_variants = {len(program.variants)},
  .dims = {"open_dims" if program.dims else "NULL"},
  .variants = {"variant_sizes" if program.dims else "NULL"},
}};
"""


def _numbers(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts)) or "0"


def c_string(text: str) -> str:
    """A C string literal; ONNX names may hold anything."""
    out = []
    for byte in text.encode():
        plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
        out.append(chr(byte) if plain else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def size_in_c(size: int | Extent, dims: Mapping[str, int]) -> str:
    """A size as an expression of `dims`, an array of int64_t; the number of each open dimension is given."""
    if not isinstance(size, Extent):
        return str(size)

    def step(each: Quotient) -> str:
        inner = f"dims[{dims[each.dim]}]"
        inner = f"({inner} + {each.plus})" if each.plus else inner
        return f"({inner} / {each.over})" if each.over != 1 else inner

    terms = [" * ".join([*([str(c)] if c != 1 else []), *map(step, steps)]) for c, steps in size.terms]
    return f"({' + '.join([*terms, *([str(size.constant)] if size.constant or not terms else [])])})"


def _open(program: Program, dims: Mapping[str, int]) -> str:
    """The open dimensions, what chooses among the variants, and the shapes at given sizes."""
    if not program.dims:
        return ""
    rows = ", ".join(f"{{{c_string(dim.name)}, {dim.low}, {dim.high}, {int(dim.from_data)}}}" for dim in program.dims)
    sizes = [size for variant in program.variants for size in variant.sizes or (0,) * len(program.dims)]
    fits = [" && ".join(f"dims[{at}] == {size}" for at, size in enumerate(each.sizes)) for each in program.variants]
    choices = "\n".join(f"  if ({fit or '1'}) return {number};" for number, fit in enumerate(fits))
    shapes = "\n".join(
        f"  if (is_output == {role} && number == {number}) shape[{axis}] = {size_in_c(extent, dims)};"
        for role, specs in enumerate((program.inputs, program.outputs))
        for number, spec in enumerate(specs)
        for axis, extent in enumerate(spec.extents)
        if extent.terms
    )
    return f"""static const nncc_dim open_dims[] = {{{rows}}};
static const int64_t variant_sizes[] = {{{", ".join(map(str, sizes)) or "0"}}};

static int32_t model_variant(const int64_t* dims) {{
  (void)dims;
{choices}
  return {-1 if program.variants else 0};
}}

/* Sets the sizes that are not fixed. */
static void model_shape(int is_output, int32_t number, const int64_t* dims, int64_t* shape) {{
  (void)is_output, (void)number, (void)dims, (void)shape;
{shapes}
}}

"""


def _dim_numbers(spec: TensorSpec, dims: Mapping[str, int]) -> str:
    """By axis: the number of the open dimension that its size is; -1 where it is fixed or something else."""
    return ", ".join(str(dims.get(extent.dim or "", -1)) for extent in spec.extents)


def _tensors(what: str, specs: Sequence[TensorSpec], dims: Mapping[str, int]) -> str:
    lines = []
    for i, spec in enumerate(specs):
        sizes = ", ".join(map(str, spec.shape)) or "0"
        lines.append(f"static const int64_t {what}_shape_{i}[] = {{{sizes}}};")
        if spec.extents:
            lines.append(f"static const int32_t {what}_dims_{i}[] = {{{_dim_numbers(spec, dims)}}};")
    rows = ",\n".join(
        f"  {{{c_string(s.name)}, {c_string(s.dtype)}, {len(s.shape)}, {what}_shape_{i}, {s.nbytes}, "
        f"{f'{what}_dims_{i}' if s.extents else 'NULL'}}}"
        for i, s in enumerate(specs)
    )
    lines.append(f"static const nncc_tensor {what}[] = {{\n{rows or '  {0}'}\n}};")
    return "\n".join(lines)
