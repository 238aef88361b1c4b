"""Bytes looked up in a table of 256: y[..] = table[x[..]], x of uint8, or of int8 from -128 on.

In vectors where the processor shuffles bytes; else one by one, a byte from memory, one of the table, one to memory.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "table"


def compute(x, table):
    """Define what `table`, 256 bytes, has for each element of x."""
    first = 0 if x.dtype == "uint8" else 128
    return te.compute(
        x.shape, lambda *at: table[x[at].astype("int32") + first], name="table", attrs=scheduling.anchor(NAME)
    )


def schedule(sch, block, hardware, choose):
    """A vector a step, or some elements, so that loads come early; what is fused is computed where it is looked up."""
    consumers = sch.get_consumers(block)
    if len(consumers) == 1 and scheduling.is_spatial(sch, consumers[0]):
        sch.compute_inline(block)
        [block] = consumers
    sizes = scheduling.extents(sch, block)
    loop = sch.fuse(*sch.get_loops(block)) if len(sizes) > 1 else sch.get_loops(block)[0]
    count = prod(sizes)
    widths = [n for n in (64, 32, 16) if n <= min(count, scheduling.lookup_lanes(hardware))]
    even = [n for n in widths if scheduling.divides(sch, loop, n)]
    known = isinstance(sch.get(loop).extent, tirx.IntImm)
    if even or (widths and known and hardware.cores == 1):  # a loop for several threads has no tail: it is not peeled
        lanes = (even or widths)[0]
        steps, vector = sch.split(loop, [None, lanes])
        if not even:
            sch.annotate(steps, "pragma_loop_partition_hint", 1)
        else:
            scheduling.parallel(sch, [steps], 4 * count, hardware, choose)
        sch.vectorize(vector)
        return [block], f"{lanes} at once"
    unroll = choose("unroll", [size for size in (16, 8, 4, 2, 1) if count % size == 0])
    steps, inner = sch.split(loop, [None, unroll])
    sch.unroll(inner)
    scheduling.parallel(sch, [steps], 4 * count, hardware, choose)
    return [block], f"by {unroll}"
