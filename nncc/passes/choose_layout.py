"""Channels blocked by the vector width, from the first convolution to the last.

    x[n, c, h, w] = X[n, c div b, h, w, c mod b]

A convolution takes and gives blocked tensors; elementwise operators, pooling, global means and concatenations of whole
blocks keep them; anything else gets the plain form back. The block of a tensor with C channels is the number of float32
lanes of a vector, or C where C is smaller; channels that do not fill the last block are padded: with zeros where a
tensor is blocked, with finite garbage behind elementwise operators, and the weights that meet them are zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape, te, tirx
from nncc.kernels.choices import GraphChoices
from nncc.kernels.dots import dot_of
from nncc.kernels.templates import Template
from nncc.passes.blocked import Blocked, block_array, from_blocks, pad_plain, to_blocks
from nncc.passes.context import Context
from nncc.passes.convolutions import conv2d, convolution_texts, of_integers
from nncc.passes.layout_rules import RULES
from nncc.passes.own_quantization import parameter, scaled
from nncc.passes.quantization import dequantized
from nncc.passes.relax_grids import named
from nncc.passes.rewriter import Rewriter
from nncc.target import Hardware

__all__ = ["BINARY", "UNARY", "Layout", "choose_layout", "scaled_sum"]

UNARY = {
    "relax.nn.relu", "relax.clip", "relax.sigmoid", "relax.tanh", "relax.nn.leakyrelu", "relax.nn.silu",
    "relax.nn.gelu", "relax.nn.gelu_tanh", "relax.abs", "relax.negative", "relax.erf", "relax.round", "relax.floor",
    "relax.ceil", "relax.square", "relax.nn.softplus",
}  # fmt: skip
"""Elementwise operators of one tensor that map finite values to finite values."""
BINARY = {"relax.add", "relax.subtract", "relax.multiply", "relax.maximum", "relax.minimum"}


def choose_layout(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``main`` to blocked convolutions; see the module's equation."""
    return Layout(context.templates, context.target.hardware, context.graph, context.open_sizes).rewrite(module)


class Layout(Rewriter):
    """Keeps, beside the plain form of a value, its blocked form; makes either from the other when it is asked for."""

    def __init__(
        self,
        templates: Mapping[str, Template],
        hardware: Hardware,
        graph: GraphChoices,
        open_sizes: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(
            {
                "relax.nn.conv2d": conv2d,
                "relax.mean": Layout.total,
                "relax.sum": Layout.total,
                "relax.reshape": Layout.reshape,
                **dict.fromkeys(UNARY, Layout.unary),
                **dict.fromkeys(BINARY, Layout.binary),
                "relax.divide": Layout.divide,
                "relax.quantize": Layout.scale,
                "relax.dequantize": Layout.scale,
                **RULES,
            }
        )
        self.templates = templates
        self.hardware = hardware
        self.graph = graph
        self.open_sizes = open_sizes
        self.lanes = max(4, hardware.vector_bits // 32)
        self.dot = dot_of(hardware)
        self.blocked: dict[Any, Blocked] = {}
        self.parts: dict[Any, list[Blocked]] = {}
        """The fields of a tuple, where all of them are blocked."""
        self.real: dict[Any, tuple[Any, Blocked, list[Any]]] = {}
        """By new variable that is dequantized: the call, the integers, and its parameters."""
        self.shifted: dict[Any, tuple[Blocked, Any]] = {}
        """By new variable: one that is dequantized and the number that is added to it."""

    def look(self) -> None:
        convolutions = convolution_texts(self.made.values())
        if self.dot.lanes >= 4 and any(of_integers(call) for call in self.made.values()):
            self.lanes = 16  # bytes, of which most processors store no fewer at once
        if convolutions:
            others = [lanes for lanes in (self.lanes // 2, self.lanes * 2) if 4 <= lanes <= 16]
            self.lanes = self.graph("layout", " ".join(convolutions))("lanes", [self.lanes, *others])

    def keep(self, variable: Any, new: Any) -> None:
        if isinstance(new, Blocked):
            self.blocked[variable] = new
        elif isinstance(new, list):
            self.parts[variable] = new
        else:
            super().keep(variable, new)

    def bound(self, expr: Any) -> Any:
        if isinstance(expr, relax.TupleGetItem) and expr.tuple_value in self.parts:
            return self.parts[expr.tuple_value][expr.index]
        return super().bound(expr)

    # Forms of a value

    def value(self, expr: Any) -> Any:
        if isinstance(expr, relax.Var) and expr in self.blocked and expr not in self.replaced:
            self.replaced[expr] = self.unblock(self.blocked[expr])
        if isinstance(expr, relax.Var) and expr in self.parts and expr not in self.replaced:
            self.replaced[expr] = self.builder.emit(relax.Tuple([self.unblock(part) for part in self.parts[expr]]))
        return super().value(expr)

    def rows(self, tensor: Blocked, size: tuple[int, ...] = ()) -> Any:
        """The tensor with `size` (rows, columns), its own by default; nothing moves.

        One that is dequantized is so behind the change of shape: as part of the kernel that reads it.
        """
        batch, blocks, height, width, lanes = static_shape(tensor.expr)
        size = size or tensor.size
        if size == (height, width):
            return tensor.expr
        if tensor.expr in self.real:
            call, integers, parameters = self.real[tensor.expr]
            return scaled(self, call, self.rows(integers, size), *parameters)
        if tensor.expr in self.shifted:
            inner, number = self.shifted[tensor.expr]
            return self.builder.emit(relax.op.add(self.rows(inner, size), number))
        return self.builder.emit(relax.op.reshape(tensor.expr, (batch, blocks, *size, lanes)))

    def block(self, expr: Any) -> Blocked:
        """The blocked form of a 4-D tensor, made where there is none yet."""
        if expr in self.blocked:
            return self.blocked[expr]
        plain = self.value(expr)
        batch, channels, height, width = static_shape(plain)
        lanes = self.lanes_of(channels, str(plain.ty.dtype))
        if height == width == 1 and channels % lanes == 0:
            new = self.builder.emit(relax.op.reshape(plain, (batch, channels // lanes, 1, 1, lanes)))
        else:
            new = self.builder.emit_te(to_blocks, plain, lanes, primfunc_name_hint="block_channels")
        result = Blocked(new, channels)
        if isinstance(expr, relax.Var):
            self.blocked[expr] = result
        return result

    def plain(self, expr: Any, padding: Sequence[int]) -> Blocked:
        """A tensor with few channels in blocks of one channel each, which moves nothing, and zeros around it."""
        value = self.value(expr)
        batch, channels, *_ = static_shape(value)
        if any(padding):
            row = self.builder.emit_te(pad_plain, value, padding, primfunc_name_hint="pad")
            return Blocked(row, channels)
        size = static_shape(value)[2:]
        row = self.builder.emit(relax.op.reshape(value, (batch, channels, *size, 1)))
        return Blocked(row, channels)

    def unblock(self, tensor: Blocked) -> Any:
        if tensor.shape[2:] == (1, 1) and tensor.full:
            return self.builder.emit(relax.op.reshape(tensor.expr, tensor.shape))
        return self.builder.emit_te(
            from_blocks, self.rows(tensor), tensor.channels, primfunc_name_hint="unblock_channels"
        )

    def lanes_of(self, channels: int, dtype: str = "float32") -> int:
        """The lanes of a block, for a tensor of so many channels; of integers, whole words."""
        if channels >= self.lanes:
            return self.lanes
        return channels if dtype == "float32" else next(n for n in (4, 8, 16) if channels <= n)

    def is_blocked(self, expr: Any) -> bool:
        return isinstance(expr, relax.Var) and expr in self.blocked

    # Operators

    def scale(self, call: Any) -> Blocked | None:
        """To integers, or back, with constants for the whole tensor or for each channel."""
        data = call.args[0]
        if not self.is_blocked(data):
            return None
        tensor = self.blocked[data]
        several = any(prod(static_shape(p)) > 1 for p in call.args[1:])
        if len(tensor.shape) != 4 or (several and int(call.attrs.axis) % 4 != 1):
            return None
        dtype = str(call.ty.dtype)
        if dtype in ("uint8", "int8") and tensor.lanes != self.lanes_of(tensor.channels, dtype):
            return None  # blocks of floats that are no whole words: who reads the integers makes others
        parameters = [
            parameter(p, lambda array: block_array(array.reshape(1, -1, 1, 1), tensor)) for p in call.args[1:]
        ]
        if any(p is None for p in parameters):
            return None
        new = scaled(self, call, tensor.expr, *parameters)
        if call.op.name == "relax.dequantize" and str(data.ty.dtype) in ("uint8", "int8"):
            self.real[new] = call, tensor, parameters
        return Blocked(new, tensor.channels, tensor.size)

    def passing(self, expr: Any) -> bool:
        """Whether a blocked tensor of the old function is dequantized from integers that nothing else reads; with a
        constant added or not."""
        if named(added := self.made.get(expr), "relax.add") and isinstance(added.args[1], GenericConst):
            expr = added.args[0]
        call = self.real[self.blocked[expr].expr][0] if self.blocked[expr].expr in self.real else None
        return call is not None and self.uses[expr] == 1 and self.uses[call.args[0]] == 1

    def integers(self, expr: Any) -> tuple[Blocked, float, int] | None:
        """What a blocked tensor of the old function is dequantized from, with one scale and one zero point."""
        _, integers, parameters = self.real.get(self.blocked[expr].expr, (None, None, []))
        if integers is None or not all(isinstance(p, (int, float)) for p in parameters):
            return None
        return integers, *parameters

    def pooled(self, expr: Any) -> tuple[Blocked, Template]:
        """What a pool of a blocked tensor of the old function reads, and the template for it."""
        return self.blocked[expr], self.templates["pool2d"]

    def unary(self, call: Any) -> Blocked | None:
        data = call.args[0]
        if not self.is_blocked(data):
            return None
        tensor = self.blocked[data]
        new = relax.Call(call.op, [tensor.expr, *call.args[1:]], call.attrs, call.ty_args)
        return Blocked(self.builder.emit(new), tensor.channels, tensor.size)

    def binary(self, call: Any) -> Blocked | None:
        out = tuple(int(d) for d in call.ty.shape)
        kept = [a for a in call.args if self.is_blocked(a) and self.blocked[a].shape == out]
        if len(out) != 4 or not kept:
            return None
        tensor = self.blocked[kept[0]]
        if all(self._sizes(a) in ((1, 1), tensor.size) for a in call.args):
            # That of what is made for this alone, whose kernel does this too; else rows in one, if any.
            form = min(kept, key=lambda a: (not self.passing(a), static_shape(self.blocked[a].expr)[2]))
            tensor = self.blocked[form]
        else:
            tensor = Blocked(self.rows(tensor), tensor.channels, tensor.size)
        operands = [self.operand(a, tensor) for a in call.args]
        if any(o is None for o in operands):
            return None
        new = self.builder.emit(relax.Call(call.op, operands, call.attrs, call.ty_args))
        is_number = isinstance(call.args[1], GenericConst) and prod(static_shape(call.args[1])) == 1
        if named(call, "relax.add") and is_number and tensor.expr in self.real:
            self.shifted[new] = tensor, operands[1]
        return Blocked(new, tensor.channels, tensor.size)

    def _sizes(self, expr: Any) -> tuple[int, ...]:
        """Height and width of an operand that has up to four axes."""
        shape = self.blocked[expr].shape if self.is_blocked(expr) else static_shape(expr)
        return (1, 1, *shape)[-2:]

    def divide(self, call: Any) -> Blocked | None:
        """By constants only, of which padded lanes see no zero."""
        divisor = call.args[1]
        if not isinstance(divisor, GenericConst):
            return None
        array = constant_array(divisor)
        return self.binary(call) if array.size == 1 and array.all() else None

    def operand(self, expr: Any, like: Blocked) -> Any:
        """An operand of an elementwise operator on tensors blocked as `like`; None where it cannot be."""
        shape = static_shape(expr) if not self.is_blocked(expr) else self.blocked[expr].shape
        if len(shape) > 4:
            return None
        shape = (1,) * (4 - len(shape)) + tuple(shape)
        form = static_shape(like.expr)[2:4] if shape[2:] == like.size else shape[2:]
        if isinstance(expr, GenericConst):
            array = block_array(constant_array(expr).reshape(shape), like)
            array = array.reshape(*array.shape[:2], *form, array.shape[-1])
            return relax.const(array, str(array.dtype))
        if shape[1] == like.channels and (len(static_shape(expr)) == 4 if not self.is_blocked(expr) else True):
            tensor = self.block(expr)
            return self.rows(tensor, form) if tensor.lanes == like.lanes else None
        if shape[1] == 1 and not self.is_blocked(expr):
            return self.builder.emit(relax.op.reshape(self.value(expr), (shape[0], 1, *form, 1)))
        return None

    def total(self, call: Any) -> Any:
        """The mean or the sum of each channel."""
        data, attrs = call.args[0], call.attrs
        axes = sorted(int(a) % 4 for a in attrs.axis) if attrs.axis is not None and self.is_blocked(data) else None
        if axes != [2, 3]:
            return None
        tensor, step, zero = self.integers(data) or (self.blocked[data], 1.0, 0)
        factor = step / prod(tensor.size) if named(call, "relax.mean") else step
        name = f"spatial_{call.op.name.removeprefix('relax.')}"
        total = self.builder.emit_te(self.spatial_sum, self.rows(tensor), factor, zero, primfunc_name_hint=name)
        new = Blocked(total, tensor.channels, (1, 1))
        if attrs.keepdims:
            return new
        return self.builder.emit(relax.op.reshape(self.unblock(new), new.shape[:2]))

    @staticmethod
    def spatial_sum(x: te.Tensor, factor: float, zero: int) -> te.Tensor:
        """(x - zero) factor, summed over H and W, row by row: H + W additions in a chain err less than H * W; of
        integers by exact sums.
        """
        batch, blocks, height, width, lanes = x.shape
        kind = "float32" if str(x.dtype) == "float32" else "int32"
        h, w = te.reduce_axis((0, height), name="h"), te.reduce_axis((0, width), name="w")
        rows = te.compute(
            (batch, blocks, height, lanes),
            lambda n, c, i, lane: te.sum(x[n, c, i, w, lane].astype(kind), axis=[w]),
            name="row_sum",
        )
        total = te.compute((batch, blocks, lanes), lambda n, c, lane: te.sum(rows[n, c, h, lane], axis=[h]), name="sum")
        count = int(height) * int(width)
        return te.compute(
            (batch, blocks, 1, 1, lanes),
            lambda n, c, _, __, lane: scaled_sum(total[n, c, lane], count, factor, zero),
            name="scaled",
        )

    def reshape(self, call: Any) -> Any:
        """A reshape that only drops the two unit axes of a full blocked tensor is no work."""
        data = call.args[0]
        if not self.is_blocked(data) or data in self.replaced:
            return None
        tensor = self.blocked[data]
        if tensor.shape[2:] == (1, 1) and tensor.full:
            return self.builder.emit(relax.op.reshape(tensor.expr, tuple(int(d) for d in call.ty.shape)))
        return None


def scaled_sum(total: Any, count: int, factor: float, zero: int) -> Any:
    """The sum of (x - zero) factor, from the `total` of `count` numbers x."""
    centred = total if str(total.dtype) == "float32" else dequantized(total, 1.0, zero * count)
    return centred if factor == 1.0 else centred * tirx.const(factor, "float32")
