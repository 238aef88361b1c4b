"""Images as inputs of a model: resized, normalized and laid out. Needs Pillow, the extra ``nncc[images]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nncc.errors import DataError, ToolError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["IMAGE_SUFFIXES", "Layout", "Preprocessing", "read_image"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

Layout = Literal["", "nchw", "nhwc"]


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of an image: ``(pixels / 255 - mean) / std``; integer inputs get the pixels as they are."""

    size: tuple[int, int] | None = None
    """Height and width in pixels, where the model leaves them open; scaled to cover it, the middle cut out."""
    mean: tuple[float, ...] = (0.0,)
    """Of each channel, or one for all, where white is 1."""
    std: tuple[float, ...] = (1.0,)
    """Of each channel, or one for all, where white is 1."""
    layout: Layout = ""
    """nchw | nhwc; by default the one in which the input has 1 or 3 channels."""
    bgr: bool = False
    """Whether blue comes first."""


@dataclass(frozen=True)
class _Place:
    """How an image lies in an input."""

    layout: Layout
    channels: int
    size: tuple[int, int] | None
    """Height and width; None where any will do."""


def read_image(file: Path, shape: Sequence[int | str], dtype: str, how: Preprocessing) -> np.ndarray:
    """An image file as one sample of batch 1 for an input of `shape`.

    It is scaled (bilinear) until it covers the input's height and width, and the middle is cut out; without either
    size it stays as it is. Raises DataError where the input is no image's or the file cannot be read, ToolError
    without Pillow.
    """
    import numpy as np

    place = _place(file, shape, how)
    if dtype not in ("float32", "float16", "uint8"):
        raise DataError(f"`{file}` is an image; the input is {dtype}", _HINT)
    for name, given in (("mean", how.mean), ("std", how.std)):
        if len(given) not in (1, place.channels):
            what = f"{len(given)} numbers for the {name} of images; the input has {place.channels} channels"
            raise DataError(what, f"give one, or {place.channels}, to `--image-{name}`")
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ToolError(f"`{file}` is an image, and Pillow is not installed", "`pip install 'nncc[images]'`") from error
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("L" if place.channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"`{file}` cannot be read as an image: {text}", "leave it out, or convert it to .png"
        ) from error
    if place.size is not None:
        image = ImageOps.fit(image, (place.size[1], place.size[0]), Image.Resampling.BILINEAR)
    values = np.asarray(image).reshape(image.height, image.width, place.channels)
    values = values[..., ::-1] if how.bgr else values
    if dtype != "uint8":
        mean, std = (np.asarray(each, np.float32) for each in (how.mean, how.std))
        values = ((values / np.float32(255) - mean) / std).astype(dtype)
    values = values.transpose(2, 0, 1) if place.layout == "nchw" else values
    return np.ascontiguousarray(values)[np.newaxis]


def _place(file: Path, shape: Sequence[int | str], how: Preprocessing) -> _Place:
    text = "x".join(map(str, shape)) or "a scalar"
    layout = how.layout
    if len(shape) == 4 and not layout:
        layout = "nchw" if shape[1] in (1, 3) else "nhwc" if shape[3] in (1, 3) else ""
    if len(shape) != 4 or not layout:
        raise DataError(f"`{file}` is an image; the input is {text}, where nothing says how images lie in it", _HINT)
    channel, height, width = (shape[1], *shape[2:]) if layout == "nchw" else (shape[3], *shape[1:3])
    channels = channel if isinstance(channel, int) else 3
    if channels not in (1, 3):
        raise DataError(f"`{file}` is an image; the input is {text}, as {layout} of {channels} channels", _HINT)
    if how.size is None:
        if isinstance(height, int) and isinstance(width, int):
            return _Place(layout, channels, (height, width))
        if isinstance(height, int) or isinstance(width, int):
            raise DataError(
                f"`{file}` is an image; the input is {text}, which leaves a side open", "give `--image-size`"
            )
        return _Place(layout, channels, None)
    if any(isinstance(own, int) and own != given for own, given in zip((height, width), how.size, strict=True)):
        raise DataError(f"images of {how.size[0]}x{how.size[1]} do not fit the input, which is {text}", _HINT)
    return _Place(layout, channels, how.size)


_HINT = "`--image-layout` and `--image-size` say how images lie in an input; .npz files serve for everything else"
