"""Control flow in Relax: a call of a function that is not there, which `nncc.codegen.flatten` makes steps of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nncc.codegen.place import REGION
from nncc.compat import StringImm, relax
from nncc.ir import Region

__all__ = ["region_call"]


def region_call(regions: Mapping[str, Region]) -> Callable[[Any, Sequence[Any], dict[str, Any]], Any]:
    """The converter of the operator ``Region``, whose attribute ``name`` is a key of `regions`."""

    def convert(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
        name = attributes["name"].decode()
        types = [relax.TensorType(spec.shape, spec.dtype) for spec in regions[name].outputs]
        called = builder.emit(
            relax.op.call_pure_packed(REGION, StringImm(name), *inputs, ty_args=relax.TupleType(types))
        )
        outputs = [builder.emit(relax.TupleGetItem(called, number)) for number in range(len(types))]
        return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

    return convert
