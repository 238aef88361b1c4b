"""Variations of samples, which need no labels since the teacher sees the same: what it answers is right by definition.

Mixup: Zhang, Cisse, Dauphin and Lopez-Paz (2018); for distillation, Beyer et al., "Knowledge distillation: A good
teacher is patient and consistent" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nncc.errors import UsageError, did_you_mean

__all__ = ["AUGMENTATIONS", "augmented", "check_augmentations"]


def _image_axes(shape: Sequence[int]) -> tuple[int, int] | None:
    """Height and width of a batch of images: behind 1 or 3 channels, or before them."""
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3):
        return 2, 3
    return (1, 2) if shape[3] in (1, 3) else None


def _flip(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    axes = _image_axes(x.shape)
    assert axes is not None
    chosen = random.random(len(x)) < 0.5
    x = x.copy()
    x[chosen] = np.flip(x[chosen], axes[1])
    return x


def _shift(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    axes = _image_axes(x.shape)
    assert axes is not None
    most = [max(1, x.shape[axis] // 10) for axis in axes]
    pads = [(0, 0)] * 4
    for axis, size in zip(axes, most, strict=True):
        pads[axis] = (size, size)
    wide = np.pad(x, pads, mode="edge")
    found = np.empty_like(x)
    for at in range(len(x)):
        cut = [slice(None)] * 3
        for axis, size in zip(axes, most, strict=True):
            start = int(random.integers(0, 2 * size + 1))
            cut[axis - 1] = slice(start, start + x.shape[axis])
        found[at] = wide[at][tuple(cut)]
    return found


def _longest_axis(shape: Sequence[int]) -> int:
    """The axis, behind that of the samples, along which a signal runs."""
    return 1 + int(np.argmax(shape[1:]))


def _cut(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Up to three times, by chance, a stretch of 10 to 80 % of the longest axis comes from another sample of the batch,
    from the same place."""
    axis = _longest_axis(x.shape)
    size, along = x.shape[axis], [len(x)] + [1] * (x.ndim - 1)
    place = np.arange(size).reshape([-1 if at == axis else 1 for at in range(x.ndim)])
    for _ in range(3):
        length = (random.uniform(0.1, 0.8, along) * size).astype(int) * (random.random(along) < 0.5)
        start = (random.random(along) * (size - length + 1)).astype(int)
        x = np.where((place >= start) & (place < start + length), x[random.permutation(len(x))], x)
    return x


def _warp(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The longest axis is stretched or compressed by up to a quarter, and moved by up to an eighth, linearly between
    neighbours; the ends go on."""
    axis = _longest_axis(x.shape)
    size, along = x.shape[axis], [len(x)] + [1] * (x.ndim - 1)
    middle = (size - 1) / 2
    moved = middle * (1 + random.uniform(-0.25, 0.25, along))
    place = np.arange(size).reshape([-1 if at == axis else 1 for at in range(x.ndim)]) - middle
    source = np.clip(moved + place * np.exp(random.uniform(-0.25, 0.25, along)), 0, size - 1)
    left = np.minimum(source.astype(int), max(0, size - 2))
    part = source - left
    near, far = (np.take_along_axis(x, np.minimum(at, size - 1), axis) for at in (left, left + 1))
    return (1 - part) * near + part * far


def _level(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Times 0.74 to 1.35; and to each row along the longest axis, one number is added, up to half of how much the means
    of such rows deviate in the batch."""
    along = [len(x)] + [1] * (x.ndim - 1)
    means = x.mean(_longest_axis(x.shape), keepdims=True)
    number = random.uniform(0, 0.5, along) * random.standard_normal(means.shape) * means.std(0)
    return (x + number) * np.exp(random.uniform(-0.3, 0.3, along))


def _spread(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise with the covariance of the batch, up to half of its deviation: parts of how other samples differ from the
    mean."""
    apart = (x - x.mean(0)).reshape(len(x), -1)
    parts = random.uniform(0, 0.5, (len(x), 1)) * random.standard_normal((len(x), len(x))) / np.sqrt(len(x))
    return x + (parts.astype(x.dtype) @ apart).reshape(x.shape)


def _mixup(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    part = random.beta(1.0, 1.0, len(x)).reshape([-1] + [1] * (x.ndim - 1)).astype(x.dtype)
    return part * x + (1 - part) * x[random.permutation(len(x))]


def _noise(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Up to a tenth of the batch's own deviation."""
    size = random.uniform(0, 0.1, len(x)).reshape([-1] + [1] * (x.ndim - 1)) * x.std()
    return x + (size * random.standard_normal(x.shape)).astype(x.dtype)


AUGMENTATIONS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "flip": _flip,
    "shift": _shift,
    "cut": _cut,
    "warp": _warp,
    "level": _level,
    "spread": _spread,
    "mixup": _mixup,
    "noise": _noise,
}
"""A function of a batch of floats; flip and shift of images only. Each is applied to every batch, in this order."""


def check_augmentations(names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> None:
    """Raise UsageError for an unknown word, or one that does not apply to these inputs of one sample."""
    for name in names:
        if name not in AUGMENTATIONS:
            hint = did_you_mean(name, AUGMENTATIONS) or f"there is {', '.join(AUGMENTATIONS)}"
            raise UsageError(f"samples cannot be varied by `{name}`", hint)
    if not names:
        return
    if len(inputs) != 1 or next(iter(inputs.values())).dtype.kind != "f":
        raise UsageError(f"`--augment {','.join(names)}` wants a model with a single input, of floats")
    images = [name for name in names if name in ("flip", "shift")]
    shape = next(iter(inputs.values())).shape
    if images and _image_axes(shape) is None:
        raise UsageError(
            f"`--augment {images[0]}` is for images of 1 or 3 channels; the input is {'x'.join(map(str, shape))}"
        )


def augmented(
    feeds: Mapping[str, np.ndarray], names: Sequence[str], random: np.random.Generator
) -> dict[str, np.ndarray]:
    """A batch, varied."""
    found = dict(feeds)
    for name, vary in AUGMENTATIONS.items():
        if name in names:
            found = {key: vary(array, random).astype(array.dtype) for key, array in found.items()}
    return found
