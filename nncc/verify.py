"""ONNX Runtime as the referee: reference results and comparisons with a reason for each tolerance."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import RunError
from nncc.ir import Model

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ROUNDOFF",
    "TOLERANCE",
    "Comparison",
    "compare",
    "judge",
    "random_operator",
    "reference",
    "rounding_level",
    "sample_inputs",
]

TOLERANCE: dict[str, float] = {
    # Two orders of summing K products differ by about sqrt(K) * eps of the result: 1e-5 for float32 (eps 1.2e-7) and
    # K = 10^4; tens of layers multiply that by a few, and folded weights are rounded once more.
    "float32": 1e-4,
    "float64": 1e-10,
    # eps is 9.8e-4; a product in float16 loses that much at every layer.
    "float16": 2e-2,
    # eps is 7.8e-3.
    "bfloat16": 1e-1,
}
"""Largest accepted max|a-b| / max|expected| by dtype. Integers and booleans must be equal."""


def _session(model: Model | str | Path, outputs: Sequence[str] | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is in the exception, and so in our error
    providers = ["CPUExecutionProvider"]
    if not isinstance(model, Model):
        return onnxruntime.InferenceSession(str(model), options, providers=providers)
    from nncc.frontend.proto import save, to_proto

    weights = sum(v.const_value.nbytes for v in model.graph.graph.initializers.values() if v.const_value is not None)
    if weights < 2**31 - 2**26:
        return onnxruntime.InferenceSession(to_proto(model).SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
        save(model, Path(folder) / "model.onnx")
        return onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), options, providers=providers)


def reference(
    model: Model | str | Path,
    inputs: Mapping[str, np.ndarray],
    *,
    outputs: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes, unoptimized, on one thread: all outputs by name, or those asked for.

    `model` is a Model or the path of an ONNX file, whose open dimensions take the sizes of `inputs`. Inputs that the
    session does not know are left out. Raises RunError with ONNX Runtime's words.
    """
    try:
        session = _session(model, outputs)
        known = {value.name for value in session.get_inputs()}
        names = list(outputs) if outputs is not None else [value.name for value in session.get_outputs()]
        results = session.run(names, {name: array for name, array in inputs.items() if name in known})
    except Exception as error:  # its exceptions have no common base but Exception
        text = " ".join(str(error).split())[:500]
        raise RunError(f"ONNX Runtime cannot run the model: {text}", "compile without checking against it") from error
    return dict(zip(names, results, strict=True))


def random_operator(model: Model) -> str:
    """The name of an operator that makes random numbers, which no two implementations share; empty if there is none."""
    import onnx_ir

    from nncc.passes.explicit_defaults import RANDOM
    from nncc.passes.rewriting import is_op

    nodes = onnx_ir.traversal.RecursiveGraphIterator(model.graph.graph)
    return next((str(node.name or node.outputs[0].name) for node in nodes if is_op(node, *RANDOM)), "")


@dataclass(frozen=True)
class Comparison:
    """How one output agrees with what was expected.

    `relative_error` is max|a-b| / max|expected|, 0 where both are 0 and infinity where NaN or infinities are in
    different places.
    """

    name: str
    dtype: str
    max_error: float
    relative_error: float
    tolerance: float
    ok: bool
    reason: str = ""

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "differs"
        detail = self.reason or f"relative error {self.relative_error:.2g}, at most {self.tolerance:.2g}"
        return f"`{self.name}` {self.dtype}: {verdict} ({detail})"


def _compare(name: str, expected: np.ndarray, actual: np.ndarray, tolerance: float | None) -> Comparison:
    import numpy as np

    expected, actual = np.asarray(expected), np.asarray(actual)
    dtype = expected.dtype.name
    exact = expected.dtype.kind in "iub" or dtype not in TOLERANCE
    limit = 0.0 if exact else TOLERANCE[dtype] if tolerance is None else tolerance

    def differs(reason: str) -> Comparison:
        return Comparison(name, dtype, float("inf"), float("inf"), limit, False, reason)

    if expected.shape != actual.shape:
        shapes = ["x".join(map(str, array.shape)) or "scalar" for array in (actual, expected)]
        return differs(f"shape {shapes[0]} instead of {shapes[1]}")
    if expected.dtype != actual.dtype:
        return differs(f"dtype {actual.dtype.name} instead of {dtype}")
    if expected.dtype.kind in "OSU":
        same = bool(np.array_equal(expected, actual))
        return Comparison(name, dtype, 0.0, 0.0, 0.0, True) if same else differs("strings differ")
    if expected.dtype.kind in "iub":  # Python's integers: int64 extremes neither overflow nor round
        a, b = expected.astype(object), actual.astype(object)
    else:
        with np.errstate(invalid="ignore"):  # signalling NaN
            a, b = expected.astype(np.float64), actual.astype(np.float64)
        odd = ~np.isfinite(a) | ~np.isfinite(b)
        if odd.any():
            if not np.array_equal(a[odd], b[odd], equal_nan=True):
                return differs("NaN or infinity in different places")
            a, b = np.where(odd, 0.0, a), np.where(odd, 0.0, b)
    if np.array_equal(a, b):
        largest = error = 0.0
    else:
        error, largest = float(abs(a - b).max()), float(abs(a).max())
    relative = 0.0 if error == 0 else error / largest if largest else float("inf")
    return Comparison(name, dtype, error, relative, limit, error == 0 or relative <= limit)


def compare(
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    *,
    tolerance: float | Mapping[str, float] | None = None,
) -> list[Comparison]:
    """One Comparison for each expected output; one that is missing from `actual` is not ok.

    `tolerance`, one for all or one by name, replaces the relative tolerance of `TOLERANCE` for floats; integers and
    booleans stay exact.
    """
    found = []
    for name, array in expected.items():
        if name in actual:
            limit = tolerance.get(name) if isinstance(tolerance, Mapping) else tolerance
            found.append(_compare(name, array, actual[name], limit))
        else:
            inf = float("inf")
            found.append(Comparison(name, array.dtype.name, inf, inf, 0.0, False, "the output is missing"))
    return found


ROUNDOFF: dict[str, float] = {"float32": 0.0, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""By `Config.precision`: how far, relative to it, the nearest number that products take may be from a factor."""

_KEEP_WEIGHTS = ("Identity", "DequantizeLinear")
_EXACT = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2), "Pow": (1,)}
"""Operands of float32 that no rounding may change: they decide shapes, or which power of a negative number is one."""


def rounding_level(
    model: Model, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], roundoff: float = 0.0
) -> dict[str, float]:
    """How far float32 rounding alone may carry each of the outputs, relative to its largest element.

    Adding up K products one after the other in float32 is wrong by about eps/2 * sqrt(K) of the sum where signs are
    random (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4). The same error is put into the
    model by scaling each weight of its convolutions and matrix products by 1 +- eps/2 * sqrt(K), K the products of one
    output; ONNX Runtime says what becomes of it: a Softmax over large logits makes much of it. Where both factors of
    each product are off by `roundoff` of themselves, independently, weights are scaled by sqrt(2) of that.
    """
    import numpy as np
    import onnx_ir

    graph = model.graph.clone()
    weights: dict[str, tuple[onnx_ir.Value, int]] = {}
    """By name: what is scaled, the weights or, where they are integers, their scales, and the products of an output."""
    for node in graph.graph.all_nodes():
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            for value in node.inputs[:2]:
                producer = value.producer() if value is not None else None
                source = producer.inputs[0] if producer is not None and producer.op_type in _KEEP_WEIGHTS else value
                if source is None or source.const_value is None or len(shape := source.const_value.shape.numpy()) < 2:
                    continue
                products = prod(shape[1:]) if node.op_type == "Conv" else shape[-2]
                is_integer = producer is not None and producer.op_type == "DequantizeLinear"
                scaled = producer.inputs[1] if producer is not None and is_integer else source
                if scaled is not None and scaled.name:
                    weights[scaled.name] = scaled, products
    for value in graph.graph.initializers.values():  # all other constants are rounded too
        exact = any(use.idx in _EXACT.get(use.node.op_type, ()) for use in value.uses())
        if value.name is not None and not exact:
            weights.setdefault(value.name, (value, 4))
    generator = np.random.default_rng(0)
    for value, products in weights.values():
        array = value.const_value.numpy() if value.const_value is not None else np.zeros(0)
        if array.dtype != np.float32:
            continue
        scale = max(np.finfo(np.float32).eps / 2 * np.sqrt(products), np.sqrt(2) * roundoff)
        noise = generator.choice(np.array([-1, 1], np.float32), array.shape)
        value.const_value = onnx_ir.tensor((array * (1 + scale * noise)).astype(np.float32), name=value.name)
    noisy = reference(replace(model, graph=graph), inputs, outputs=outputs)
    plain = reference(model, inputs, outputs=outputs)
    return {comparison.name: comparison.relative_error for comparison in compare(plain, noisy)}


def judge(
    model: Model,
    inputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    precision: str = "float32",
) -> list[Comparison]:
    """`compare`; outputs beyond their dtype's tolerance are held against four times the model's own rounding level, or
    half of the largest output where that is less; products of another `precision` round more.

    Quantized outputs may be one step of their scale away: a sum that two orders of rounding carry over the border
    between two integers.
    """
    steps = _steps(model)

    def within_step(comparison: Comparison) -> Comparison:
        step = 1.001 * steps.get(comparison.name, 0.0)
        if comparison.ok or comparison.max_error > step:
            return comparison
        return replace(comparison, ok=True, tolerance=comparison.relative_error * step / comparison.max_error)

    found = list(map(within_step, compare(expected, actual)))
    if all(comparison.ok or not math.isfinite(comparison.relative_error) for comparison in found):
        return found
    level = rounding_level(model, inputs, list(expected), ROUNDOFF[precision])
    own = {c.name: max(c.tolerance, min(0.5, 4 * level[c.name])) for c in found if math.isfinite(level[c.name])}
    return compare(expected, actual, tolerance=own)


def _steps(model: Model) -> dict[str, float]:
    """By output that was just quantized: the scale of its integers, or 1 where it is these."""
    steps = {}
    for output in model.graph.graph.outputs:
        node = output.producer()
        if node is None or not output.name:
            continue
        if node.op_type == "QuantizeLinear":
            steps[output.name] = 1.0
        elif (
            node.op_type == "DequantizeLinear" and node.inputs[1] is not None and node.inputs[1].const_value is not None
        ):
            steps[output.name] = float(node.inputs[1].const_value.numpy().max())
    return steps


def sample_inputs(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs for a model, the same for the same seed; see `frontend.samples.fill`."""
    from nncc.frontend.samples import fill

    return fill(model.inputs, "random", seed)
