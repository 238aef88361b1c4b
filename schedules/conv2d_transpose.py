"""Transposed convolution on channel-blocked tensors, as one ordinary convolution for each phase of the stride.

    y[o, Y, X] = sum_{i, kh, kw} x[i, (Y + pt - kh*dh) / sh, (X + pl - kw*dw) / sw] * K[i, o, kh, kw]

over the kh and kw for which the divisions leave no rest. With Y = q*sh + a those are, for a phase a, the
kh = kh_a - t*sh/g, g = gcd(sh, dh), and (Y + pt - kh*dh) / sh = q + e_a + t*dh/g. So, for each pair of phases (a, b),

    y[n, o, q*sh + a, p*sw + b, oi] =
        sum_{i, t, u, ii} x[n, i, q + e_a + t*dh/g, p + e_b + u*dw/g, ii] * W_ab[o, i, t, u, ii, oi]

a dense convolution of stride 1 with a kernel of about KH/sh x KW/sw: no zero is multiplied. x is [N, C/ci, H, W, ci],
y is [N, O/co, OH, OW, co]. The register tiles of all phases are computed one after the other, and the epilogue writes
them interleaved.

Of integers (`nncc.kernels.dots`), W_ab is in words, what lies around x is z, and each phase has an offset for what its
taps make of z: -z sum_{i, t, u} W_ab; the result is int32.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx, topi

NAME = "conv2d_transpose"
STRIDES = "nncc.strides"
"""The annotation of the block that interleaves the phases."""
MOST_PHASES = 16
"""Each phase is code of its own: more of them are left to plain loops."""


def taps(phase, kernel, stride, dilation, before):
    """The places in the kernel that meet the output phase, by rising input index: (first input index e, its steps)."""
    found = [k for k in range(kernel) if (phase + before - k * dilation) % stride == 0][::-1]
    return found, (phase + before - found[0] * dilation) // stride if found else 0


def pack(kernel, strides, padding, dilation, in_lanes, out_lanes, dot=None):
    """[I, O, KH, KW] -> by phase W_ab as [O/co, I/ci, T, U, ci, co], rising in the input's index; phases without
    elements are left out; in words for a `dot`."""
    in_channels, out_channels, height, width = kernel.shape
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    missing = (0, in_blocks * in_lanes - in_channels), (0, out_blocks * out_lanes - out_channels), (0, 0), (0, 0)
    split = np.pad(kernel, missing).reshape(in_blocks, in_lanes, out_blocks, out_lanes, height, width)
    split = split.transpose(2, 0, 4, 5, 1, 3)
    packed = []
    for a, b in np.ndindex(*strides):
        rows, _ = taps(a, height, strides[0], dilation[0], padding[0])
        columns, _ = taps(b, width, strides[1], dilation[1], padding[1])
        if rows and columns:
            phase = np.ascontiguousarray(split[:, :, rows][:, :, :, columns])
            packed.append(phase if dot is None else dot.words(phase, 4))
    return packed


def offsets(kernel, strides, padding, dilation, out_lanes, zero):
    """[I, O, KH, KW] -> -zero sum W_ab as int32 [phases, O/co, co], in the order of `pack`."""
    found = pack(kernel.astype(np.int64), strides, padding, dilation, 1, out_lanes)
    return np.stack([-zero * phase.sum(axis=(1, 2, 3, 4)) for phase in found]).astype(np.int32)


def compute(data, *weights, kernel, size, strides, padding, dilation, dot=None, zero=0):
    """Define the convolution of a `kernel` of (KH, KW) to `size`, (OH, OW); `padding` is (top, left, bottom, right).

    `dot` says how integers are multiplied, `zero` is what lies around them; the `offsets` come before the weights.
    """
    added, weights = (None, weights) if dot is None else (weights[0], weights[1:])
    batch, in_blocks, _, _, in_lanes = (int(d) for d in data.shape)
    out_blocks, out_lanes = int(weights[0].shape[0]), int(weights[0].shape[-1])
    if dot is not None:
        data, out_lanes, in_lanes = scheduling.widened(data, dot), out_lanes // dot.size, in_lanes // dot.size
    counts = [-(-out // stride) for out, stride in zip(size, strides, strict=True)]
    axes = []
    for axis in (0, 1):
        found = [taps(a, kernel[axis], strides[axis], dilation[axis], padding[axis]) for a in range(strides[axis])]
        step = dilation[axis] // gcd(strides[axis], dilation[axis])
        lowest = min(e for ks, e in found if ks)
        highest = max(e + (len(ks) - 1) * step for ks, e in found if ks) + counts[axis] - 1
        before, after = max(0, -lowest), max(0, highest - int(data.shape[2 + axis]) + 1)
        axes.append(([(len(ks), e + before) for ks, e in found], step, before, after))
    (rows, step_h, top, bottom), (columns, step_w, left, right) = axes
    if top or left or bottom or right:
        around = tirx.const(zero, data.dtype)
        data = topi.nn.pad(data, [0, 0, top, left, 0], [0, 0, bottom, right, 0], pad_value=around, name="pad")

    def phase(name, attrs, weight, height, at_h, width, at_w):
        i, ii = te.reduce_axis((0, in_blocks), name="i"), te.reduce_axis((0, in_lanes), name="ii")
        t, u = te.reduce_axis((0, height), name="t"), te.reduce_axis((0, width), name="u")

        def product(n, o, q, p, oi):
            pixel = n, i, q + at_h + t * step_h, p + at_w + u * step_w
            if dot is None:
                return data[(*pixel, ii)] * weight[o, i, t, u, ii, oi]
            values, weights = (
                (lambda k: data[(*pixel, ii * dot.size + k)]),
                (lambda place: weight[o, i, t, u, ii, place]),
            )
            return dot.product(values, weights, oi, out_lanes)

        return te.compute(
            (batch, out_blocks, *counts, out_lanes),
            lambda *at: te.sum(product(*at), axis=[i, t, u, ii]),
            name=name,
            attrs=attrs,
        )

    phases = {}
    for a, b in np.ndindex(*strides):
        if rows[a][0] and columns[b][0]:
            attrs = scheduling.part(NAME) if phases else scheduling.anchor(NAME)
            phases[a, b] = phase(f"phase_{a}_{b}", attrs, weights[len(phases)], *rows[a], *columns[b])

    def interleaved(n, o, y, x, oi):
        value = tirx.const(0, data.dtype if dot is None else "int32")
        for number, ((a, b), part) in enumerate(phases.items()):
            here = tirx.all(y % strides[0] == a, x % strides[1] == b)
            element = part[n, o, y // strides[0], x // strides[1], oi]
            element = element if added is None else element + added[number, o, oi]
            value = tirx.Select(here, element, value)
        return value

    attrs = {**scheduling.part(NAME), STRIDES: list(strides)}
    return te.compute((batch, out_blocks, *size, out_lanes), interleaved, name="interleave", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Tile each phase for registers, vectorize the channel lanes, spread (batch, channel blocks, rows) over threads."""
    interleave = sch.get_consumers(block)[0]
    strides = [int(s) for s in sch.get(interleave).annotations[STRIDES]]
    phases = sch.get_producers(interleave)
    work = sum(scheduling.flops(sch, phase) for phase in phases)
    epilogue = scheduling.epilogue(sch, interleave)
    sch.compute_inline(interleave)
    _, blocks, _, width, lanes = scheduling.extents(sch, epilogue)
    possible = scheduling.register_tiles(-(-width // strides[1]), blocks, lanes, hardware)
    columns, channel_blocks = choose("tile", possible)
    n, o, h, w, lane = sch.get_loops(epilogue)
    oo, ob = sch.split(o, [None, channel_blocks])
    q, a = sch.split(h, [None, strides[0]])
    wo, wi, b = sch.split(w, [None, columns, strides[1]])
    sch.reorder(n, oo, q, wo, ob, wi, a, b, lane)
    if width % (columns * strides[1]):
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    placed = [*phases, epilogue]
    for phase in phases:
        # The tiles wait for each other in the first-level cache, by a copy: in registers, they would push out the
        # accumulators of the next one. What reads them is rolled, so that they stay there.
        copy = sch.cache_write(phase, 0, "global")
        sch.compute_at(copy, wo, preserve_unit_loops=True)
        scheduling.in_vectors(sch, copy, 3)
        sch.compute_at(phase, wo, preserve_unit_loops=True)
        placed.append(copy)
    scheduling.in_vectors(sch, epilogue, 2)
    scheduling.parallel(sch, [n, oo, q], work, hardware, choose)
    for phase in phases:
        tn, to, th, tw, lane, i, t, u, ii = sch.get_loops(phase)[-9:]
        sch.reorder(tn, th, i, t, u, ii, tw, to, lane)
        for loop in (*([ii] if scheduling.extent(sch, ii) <= 16 else []), to, tw):
            sch.unroll(loop)
        sch.vectorize(lane)
        scheduling.decompose_reduction(sch, phase, i)
    return placed, f"{len(phases)} phases tile {channel_blocks}x{columns}"
