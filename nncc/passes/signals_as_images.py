"""One-dimensional convolutions as two-dimensional ones of height 1, which the templates take.

    conv1d(x)[n, o, w] = conv2d(X)[n, o, 0, w]        X[n, c, 0, w] = x[n, c, w]

and what follows elementwise, or pools, keeps the height: nothing moves in between.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["signals_as_images"]

_UNARY = {
    "relax.nn.relu", "relax.clip", "relax.sigmoid", "relax.tanh", "relax.nn.leakyrelu", "relax.nn.silu", "relax.exp",
    "relax.nn.gelu", "relax.erf", "relax.abs", "relax.negative", "relax.quantize", "relax.dequantize",
}  # fmt: skip
_BINARY = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.maximum", "relax.minimum"}
_POOLS = {"relax.nn.max_pool1d": "relax.nn.max_pool2d", "relax.nn.avg_pool1d": "relax.nn.avg_pool2d"}


def signals_as_images(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.nn.conv1d`` and ``relax.nn.conv1d_transpose``; see the module's equation."""
    return Images().rewrite(module)


class Images(Rewriter):
    """Keeps, beside a signal [N, C, W], its image [N, C, 1, W]; makes either from the other when it is asked for."""

    def __init__(self) -> None:
        super().__init__(
            {
                "relax.nn.conv1d": Images.conv1d,
                "relax.nn.conv1d_transpose": Images.conv1d_transpose,
                **dict.fromkeys(_UNARY, Images.unary),
                **dict.fromkeys(_BINARY, Images.binary),
                **dict.fromkeys(_POOLS, Images.pool1d),
            }
        )
        self.images: dict[Any, Any] = {}

    def keep(self, variable: Any, new: Any) -> None:
        if isinstance(new, _Image):
            self.images[variable] = new.expr
        else:
            super().keep(variable, new)

    def value(self, expr: Any) -> Any:
        if isinstance(expr, relax.Var) and expr in self.images and expr not in self.replaced:
            image = self.images[expr]
            batch, channels, _, width = static_shape(image)
            self.replaced[expr] = self.builder.emit(relax.op.reshape(image, (batch, channels, width)))
        return super().value(expr)

    def image(self, expr: Any) -> Any:
        """The image of a signal; rounding and its inverse come behind the change of shape."""
        if isinstance(expr, GenericConst):
            array = constant_array(expr)
            return relax.const(array[..., None, :], str(array.dtype))
        if expr in self.images:
            return self.images[expr]
        call = self.made.get(expr)
        if isinstance(call, relax.Call) and getattr(call.op, "name", "") == "relax.dequantize":
            image = self.scaled(call, self.image(call.args[0]))
        else:
            value = self.value(expr)
            *outer, width = static_shape(value)
            image = self.builder.emit(relax.op.reshape(value, (*outer, 1, width)))
        self.images[expr] = image
        return image

    def scaled(self, call: Any, image: Any) -> Any:
        """``relax.quantize`` or ``relax.dequantize`` of an image as `call` does of a signal."""
        axis = int(call.attrs.axis) % 3
        apply = relax.op.quantize if call.op.name == "relax.quantize" else relax.op.dequantize
        scale, zero = (self.value(a) for a in call.args[1:])
        return self.builder.emit(apply(image, scale, zero, axis + (axis == 2), str(call.ty.dtype)))

    def conv1d(self, call: Any) -> Any:
        attrs = call.attrs
        if attrs.data_layout != "NCW" or attrs.kernel_layout != "OIW" or attrs.out_layout not in ("", "NCW"):
            return None
        strides, padding, dilation = self._window(attrs)
        x, weight = self.image(call.args[0]), self.image(call.args[1])
        product = relax.op.nn.conv2d(x, weight, strides, padding, dilation, int(attrs.groups))
        return _Image(self.builder.emit(product))

    def conv1d_transpose(self, call: Any) -> Any:
        attrs = call.attrs
        if attrs.data_layout != "NCW" or attrs.kernel_layout != "IOW" or attrs.out_layout not in ("", "NCW"):
            return None
        strides, padding, dilation = self._window(attrs)
        more = [0, int(attrs.output_padding[0])]
        x, weight = self.image(call.args[0]), self.image(call.args[1])
        product = relax.op.nn.conv2d_transpose(x, weight, strides, padding, more, dilation, int(attrs.groups))
        return _Image(self.builder.emit(product))

    @staticmethod
    def _window(attrs: Any) -> tuple[list[int], list[int], list[int]]:
        padding = [int(p) for p in attrs.padding]
        left, right = padding if len(padding) == 2 else padding * 2
        return [1, int(attrs.strides[0])], [0, left, 0, right], [1, int(attrs.dilation[0])]

    def unary(self, call: Any) -> Any:
        if call.args[0] not in self.images:
            return None
        image = self.images[call.args[0]]
        if call.op.name in ("relax.quantize", "relax.dequantize"):
            return _Image(self.scaled(call, image))
        arguments = [image, *(self.value(a) for a in call.args[1:])]
        return _Image(self.builder.emit(relax.Call(call.op, arguments, call.attrs, call.ty_args)))

    def binary(self, call: Any) -> Any:
        if not any(a in self.images for a in call.args):
            return None
        operands = []
        for operand in call.args:
            shape = static_shape(operand)
            if isinstance(operand, GenericConst):
                array = constant_array(operand).reshape((1,) * (3 - len(shape)) + tuple(shape))
                operands.append(relax.const(array[:, :, None], str(array.dtype)))
            elif len(shape) == 3:
                operands.append(self.image(operand))
            else:
                return None
        return _Image(self.builder.emit(relax.Call(call.op, operands, call.attrs, call.ty_args)))

    def pool1d(self, call: Any) -> Any:
        attrs = call.attrs
        if call.args[0] not in self.images or attrs.layout != "NCW":
            return None
        apply = relax.op.nn.max_pool2d if call.op.name == "relax.nn.max_pool1d" else relax.op.nn.avg_pool2d
        strides, padding, dilation = self._window(attrs)
        pooled = apply(
            self.images[call.args[0]],
            [1, int(attrs.pool_size[0])],
            strides,
            padding,
            dilation,
            bool(attrs.ceil_mode),
            bool(attrs.count_include_pad),
        )
        return _Image(self.builder.emit(pooled))


class _Image:
    """What a rule returns for a signal whose image it has made."""

    def __init__(self, expr: Any) -> None:
        self.expr = expr
