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


def read_image(file: Path, shape: Sequence[int | str], dtype: str, how: Preprocessing) -> np.ndarray:
    """An image file as one sample of batch 1 for an input of `shape`.

    It is scaled (bilinear) until it covers the input's height and width, and the middle is cut out; without either
    size it stays as it is. Raises DataError where the input is no image's or the file cannot be read, ToolError
    without Pillow.
    """
    import numpy as np

    layout, channels, size = _arrangement(file, shape, how)
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ToolError(f"`{file}` is an image, and Pillow is not installed", "`pip install 'nncc[images]'`") from error
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"`{file}` cannot be read as an image: {error}", "leave it out, or convert it to .png") from error
    if size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    if how.bgr:
        pixels = pixels[..., ::-1]
    if not dtype.startswith("float"):
        if dtype != "uint8":
            raise DataError(f"`{file}` is an image; the input is {dtype}", "give .npz files instead")
        values = pixels
    else:
        for name, given in (("mean", how.mean), ("std", how.std)):
            if len(given) not in (1, channels):
                raise DataError(f"{len(given)} numbers for the {name} of images; the input has {channels} channels")
        values = ((pixels / np.float32(255) - np.float32(how.mean)) / np.float32(how.std)).astype(dtype)
    values = values.transpose(2, 0, 1) if layout == "nchw" else values
    return np.ascontiguousarray(values)[np.newaxis]


def _arrangement(
    file: Path, shape: Sequence[int | str], how: Preprocessing
) -> tuple[Layout, int, tuple[int, int] | None]:
    """Layout, channels, and height and width where known, of an input for images."""
    text = "x".join(map(str, shape)) or "a scalar"
    found: Layout = how.layout
    if len(shape) == 4 and not found:
        found = "nchw" if shape[1] in (1, 3) else "nhwc" if shape[3] in (1, 3) else ""
    channels = 0
    if len(shape) == 4 and found:
        channel, height, width = (1, 2, 3) if found == "nchw" else (3, 1, 2)
        channels = shape[channel] if isinstance(shape[channel], int) else 3  # type: ignore[assignment]
    if channels not in (1, 3):
        what = f" as {how.layout}" if how.layout else ""
        raise DataError(f"`{file}` is an image; the input is {text}, not one image of 1 or 3 channels{what}", _HINT)
    sizes = shape[height], shape[width]
    if all(isinstance(size, int) for size in sizes):
        if how.size is not None and how.size != sizes:
            raise DataError(f"images of {how.size[0]}x{how.size[1]} do not fit the input, which is {text}", _HINT)
        return found, channels, sizes  # type: ignore[return-value]
    if any(isinstance(size, int) and how.size is not None and size != n for size, n in zip(sizes, how.size or ())):
        raise DataError(f"images of {how.size[0]}x{how.size[1]} do not fit the input, which is {text}", _HINT)  # type: ignore[index]
    if how.size is None and any(isinstance(size, int) for size in sizes):
        raise DataError(f"`{file}`: the input is {text}, and so images of any size do not fit it", "give `--image-size`")
    return found, channels, how.size


_HINT = "`--image-layout` and `--image-size` say how images lie in it; .npz files serve for everything else"
