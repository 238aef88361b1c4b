"""Networks of random sizes, from combinations of layers that real ones have: `python tests/fuzz/networks.py --help`.

What `fuzzing.py` never makes: models that are sound and deep, where a layer meets the layouts, the fusions and the odd
sizes that others before it left. Each is compiled and compared with ONNX Runtime; a file that differs is kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import numpy as np
from compiled import Net, compile_net

__all__ = ["FLOAT_TOLERANCE", "Features", "differences", "network", "quantized_differences"]

FLOAT_TOLERANCE = 1e-4
"""Relative to the largest element: what `nncc.verify` grants to tens of layers of float32."""


@dataclass(frozen=True)
class Features:
    """What a block takes and gives: an image [batch, channels, height, width]."""

    name: str
    batch: int
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the tensor."""
        return self.batch, self.channels, self.height, self.width


Block = Callable[[Net, np.random.Generator, Features], Features]
_CHANNELS = (1, 3, 4, 5, 8, 12, 16, 17, 24, 32, 33, 40, 64)
_MOST_ELEMENTS = 40_000
"""Of an image: larger ones take long, and find no more."""


def _one_of(random: np.random.Generator, choices: tuple) -> int:
    return choices[random.integers(len(choices))]


def _activated(net: Net, random: np.random.Generator, x: str) -> str:
    """One of the activations of networks for images, as exporters write it."""
    kind = _one_of(random, ("Relu", "Relu6", "LeakyRelu", "HardSwish", "SiLU", "Sigmoid", "PRelu", "Elu", "Mish", ""))
    if kind == "Relu6":
        return net.op("Clip", x, net.constant(np.float32(0)), net.constant(np.float32(6)))
    if kind == "SiLU":
        return net.op("Mul", x, net.op("Sigmoid", x))
    if kind == "Mish":
        return net.op("Mul", x, net.op("Tanh", net.op("Softplus", x)))
    if kind == "PRelu":
        return net.op("PRelu", x, net.constant(np.float32([0.2]).reshape(1, 1, 1)))
    return net.op(kind, x) if kind else x


def _normalized(net: Net, random: np.random.Generator, x: str, channels: int) -> str:
    """Batch normalization, at times that of instances, or none."""
    kind = random.integers(4)
    scale = net.constant(random.uniform(0.5, 1.5, channels).astype(np.float32))
    if kind == 0:
        return x
    if kind == 1 and channels > 1:
        return net.op("InstanceNormalization", x, scale, net.weight(channels, scale=0.3))
    mean, variance = net.weight(channels, scale=0.3), net.constant(random.uniform(0.5, 2, channels).astype(np.float32))
    return net.op("BatchNormalization", x, scale, net.weight(channels, scale=0.3), mean, variance)


def _convolved(net: Net, random: np.random.Generator, x: Features, out: int, group: int = 1) -> Features:
    """A convolution, normalized and activated; its window, steps, dilation and borders are drawn."""
    kernel = [int(k) for k in random.choice((1, 1, 2, 3, 3, 3, 4, 5, 7), 2)]
    kernel = [kernel[0]] * 2 if random.random() < 0.8 else kernel
    dilation, stride = _one_of(random, (1, 1, 1, 2, 3)), _one_of(random, (1, 1, 1, 2, 3))
    reach = [(k - 1) * dilation + 1 for k in kernel]
    pads = [int(random.integers(0, r)) for r in reach * 2] if random.random() < 0.3 else [r // 2 for r in reach * 2]
    around = [x.height + pads[0] + pads[2] - reach[0], x.width + pads[1] + pads[3] - reach[1]]
    if min(around) < 0:
        kernel, pads, dilation, around = [1, 1], [0] * 4, 1, [x.height - 1, x.width - 1]
    words = {"group": group, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": pads}
    y = net.conv(x.name, x.channels, out, kernel, bias=bool(random.integers(2)), **words)
    y = _activated(net, random, _normalized(net, random, y, out))
    return Features(y, x.batch, out, around[0] // stride + 1, around[1] // stride + 1)


def _pointwise(net: Net, x: Features, out: int) -> Features:
    return replace(x, name=net.conv(x.name, x.channels, out, (1, 1)), channels=out)


def convolution(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Dense, or in groups of 2 or 3."""
    groups = [g for g in (2, 3) if x.channels % g == 0 and random.random() < 0.4]
    out = _one_of(random, _CHANNELS)
    return _convolved(net, random, x, out * groups[0] if groups else out, groups[0] if groups else 1)


def separable(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Depthwise, then pointwise."""
    y = _convolved(net, random, x, x.channels * _one_of(random, (1, 1, 2)), x.channels)
    return _pointwise(net, y, _one_of(random, _CHANNELS))


def residual(net: Net, random: np.random.Generator, x: Features) -> Features:
    """x + f(x), x taken through a 1x1 convolution, and resized, where the shapes differ."""
    y = _convolved(net, random, x, _one_of(random, (x.channels, 16)))
    short = x if x.channels == y.channels else _pointwise(net, x, y.channels)
    if (short.height, short.width) != (y.height, y.width):
        short = replace(y, name=net.op("Resize", short.name, "", "", net.ints(*y.shape), mode="nearest"))
    return replace(y, name=_activated(net, random, net.op("Add", y.name, short.name)))


def inception(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Branches of different windows, one of them a pool, side by side."""
    a = _pointwise(net, x, _one_of(random, _CHANNELS))
    b = replace(a, name=net.conv(a.name, a.channels, 5, (3, 3), pads=[1] * 4), channels=5)
    pool = _one_of(random, ("MaxPool", "AveragePool"))
    c = net.op(pool, x.name, kernel_shape=[3, 3], pads=[1] * 4)
    joint = net.op(
        "Concat", *(each if random.random() < 0.5 else net.op("Relu", each) for each in (a.name, b.name, c)), axis=1
    )
    return replace(x, name=joint, channels=a.channels + 5 + x.channels)


def cross_stage(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Half of the channels goes through layers, both halves are joined, and their channels shuffled."""
    x = _pointwise(net, x, 2 * _one_of(random, (2, 3, 8, 16)))
    half = x.channels // 2
    left, right = net.op("Split", x.name, net.ints(half, half), axis=1, outputs=2)
    right = _activated(net, random, net.conv(right, half, half, (3, 3), pads=[1] * 4))
    y = net.op("Concat", left, right, axis=1)
    if random.random() < 0.5:
        y = net.op("Reshape", y, net.ints(x.batch, 2, half, x.height, x.width))
        y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), net.ints(*x.shape))
    return replace(x, name=y)


def squeeze(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Channels weighted by what the whole image says of them."""
    few = max(1, x.channels // 4)
    mean = net.op("GlobalAveragePool", x.name) if random.integers(2) else net.op("ReduceMean", x.name, axes=[2, 3])
    gate = net.conv(net.op("Relu", net.conv(mean, x.channels, few, (1, 1))), few, x.channels, (1, 1))
    return replace(x, name=net.op("Mul", x.name, net.op(_one_of(random, ("Sigmoid", "HardSigmoid")), gate)))


def pool(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Of any window that fits, sizes rounded up or down."""
    kernel, stride = int(random.integers(1, 4)), int(random.integers(1, 4))
    pad = int(random.integers(0, kernel)) // 2
    up = bool(random.integers(2))
    sizes = []
    for n in (x.height, x.width):
        if (around := n + 2 * pad - kernel) < 0:
            return x
        m = (-(-around // stride) if up else around // stride) + 1
        sizes.append(m - 1 if up and (m - 1) * stride >= n + pad else m)
    operator = _one_of(random, ("MaxPool", "AveragePool"))
    counted = {"count_include_pad": int(random.integers(2))} if operator == "AveragePool" else {}
    words = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": int(up)} | counted
    return replace(x, name=net.op(operator, x.name, **words), height=sizes[0], width=sizes[1])


def upsample(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Resize by a factor or to a size, or a transposed convolution."""
    if x.batch * x.channels * x.height * x.width > _MOST_ELEMENTS // 4:
        return x
    kind = random.integers(3)
    if kind == 0:
        k, s = _one_of(random, ((2, 2), (3, 2), (4, 2), (2, 1))), 0
        kernel, s = k
        out = _one_of(random, (3, 8, 17))
        y = net.op("ConvTranspose", x.name, net.weight(x.channels, out, kernel, kernel), strides=[s, s])
        return Features(y, x.batch, out, (x.height - 1) * s + kernel, (x.width - 1) * s + kernel)
    mode = ({"mode": "nearest"}, {"mode": "linear"}, {"mode": "cubic"})[random.integers(3)]
    if kind == 1:
        scales = net.constant(np.array([1, 1, 2, 2], np.float32))
        y = net.op(
            "Resize", x.name, "", scales, coordinate_transformation_mode="asymmetric", nearest_mode="floor", **mode
        )
        return replace(x, name=y, height=2 * x.height, width=2 * x.width)
    to = replace(x, height=int(random.integers(1, 2 * x.height + 1)), width=int(random.integers(1, 2 * x.width + 1)))
    way = _one_of(random, ("half_pixel", "align_corners", "pytorch_half_pixel"))
    return replace(
        to, name=net.op("Resize", x.name, "", "", net.ints(*to.shape), coordinate_transformation_mode=way, **mode)
    )


def channels_last(net: Net, random: np.random.Generator, x: Features) -> Features:
    """A stretch with channels last, as exporters of TensorFlow write it: a bias, a border, a mean over channels."""
    y = net.op("Add", net.op("Transpose", x.name, perm=[0, 2, 3, 1]), net.weight(x.channels, scale=0.3))
    if random.integers(2):
        y = net.op("Pad", y, net.ints(0, 1, 0, 0, 0, 0, 2, 0))
        x = replace(x, height=x.height + 1, width=x.width + 2)
    if random.integers(2):
        y = net.op("LayerNormalization", y, net.weight(x.channels), net.weight(x.channels)) if x.channels > 1 else y
    return replace(x, name=net.op("Transpose", _activated(net, random, y), perm=[0, 3, 1, 2]))


def pixels(net: Net, random: np.random.Generator, x: Features) -> Features:
    """Channels become pixels, or pixels channels."""
    if x.channels % 4 == 0 and random.integers(2):
        y = net.op("DepthToSpace", x.name, blocksize=2, mode=_one_of(random, ("DCR", "CRD")))
        return Features(y, x.batch, x.channels // 4, 2 * x.height, 2 * x.width)
    if x.height % 2 or x.width % 2:
        return x
    y = net.op("SpaceToDepth", x.name, blocksize=2)
    return Features(y, x.batch, 4 * x.channels, x.height // 2, x.width // 2)


BLOCKS: tuple[Block, ...] = (
    convolution, convolution, separable, residual, inception, cross_stage, squeeze, pool, upsample, channels_last,
    pixels,
)  # fmt: skip


def _transformer(net: Net, random: np.random.Generator, x: str, batch: int, rows: int, width: int) -> str:
    """A layer of attention, masked at times, and one of perceptrons: [batch, rows, width] again."""
    heads = _one_of(random, tuple(h for h in (1, 2, 3, 4) if width % h == 0))
    each = width // heads

    def linear(of: str, wide: int, out: int) -> str:
        y = net.op("MatMul", of, net.weight(wide, out, scale=wide**-0.5))
        return net.op("Add", y, net.weight(out, scale=0.3)) if random.integers(2) else y

    def split(of: str) -> str:
        return net.op("Transpose", net.op("Reshape", of, net.ints(batch, rows, heads, each)), perm=[0, 2, 1, 3])

    normal = net.op("LayerNormalization", x, net.weight(width, scale=1.0), net.weight(width, scale=0.3))
    q, k, v = (split(linear(normal, width, width)) for _ in range(3))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Mul", scores, net.constant(np.float32(each**-0.5)))
    if random.integers(2):
        mask = np.where(np.tri(rows, dtype=bool), 0, -1e4).astype(np.float32)
        scores = net.op("Add", scores, net.constant(mask))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    joint = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(batch, rows, width))
    x = net.op("Add", x, linear(joint, width, width))
    wide = int(random.integers(1, 4 * width))
    inner = linear(net.op("LayerNormalization", x, net.weight(width, scale=1.0), net.weight(width)), width, wide)
    erf = net.op("Erf", net.op("Div", inner, net.constant(np.float32(2**0.5))))
    half = net.op("Mul", inner, net.constant(np.float32(0.5)))
    gelu = net.op("Mul", half, net.op("Add", erf, net.constant(np.float32(1))))
    inner = gelu if random.integers(2) else net.op("Mul", inner, net.op("Sigmoid", inner))
    return net.op("Add", x, linear(inner, wide, width))


def _classes(net: Net, random: np.random.Generator, x: Features) -> str:
    y = net.op("Flatten", net.op(_one_of(random, ("GlobalAveragePool", "GlobalMaxPool")), x.name))
    out = int(random.integers(1, 40))
    y = net.op("Gemm", y, net.weight(out, x.channels), net.weight(out), transB=1)
    return net.op("Softmax", y, axis=-1) if random.integers(2) else y


def _masks(net: Net, random: np.random.Generator, x: Features) -> str:
    y = _pointwise(net, x, int(random.integers(1, 5)))
    return net.op("Softmax", y.name, axis=1) if random.integers(2) else net.op("Sigmoid", y.name)


def _tokens(net: Net, random: np.random.Generator, x: Features) -> str:
    """Each pixel a token, as in a vision transformer."""
    width = _one_of(random, (6, 12, 16, 24))
    while x.height * x.width > 150:
        sizes = (-(-x.height // 2), -(-x.width // 2))
        x = replace(
            x, name=net.op("MaxPool", x.name, kernel_shape=[1, 1], strides=[2, 2]), height=sizes[0], width=sizes[1]
        )
    rows = x.height * x.width
    y = net.op("Reshape", _pointwise(net, x, width).name, net.ints(x.batch, width, rows))
    y = net.op("Add", net.op("Transpose", y, perm=[0, 2, 1]), net.weight(1, rows, width, scale=0.3))
    for _ in range(random.integers(1, 3)):
        y = _transformer(net, random, y, x.batch, rows, width)
    pooled = (
        net.op("ReduceMean", y, axes=[1], keepdims=0)
        if random.integers(2)
        else net.op("Gather", y, net.constant(0), axis=1)
    )
    return net.op("MatMul", pooled, net.weight(width, 7, scale=0.3))


def _text(net: Net, random: np.random.Generator, x: Features) -> str:
    """Columns read by a recurrent layer, as in models for lines of text."""
    y = net.op("Transpose", net.op("ReduceMean", x.name, axes=[2], keepdims=0), perm=[2, 0, 1])
    kind, gates = _one_of(random, (("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    ways = int(random.integers(1, 3))
    units = int(random.integers(1, 20))
    weights = net.weight(ways, gates * units, x.channels), net.weight(ways, gates * units, units)
    bias = net.weight(ways, 2 * gates * units, scale=0.3)
    words = {"hidden_size": units, "direction": ("forward", "bidirectional")[ways - 1]}
    y = net.op(kind, y, *weights, bias, outputs=2, **words)[0]
    y = net.op("Reshape", net.op("Transpose", y, perm=[2, 0, 1, 3]), net.ints(x.batch, x.width, ways * units))
    return net.op("Softmax", net.op("MatMul", y, net.weight(ways * units, 11)), axis=-1)


HEADS = (_classes, _masks, _tokens, _text)


def network(seed: int) -> Net:
    """The network of a seed: some blocks and a head or two, weights that keep variances, sizes odd and even."""
    random = np.random.default_rng(seed)
    net = Net(17, seed)
    batch, channels = _one_of(random, (1, 1, 1, 2, 3, 8)), _one_of(random, (1, 3, 3, 4, 5))
    height, width = (int(n) for n in random.integers(1, 48 if batch < 3 else 20, 2))
    x = Features(net.input(batch, channels, height, width, name="image"), batch, channels, height, width)
    earlier = []
    for _ in range(random.integers(2, 8)):
        y = BLOCKS[random.integers(len(BLOCKS))](net, random, x)
        if y.batch * y.channels * y.height * y.width <= _MOST_ELEMENTS:
            earlier.append(x := y)
    heads = {int(n) for n in random.integers(0, len(HEADS), random.integers(1, 3))}
    net.output(*(HEADS[n](net, random, x) for n in sorted(heads)))
    if len(earlier) > 2 and random.integers(2) and earlier[1].name not in ("image", *net.outputs):
        net.output(earlier[1].name)
    return net


def differences(net: Net, folder: Path, target: str = "native", threads: int = 1, samples: int = 2) -> list[str]:
    """What the library computes otherwise than ONNX Runtime, in words."""
    compiled = compile_net(net, folder, target, threads=threads)
    return [
        f"sample {seed}: {comparison}"
        for seed in range(samples)
        for comparison in compiled.comparisons(compiled.sample(seed), FLOAT_TOLERANCE, threads)
        if not comparison.ok
    ]


def quantized_differences(net: Net, folder: Path, target: str = "native") -> list[str]:
    """The same of its int8 form, which ONNX Runtime's tool makes.

    ONNX Runtime computes that form in two ways, with its optimizations on integers and without, which may be as far
    apart as either is from the float model: a step at a tie goes on through all later layers. The library has to be
    nearer to one of them than half of what lies between that and the float model.
    """
    import onnxruntime
    from qdq import SAMPLES, quantize

    from nncc.frontend.onnx import import_onnx
    from nncc.verify import reference, sample_inputs

    folder.mkdir(parents=True, exist_ok=True)
    plain = net.save(folder / "float.onnx")
    model = import_onnx(plain)
    quantize(plain, [sample_inputs(model, seed) for seed in range(SAMPLES)], folder / "int8.onnx")
    compiled = compile_net(folder / "int8.onnx", folder, target)
    inputs = compiled.sample(SAMPLES)
    exact, found = reference(plain, inputs), compiled.run(inputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    optimized = dict(zip(names, session.run(names, inputs), strict=True))
    said = []
    for name, array in reference(folder / "int8.onnx", inputs).items():
        apart, lost = min(
            (_distance(found[name], form), _distance(exact[name], form)) for form in (array, optimized[name])
        )
        if not apart <= max(0.5 * lost, 1e-4 * float(np.abs(array).max())):
            said.append(f"`{name}`: {apart:.3g} from ONNX Runtime, which is {lost:.3g} from the float model")
    return said


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The root of the mean squared difference."""
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first network; the next has the next one")
    parser.add_argument("--target", action="append", help="repeatable; default: native, x86-64-v3, int8 in turn")
    parser.add_argument("--output", type=Path, default=Path("network-findings"), help="where findings are written")
    options = parser.parse_args()
    targets = options.target or ["native", "x86-64-v3", "int8"]
    end, seed, found = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < end:
        target = targets[(seed - options.seed) % len(targets)]
        with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
            try:
                if target == "int8":
                    wrong = quantized_differences(network(seed), Path(scratch))
                else:
                    wrong = differences(network(seed), Path(scratch), target, 1 + seed % 2)
            except Exception:  # whatever it is, it is a finding
                wrong = [traceback.format_exc()[-1500:]]
        if wrong:
            found += 1
            options.output.mkdir(parents=True, exist_ok=True)
            network(seed).save(options.output / f"{seed}-{target}.onnx")
            (options.output / f"{seed}-{target}.txt").write_text("\n".join(wrong))
            print(f"seed {seed}, {target}: {wrong[0]}", flush=True)
        seed += 1
    print(f"{seed - options.seed} networks, {found} findings in {options.output}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main())
