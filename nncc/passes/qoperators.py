"""op_q(x_q, s, z, ..., s_y, z_y) = Q(op(DQ(x_q; s, z), ...); s_y, z_y): operators on integers become QDQ form.

QLinearConv, QLinearMatMul and those of com.microsoft (onnxruntime/docs/ContribOperators.md). A bias of integers has
the scale x_scale * w_scale and no zero point. ``channels_last`` operators get Transposes, on the integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nncc.passes.grids import insert_dequantize, insert_node, insert_quantize, operand_or_none
from nncc.passes.raise_opset import raise_opset
from nncc.passes.rewriting import Report, add_constant, attribute, constant, static_shape, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["MICROSOFT", "QOPERATORS", "SCALES", "Refusal", "Site", "identifier", "qoperators_to_qdq", "rewrite_each"]

MICROSOFT = "com.microsoft"


def identifier(node: onnx_ir.Node) -> tuple[str, str]:
    """Domain and operator; the standard domain is the empty word."""
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type


class Refusal(Exception):
    """Why a node cannot be rewritten."""


class Site:
    """Where new nodes go: before `node`, with names that start with its name."""

    def __init__(self, node: onnx_ir.Node) -> None:
        assert node.graph is not None
        self.node = node
        self.graph = node.graph
        self.name = str(node.outputs[0].name)

    def has(self, at: int) -> bool:
        return operand_or_none(self.node, at) is not None

    def operand(self, at: int) -> onnx_ir.Value:
        """Operand `at`: no checker knows the operators of com.microsoft, so it may be missing."""
        value = operand_or_none(self.node, at)
        if value is None:
            raise Refusal(f"it has no operand {at}")
        return value

    def number(self, name: str, default: float | None = None) -> int | float:
        """An attribute that is a number; a missing one without a default is refused, and so is another type."""
        value = attribute(self.node, name, default)
        if not isinstance(value, (int, float)):
            raise Refusal(f"its attribute `{name}` is missing, or no number")
        return value

    def _zeros(self, scale: onnx_ir.Value, dtype: onnx_ir.DataType | None) -> onnx_ir.Value:
        import numpy as np

        array = constant(scale)
        shape = array.shape if array is not None else ()
        if dtype is None:
            raise Refusal("the type of an operand is not known")
        return add_constant(self.graph, np.zeros(shape, dtype.numpy()), f"{self.name}/zero")

    def _single(self, value: onnx_ir.Value, what: str) -> onnx_ir.Value:
        """A list of one as a scalar."""
        import numpy as np
        import onnx_ir

        if static_shape(value) != (1,):
            return value
        shape = add_constant(self.graph, np.zeros(0, np.int64), f"{self.name}/scalar")
        name = f"{self.name}/{what}_{value.name}"
        return insert_node(self.node, "Reshape", [value, shape], name=name, dtype=value.dtype, shape=onnx_ir.Shape([]))

    def parameters(
        self, at: int, dtype: onnx_ir.DataType | None, *, per_axis: bool = False, zero_at: int | None = None
    ) -> tuple[onnx_ir.Value, onnx_ir.Value]:
        """Scale (operand `at`) and zero point (the next, or zero), of one shape: a scalar, or a row if `per_axis`."""
        import numpy as np

        scale = self.operand(at)
        zero = operand_or_none(self.node, at + 1 if zero_at is None else zero_at)
        steps = constant(scale)
        if steps is None:
            sizes = static_shape(scale)
            fits = sizes is not None and len(sizes) < 2 and (sizes in ((), (1,)) or per_axis)
            if not fits or (zero is not None and static_shape(zero) != sizes):
                raise Refusal("its scales are computed at run time")
            scale, zero = self._single(scale, "scale"), self._single(zero, "zero_point") if zero is not None else None
            return scale, zero if zero is not None else self._zeros(scale, dtype)
        if steps.size != 1 and (not per_axis or max(steps.shape) != steps.size):
            raise Refusal(f"its operand {at} has scales of shape {'x'.join(map(str, steps.shape))}")
        points = constant(zero)
        if zero is not None and points is None:
            raise Refusal("its zero points are computed at run time")
        if points is not None and points.size not in (1, steps.size) and steps.size != 1:
            raise Refusal("its scales and zero points differ in number")
        count = max(steps.size, 1 if points is None else points.size)
        shape: tuple[int, ...] = (count,) if count > 1 else ()
        wide = np.broadcast_to(steps.reshape(-1), (count,)).reshape(shape)
        if steps.shape != shape:
            scale = add_constant(self.graph, wide, f"{self.name}/scale")
        if points is None or zero is None:
            return scale, self._zeros(scale, dtype)
        if points.shape != shape:
            filled = np.broadcast_to(points.reshape(-1), (count,)).reshape(shape)
            zero = add_constant(self.graph, filled, f"{self.name}/zero_point")
        return scale, zero

    def real(self, at: int, axis: int | None = None, value: onnx_ir.Value | None = None) -> onnx_ir.Value:
        """Operand `at` (or `value` in its place) dequantized by the two operands after it; per axis if one is given."""
        quantized = value if value is not None else self.operand(at)
        scale, zero = self.parameters(at + 1, quantized.dtype, per_axis=axis is not None)
        per_axis = scale.shape is not None and len(scale.shape) == 1
        name = f"{self.name}/operand_{at}"
        return insert_dequantize(self.node, quantized, scale, zero, name=name, axis=axis if per_axis else None)

    def op(self, kind: str, *inputs: onnx_ir.Value | None, name: str = "", **attributes) -> onnx_ir.Value:
        """A float operator."""
        given = [value for value in inputs if value is not None]
        return insert_node(
            self.node, kind, inputs, name=f"{self.name}{name}", dtype=given[-1].dtype if given else None, **attributes
        )

    def integers(self, real: onnx_ir.Value, at: int) -> onnx_ir.Value:
        """`real` quantized by operands `at` and `at` + 1."""
        scale, zero = self.parameters(at, self.operand(0).dtype)
        return insert_quantize(self.node, real, scale, zero, name=f"{self.name}/result")

    def bias(self, at: int, x_scale: int, w_scale: int, axis: int, factor: float = 1.0) -> onnx_ir.Value:
        """Operand `at`, of int32, dequantized by the product of two scales (and of `factor`), per `axis`."""
        import numpy as np

        quantized = self.operand(at)
        first, second = constant(self.operand(x_scale)), constant(self.operand(w_scale))
        if first is None or second is None:
            raise Refusal("the scale of its bias is computed at run time")
        if first.size != 1:
            raise Refusal(f"its operand {x_scale} has scales of shape {'x'.join(map(str, first.shape))}")
        step = np.float32(first.reshape(()) * np.float32(factor)) * second.astype(np.float32).reshape(-1)
        array = step.reshape(()) if step.size == 1 else step
        name = f"{self.name}/bias"
        scale = add_constant(self.graph, np.asarray(array, np.float32), f"{name}/scale")
        zero = add_constant(self.graph, np.zeros(array.shape, np.int32), f"{name}/zero_point")
        return insert_dequantize(self.node, quantized, scale, zero, name=name, axis=axis if array.ndim else None)

    def moved(self, value: onnx_ir.Value, perm: list[int], name: str) -> onnx_ir.Value:
        """`value` transposed."""
        return insert_node(self.node, "Transpose", [value], name=f"{self.name}/{name}", dtype=value.dtype, perm=perm)

    def attributes(self, *left_out: str) -> dict[str, Any]:
        """The node's own attributes but those."""
        return {name: attr for name, attr in self.node.attributes.items() if name not in left_out}


def _channels_first(site: Site, rewritten: Callable[[onnx_ir.Value], onnx_ir.Value]) -> onnx_ir.Value:
    """`rewritten(x)` where channels come first; where they come last, with a Transpose before and after."""
    x = site.operand(0)
    if not site.number("channels_last", 0):
        return rewritten(x)
    if x.shape is None:
        raise Refusal("its rank is not known")
    rank = len(x.shape)
    first = site.moved(x, [0, rank - 1, *range(1, rank - 1)], "channels_first")
    return site.moved(rewritten(first), [0, *range(2, rank), 1], "channels_last")


def _conv(site: Site) -> onnx_ir.Value:
    def rewritten(x: onnx_ir.Value) -> onnx_ir.Value:
        weight = site.real(3, axis=0)
        bias = site.bias(8, 1, 4, 0) if site.has(8) else None
        operands = [site.real(0, value=x), weight] + ([bias] if bias is not None else [])
        return site.integers(site.op("Conv", *operands, **site.attributes("channels_last")), 6)

    return _channels_first(site, rewritten)


def _rank(value: onnx_ir.Value) -> int:
    if value.shape is None:
        raise Refusal("its rank is not known")
    return len(value.shape)


def _matmul(site: Site) -> onnx_ir.Value:
    a, b = _rank(site.operand(0)), _rank(site.operand(3))
    left = site.real(0, axis=a - 2 if a > 1 else None)
    return site.integers(site.op("MatMul", left, site.real(3, axis=b - 1)), 6)


def _gemm(site: Site) -> onnx_ir.Value:
    import numpy as np

    alpha = site.number("alpha", 1.0)
    operands = [site.real(0), site.real(3, axis=0 if site.number("transB", 0) else 1)]
    if site.has(6):
        steps, bias = constant(site.operand(4)), site.operand(6)
        if steps is not None and steps.size > 1 and (not _rank(bias) or bias.shape[-1] != steps.size):  # type: ignore[index]
            raise Refusal("it has one scale a column and a bias that has none")
        operands.append(site.bias(6, 1, 4, _rank(bias) - 1, float(np.float32(alpha))))
    real = site.op("Gemm", *operands, **site.attributes())
    return site.integers(real, 7) if site.has(7) else real


def _binary(kind: str) -> Callable[[Site], onnx_ir.Value]:
    return lambda site: site.integers(site.op(kind, site.real(0), site.real(3)), 6)


def _unary(kind: str, *kept: str) -> Callable[[Site], onnx_ir.Value]:
    def rewritten(site: Site) -> onnx_ir.Value:
        attributes: dict[str, Any] = {name: site.node.attributes[name] for name in kept if name in site.node.attributes}
        return site.integers(site.op(kind, site.real(0), **attributes), 3)

    return rewritten


def _pool(kind: str) -> Callable[[Site], onnx_ir.Value]:
    def rewritten(site: Site) -> onnx_ir.Value:
        return _channels_first(
            site,
            lambda x: site.integers(site.op(kind, site.real(0, value=x), **site.attributes("channels_last")), 3),
        )

    return rewritten


def _concat(site: Site) -> onnx_ir.Value:
    if (len(site.node.inputs) - 2) % 3 or len(site.node.inputs) < 5:
        raise Refusal("its operands are not three for each tensor")
    parts = [site.real(at) for at in range(2, len(site.node.inputs), 3)]
    return site.integers(site.op("Concat", *parts, **site.attributes()), 0)


def _softmax(site: Site) -> onnx_ir.Value:
    """Before opset 13, Softmax is over all axes from ``axis`` on: flattened to a matrix, in the model's own opset."""
    import numpy as np

    node = site.node
    x, axis = site.real(0), int(site.number("axis", -1))
    if site.number("opset") >= 13:
        return site.integers(site.op("Softmax", x, axis=axis), 3)
    matrix = site.op("Flatten", x, name="/flatten", axis=axis)
    shape = site.operand(0).shape
    if shape is None or not shape.is_static():
        raise Refusal("its shape is not static")
    back = add_constant(site.graph, np.array(list(shape), np.int64), f"{site.name}/shape")
    rows = site.op("Softmax", matrix, axis=-1)
    real = insert_node(node, "Reshape", [rows, back], name=f"{site.name}/unflatten", dtype=rows.dtype)
    return site.integers(real, 3)


def _reduce_mean(site: Site) -> onnx_ir.Value:
    import numpy as np

    node = site.node
    axes, keepdims = attribute(node, "axes"), int(site.number("keepdims", 1))
    real = site.real(0)
    if site.graph.opset_imports.get("", 1) < 18:
        return site.integers(site.op("ReduceMean", real, axes=axes or None, keepdims=keepdims), 3)
    given = [add_constant(site.graph, np.array(axes, np.int64), f"{site.name}/axes")] if axes else []
    mean = insert_node(node, "ReduceMean", [real, *given], name=site.name, dtype=real.dtype, keepdims=keepdims)
    return site.integers(mean, 3)


def _where(site: Site) -> onnx_ir.Value:
    real = site.op("Where", site.operand(0), site.real(1), site.real(4))
    scale, zero = site.parameters(7, site.operand(1).dtype)
    return insert_quantize(site.node, real, scale, zero, name=f"{site.name}/result")


def _same(kind: str) -> Callable[[Site], onnx_ir.Value]:
    """QuantizeLinear and DequantizeLinear of com.microsoft; the axis of several scales is 1 where none is given."""

    def rewritten(site: Site) -> onnx_ir.Value:
        node = site.node
        x, axis = site.operand(0), int(site.number("axis", 1))
        dtype = x.dtype
        if kind == "QuantizeLinear":
            import onnx_ir

            dtype = onnx_ir.DataType.UINT8
        scale, zero = site.parameters(1, dtype, per_axis=True)
        per_axis = scale.shape is not None and len(scale.shape) == 1
        insert = insert_quantize if kind == "QuantizeLinear" else insert_dequantize
        return insert(node, x, scale, zero, name=site.name, axis=axis if per_axis else None)

    return rewritten


QOPERATORS: Mapping[tuple[str, str], Callable[[Site], onnx_ir.Value]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QLinearConv"): _conv,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "QLinearGlobalAveragePool"): _pool("GlobalAveragePool"),
    (MICROSOFT, "QLinearAveragePool"): _pool("AveragePool"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu", "alpha"),
    (MICROSOFT, "QLinearSoftmax"): _softmax,
    (MICROSOFT, "QLinearReduceMean"): _reduce_mean,
    (MICROSOFT, "QLinearWhere"): _where,
    (MICROSOFT, "QuantizeLinear"): _same("QuantizeLinear"),
    (MICROSOFT, "DequantizeLinear"): _same("DequantizeLinear"),
}
"""By domain and operator: a function that inserts the QDQ form and returns its last value."""

SCALES: Mapping[str, tuple[int, ...]] = {
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QLinearGlobalAveragePool": (1, 3),
    "QLinearAveragePool": (1, 3),
    "QLinearSigmoid": (1, 3),
    "QLinearLeakyRelu": (1, 3),
    "QLinearSoftmax": (1, 3),
    "QLinearReduceMean": (1, 3),
    "QLinearWhere": (2, 5, 7),
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "MatMulIntegerToFloat": (2, 3),
    "DynamicQuantizeMatMul": (2,),
}
"""By operator, which operands are scales; QLinearConcat's are operand 0 and every third from operand 3 on."""

_TALL = ("INT16", "UINT16", "INT4", "UINT4")


def _needed_opset(node: onnx_ir.Node) -> int:
    """10 has QuantizeLinear and DequantizeLinear, 13 those per axis, 21 those of 16 and 4 bits."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    if any(value.dtype is not None and value.dtype.name in _TALL for value in values):
        return 21
    scales = [constant(operand_or_none(node, at)) for at in SCALES.get(node.op_type, ())]
    return 13 if any(scale is not None and scale.size > 1 for scale in scales) else 10


def _made(value: onnx_ir.Value, known: set[onnx_ir.Node]) -> set[onnx_ir.Node]:
    """The nodes that `value` depends on and that are not `known`."""
    found: set[onnx_ir.Node] = set()
    todo = [value]
    while todo:
        producer = todo.pop().producer()
        if producer is not None and producer not in known and producer not in found:
            found.add(producer)
            todo += [source for source in producer.inputs if source is not None]
    return found


def rewrite_each(
    graph: onnx_ir.Model,
    table: Mapping[tuple[str, str], Callable[[Site], onnx_ir.Value]],
    needed_opset: Callable[[onnx_ir.Node], int],
) -> Report:
    """Replace every operator that `table` names by what its function inserts, once the opset is high enough for all."""
    report = Report()
    found = [node for node in graph.graph if identifier(node) in table]
    if not found:
        return report
    if why := raise_opset(graph, max(map(needed_opset, found))):
        for node in found:
            report.skip(node, why)
        return report
    known = set(graph.graph)
    for node in tuple(graph.graph):
        rewrite = table.get(identifier(node))
        if rewrite is None:
            continue
        try:
            value = rewrite(Site(node))
        except Refusal as refusal:
            report.skip(node, str(refusal))
            graph.graph.remove([new for new in graph.graph if new not in known])
            continue
        known |= _made(value, known)
        substitute(node.outputs[0], value)
        report.rewrites += 1
    return report


def qoperators_to_qdq(graph: onnx_ir.Model) -> Report:
    """Rewrite in place every operator that `QOPERATORS` names. The opset is raised where needed."""
    return rewrite_each(graph, QOPERATORS, _needed_opset)
