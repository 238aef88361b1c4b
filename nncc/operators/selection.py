"""Operators that select: kernels of our own C, whose outputs are at most as large as it is said here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.codegen.bare_pointers import OWN
from nncc.compat import relax, te, tirx
from nncc.ir import COUNT, IN_PLACE
from nncc.operators.attributes import Attributes

__all__ = ["PADDED", "select"]

PADDED = "nncc.padded"
"""What the importer adds to the attributes of operators that select what others use."""
_OPAQUE = 8


def select(
    builder: Any,
    function: str,
    inputs: Sequence[Any],
    outputs: Sequence[tuple[tuple[int, ...], str]],
    sizes: Sequence[int],
    attributes: Attributes,
    flags: Sequence[int] = (),
) -> list[Any]:
    """Call ``function(inputs, outputs, count, sizes (int64), flags (int32), padded (int32))``: the outputs, of these
    shapes and dtypes.

    What is selected is at the beginning of each output, densely packed, and the rest undefined; or, of operators that
    have the attribute `PADDED`, at the beginning of the axis, with zeros behind it, or of places -1.
    """
    padded = bool(attributes.get(PADDED))
    made = [*outputs, ((1,), "int64")]

    def compute(*data: te.Tensor) -> list[te.Tensor]:
        return te.extern(
            [shape for shape, _ in made],
            list(data),
            lambda ins, outs: tirx.call_extern(
                "int32",
                f"{OWN}{function}",
                *(each.access_ptr("r") for each in ins),
                *(each.access_ptr("w") for each in outs),
                *(tirx.const(size, "int64") for size in sizes),
                *(tirx.const(flag, "int32") for flag in (*flags, int(padded))),
            ),
            dtype=[dtype for _, dtype in made],
            name="select",
        )

    facts = {COUNT: attributes.name, IN_PLACE: padded, "op_pattern": _OPAQUE}
    hint = {"primfunc_name_hint": "select", "primfunc_attrs": facts}
    both = builder.emit_te(compute, *inputs, **hint)
    return [builder.emit(relax.TupleGetItem(both, number)) for number in range(len(outputs))]
