"""BatchNormalization that takes mean and variance of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax

__all__ = ["batch_normalization"]


def batch_normalization(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y = scale (x - m) / sqrt(v + epsilon) + bias with m, v over all axes but 1, where `training_mode` is set; then

        running mean = momentum mean + (1 - momentum) m     running variance likewise

    Else it is TVM's.
    """
    if not attributes.get("training_mode", 0):
        return None
    x, *parameters = inputs[:5]
    rank, dtype = len(x.ty.shape), str(x.ty.dtype)
    others = [axis for axis in range(rank) if axis != 1]
    x = builder.emit(relax.op.astype(x, "float32")) if dtype in ("float16", "bfloat16") else x
    real = str(x.ty.dtype)
    wide = [p if str(p.ty.dtype) == real else builder.emit(relax.op.astype(p, real)) for p in parameters]
    row = [-1 if axis == 1 else 1 for axis in range(rank)]
    scale, bias, mean, variance = wide
    m = builder.emit(relax.op.mean(x, axis=others))
    centred = builder.emit(relax.op.subtract(x, builder.emit(relax.op.reshape(m, row))))
    v = builder.emit(relax.op.mean(builder.emit(relax.op.multiply(centred, centred)), axis=others))
    epsilon = relax.const(float(attributes.get("epsilon", 1e-5)), real)
    deviation = builder.emit(relax.op.sqrt(builder.emit(relax.op.add(v, epsilon))))
    factor = builder.emit(relax.op.reshape(builder.emit(relax.op.divide(scale, deviation)), row))
    scaled = builder.emit(relax.op.multiply(centred, factor))
    y = builder.emit(relax.op.add(scaled, builder.emit(relax.op.reshape(bias, row))))
    momentum = float(attributes.get("momentum", 0.9))

    def running(before: Any, now: Any) -> Any:
        old = builder.emit(relax.op.multiply(before, relax.const(momentum, real)))
        return builder.emit(relax.op.add(old, builder.emit(relax.op.multiply(now, relax.const(1 - momentum, real)))))

    results = [y, running(mean, m), running(variance, v)]
    dtypes = [dtype, *(str(p.ty.dtype) for p in parameters[2:])]
    return relax.Tuple(
        [r if real == to else builder.emit(relax.op.astype(r, to)) for r, to in zip(results, dtypes, strict=True)]
    )
