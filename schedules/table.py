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
    """Some elements a step, so that loads come early; what is fused with it is computed where they are looked up."""
    consumers = sch.get_consumers(block)
    if len(consumers) == 1 and scheduling.is_spatial(sch, consumers[0]):
        sch.compute_inline(block)
        [block] = consumers
    sizes = scheduling.extents(sch, block)
    loop = sch.fuse(*sch.get_loops(block)) if len(sizes) > 1 else sch.get_loops(block)[0]
    count = prod(sizes)
    unroll = choose("unroll", [size for size in (16, 8, 4, 2, 1) if count % size == 0])
    steps, inner = sch.split(loop, [None, unroll])
    sch.unroll(inner)
    scheduling.parallel(sch, [steps], 4 * count, hardware, choose)
    return [block], f"by {unroll}"
