"""Bytes looked up in a table of 256: y[..] = table[x[..]], x of uint8, or of int8 from -128 on.

One by one: a byte from memory, one of the table, one to memory, where vectors would be taken apart and put together.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te

NAME = "table"


def compute(x, table):
    """Define what `table`, 256 bytes, has for each element of x."""
    first = 0 if x.dtype == "uint8" else 128
    return te.compute(
        x.shape, lambda *at: table[x[at].astype("int32") + first], name="table", attrs=scheduling.anchor(NAME)
    )


def schedule(sch, block, hardware, choose):
    """Some elements a step, so that loads come early."""
    epilogue = scheduling.epilogue(sch, block)
    sizes = scheduling.extents(sch, epilogue)
    loop = sch.fuse(*sch.get_loops(epilogue)) if len(sizes) > 1 else sch.get_loops(epilogue)[0]
    count = prod(sizes)
    unroll = choose("unroll", [size for size in (16, 8, 4, 2, 1) if count % size == 0])
    steps, inner = sch.split(loop, [None, unroll])
    sch.compute_at(block, steps, preserve_unit_loops=True)
    for loops in (sch.get_loops(block)[1:], [inner]):
        for each in loops:
            sch.unroll(each)
    scheduling.parallel(sch, [steps], 4 * count, hardware, choose)
    return [block, epilogue], f"by {unroll}"
