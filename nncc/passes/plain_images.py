"""Images whose channels are not blocked: max pools go to their template, mirrored borders to loops that are cut so."""

from __future__ import annotations

from functools import partial
from typing import Any

from nncc.compat import IRModule, static_shape
from nncc.operators.pad import bordered
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["plain_images"]

_LAYOUTS = {"relax.nn.max_pool1d": "NCW", "relax.nn.max_pool2d": "NCHW", "relax.nn.max_pool3d": "NCDHW"}


def plain_images(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.nn.max_pool1d``, ``max_pool2d`` and ``max_pool3d`` of small windows, and ``relax.nn.pad`` by
    elements of the image."""
    template = context.templates["max_pool_rows"]

    def pool(rewriter: Rewriter, call: Any) -> Any:
        data, attrs = rewriter.value(call.args[0]), call.attrs
        layout = _LAYOUTS[call.op.name]
        shape, size = static_shape(data)[2:], static_shape(call)[2:]
        if attrs.layout != layout or attrs.out_layout not in ("", layout) or 0 in static_shape(call):
            return None
        if any(n in context.open_sizes for n in shape) or any(int(d) != 1 for d in attrs.dilation):
            return None
        windows = {name: [int(v) for v in getattr(attrs, name)] for name in ("strides", "padding")}
        windows |= {"kernel": [int(v) for v in attrs.pool_size], "size": list(size)}
        if not template.module.takes(shape, **windows):
            return None
        return rewriter.emit_anchor(template, data, **windows)

    def pad(rewriter: Rewriter, call: Any) -> Any:
        data, attrs = rewriter.value(call.args[0]), call.attrs
        widths, mode = [int(n) for n in attrs.pad_width], str(attrs.pad_mode)
        shape = static_shape(data)
        if mode not in ("reflect", "replicate") or any(n in context.open_sizes for n in shape) or 0 in shape:
            return None
        padded = partial(bordered, before=widths[::2], after=widths[1::2], mode=mode, value=0.0)
        return rewriter.builder.emit_te(padded, data, primfunc_name_hint="pad")

    return Rewriter({**dict.fromkeys(_LAYOUTS, pool), "relax.nn.pad": pad}).rewrite(module)
