"""float16 on GPUs, or bfloat16: tensor cores multiply halves and add in float32, and what only they, and elementwise
operators, read is stored as halves.

    conv2d(x, W)  ->  conv2d(half(x), half(W)) into float32            y = f(..)  ->  y = float(half(f(..)))

Sums, softmaxes and normalizations compute in float32 and read it; so a residual stream of a transformer stays float32.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.choose_layout import BINARY, UNARY
from nncc.passes.context import Context
from nncc.passes.integer_products import takes_groups
from nncc.passes.relax_grids import is_quantized, named
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_halves"]

_ELEMENTWISE = {*UNARY, *BINARY, "relax.divide"}
_POOLS = {"relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.mean"}
"""What computes in float32 from halves that it reads."""

_MOVES = {"relax.reshape", "relax.permute_dims", "relax.concat"}
"""What moves halves as it moves numbers; worth it where only such as take them read the result."""


def gpu_halves(module: IRModule, context: Context) -> IRModule:
    """Rewrite products by constants, where that is asked for; see the module's equations."""
    if context.precision not in ("float16", "bfloat16"):
        return module
    # Blocks of integers have other sizes than blocks of halves: next to them, convolutions stay float32.
    return _Halves(context.precision, images=not is_quantized(module)).rewrite(module)


class _Halves(Rewriter):
    """Knows who reads the values of the old function, and which of them are halves in the new one."""

    def __init__(self, dtype: str, images: bool) -> None:
        super().__init__(
            {
                "relax.nn.conv2d": _Halves.conv2d,
                "relax.matmul": _Halves.matmul,
                "relax.reshape": _Halves.reshape,
                "relax.permute_dims": _Halves.permute_dims,
                "relax.concat": _Halves.concat,
            }
        )
        self.dtype = dtype
        self.images = images
        self.known: dict[Any, bool] = {}
        self.halves: dict[Any, Any] = {}
        """By variable of the old function, its halves in the new one."""

    # What is stored as halves

    def is_product(self, call: Any) -> bool:
        """Whether there is a kernel of halves for it: by a constant, in groups of whole blocks or of one channel."""
        if not named(call, "relax.nn.conv2d", "relax.matmul") or not isinstance(call.args[1], GenericConst):
            return False
        if any(str(t.ty.dtype) != "float32" for t in (*call.args, call)):
            return False
        data, weight = static_shape(call.args[0]), static_shape(call.args[1])
        if 0 in (*data, *weight, *static_shape(call)):
            return False
        if named(call, "relax.matmul"):
            return len(weight) == 2 and len(data) > 1
        attrs = call.attrs
        plain = attrs.data_layout == "NCHW" and attrs.kernel_layout == "OIHW" and attrs.out_layout in ("", "NCHW")
        return self.images and plain and takes_groups(weight, int(attrs.groups), 8)

    def takes_halves(self, variable: Any, reader: Any) -> bool:
        """Whether what reads a value does so as well from halves."""
        if variable is None:
            return False
        if named(reader, *_ELEMENTWISE, *(_POOLS if self.images else ())):
            return str(reader.ty.dtype) == "float32"
        if named(reader, *_MOVES):
            return str(reader.ty.dtype) == "float32" and self.only_halves(variable) and self.is_worth(variable)
        return self.is_product(reader)

    def only_halves(self, variable: Any) -> bool:
        """Whether all that read a value of the old function take halves."""
        if variable not in self.known:
            readers = self.readers[variable]
            self.known[variable] = bool(readers) and all(self.takes_halves(*reader) for reader in readers)
        return self.known[variable]

    def is_worth(self, variable: Any) -> bool:
        """Whether what reads a value that has only been moved is more than elementwise operators, which are part of
        the kernel that moves it, and may be of attention."""
        return any(
            self.is_worth(result) if named(reader, *_MOVES) else not named(reader, *_ELEMENTWISE)
            for result, reader in self.readers[variable]
        )

    def is_stored(self, variable: Any) -> bool:
        """Whether a value is written to memory, as halves: the kernel that makes it ends there."""
        value = self.made.get(variable)
        if not isinstance(value, relax.Call) or str(getattr(value.ty, "dtype", "")) != "float32":
            return False
        together = len(self.readers[variable]) == 1 and named(self.readers[variable][0][1], *_ELEMENTWISE)
        return not together and len(static_shape(value)) > 0 and self.only_halves(variable)

    def keep(self, variable: Any, new: Any) -> None:
        super().keep(variable, new)
        if variable not in self.halves and self.is_stored(variable):
            self.halves[variable] = self.builder.emit(relax.op.astype(self.replaced[variable], self.dtype))
        if variable in self.halves:
            self.replaced[variable] = self.builder.emit(relax.op.astype(self.halves[variable], "float32"))

    def half(self, expr: Any) -> Any:
        """A value of the old function as halves."""
        if isinstance(expr, GenericConst):
            return relax.const(constant_array(expr).astype(self.dtype), self.dtype)
        if expr not in self.halves:
            self.halves[expr] = self.builder.emit(relax.op.astype(self.value(expr), self.dtype))
        return self.halves[expr]

    # Operators

    def conv2d(self, call: Any) -> Any:
        if not self.is_product(call):
            return None
        a = call.attrs
        return relax.op.nn.conv2d(
            *map(self.half, call.args), a.strides, a.padding, a.dilation, int(a.groups), out_dtype="float32"
        )

    def matmul(self, call: Any) -> Any:
        if not self.is_product(call):
            return None
        return relax.op.matmul(*map(self.half, call.args), out_dtype="float32")

    def reshape(self, call: Any) -> Any:
        return self.moved(lambda: relax.op.reshape(self.half(call.args[0]), static_shape(call)), call.args[0])

    def permute_dims(self, call: Any) -> Any:
        axes = None if call.attrs.axes is None else [int(a) for a in call.attrs.axes]
        return self.moved(lambda: relax.op.permute_dims(self.half(call.args[0]), axes), call.args[0])

    def concat(self, call: Any) -> Any:
        fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
        axis = int(call.attrs.axis) if call.attrs.axis is not None else None
        return self.moved(lambda: relax.op.concat([self.half(f) for f in fields], axis), *fields)

    def moved(self, move: Any, *sources: Any) -> Any:
        """A move of halves, if some of its sources are; None otherwise."""
        if not any(s in self.halves for s in sources) or not self.only_halves(self.variable):
            return None
        self.halves[self.variable] = self.builder.emit(move())
        return self.halves[self.variable]
