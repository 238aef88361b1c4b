"""Images as samples: pixels to numbers, layouts, sizes, and what is said without Pillow."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nncc.errors import DataError, ToolError
from nncc.quant.images import Preprocessing
from nncc.quant.samples import InputSpec, read_samples

NCHW = InputSpec("x", "float32", (1, 3, 2, 4))
HINT = "`--image-layout` and `--image-size` say how images lie in an input; .npz files serve for everything else"


@pytest.fixture
def image(tmp_path, monkeypatch):
    """A picture of 2x4 pixels, and its pixels: rows, columns, red green blue."""
    library = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'nncc[images]'")
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    library.fromarray(pixels).save("i.png")
    return pixels


def read(spec, **how):
    return read_samples("i.png", (spec,), Preprocessing(**how))[0]["x"]


def test_pixels_are_normalized_and_laid_out(image):
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 2.0)
    expected = (image / np.float32(255) - np.float32(mean)) / np.float32(std)
    assert np.allclose(read(NCHW, mean=mean, std=std), expected.transpose(2, 0, 1)[None], atol=1e-6)
    nhwc = InputSpec("x", "float32", ("N", 2, 4, 3), batched=True)
    assert np.allclose(read(nhwc, mean=mean, std=std), expected[None], atol=1e-6)
    assert np.array_equal(read(InputSpec("x", "uint8", (1, 2, 4, 3)), bgr=True), image[None, ..., ::-1])
    assert read(InputSpec("x", "float32", (1, 1, 2, 4))).shape == (1, 1, 2, 4)


def test_images_are_scaled_to_cover_the_size_and_cut(image):
    open_sides = InputSpec("x", "uint8", ("N", "h", "w", 3), batched=True)
    assert read(open_sides).shape == (1, 2, 4, 3)
    assert read(open_sides, size=(6, 5)).shape == (1, 6, 5, 3)
    cut = read(InputSpec("x", "uint8", (1, 2, 2, 3)))
    assert np.array_equal(cut[0], image[:, 1:3])


@pytest.mark.parametrize(
    ("spec", "how", "message", "hint"),
    [
        (
            InputSpec("x", "float32", (1, 40)),
            {},
            "`i.png` is an image; the input is 1x40, where nothing says how images lie in it",
            HINT,
        ),
        (
            InputSpec("x", "float32", (1, 8, 2, 4)),
            {"layout": "nchw"},
            "`i.png` is an image; the input is 1x8x2x4, as nchw of 8 channels",
            HINT,
        ),
        (InputSpec("x", "int64", (1, 3, 2, 4)), {}, "`i.png` is an image; the input is int64", HINT),
        (NCHW, {"size": (8, 8)}, "images of 8x8 do not fit the input, which is 1x3x2x4", HINT),
        (
            InputSpec("x", "float32", (1, 3, 48, "W")),
            {},
            "`i.png` is an image; the input is 1x3x48xW, which leaves a side open",
            "give `--image-size`",
        ),
        (
            NCHW,
            {"mean": (0.5, 0.5)},
            "2 numbers for the mean of images; the input has 3 channels",
            "give one, or 3, to `--image-mean`",
        ),
    ],
)
def test_errors_name_the_image_and_the_input(image, spec, how, message, hint):
    with pytest.raises(DataError) as caught:
        read(spec, **how)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_what_is_no_image_is_an_error(image, tmp_path):
    (tmp_path / "i.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        read(NCHW)
    assert caught.value.message.startswith("`i.png` cannot be read as an image: cannot identify image file")
    assert caught.value.hint == "leave it out, or convert it to .png"


def test_a_model_of_two_inputs_takes_no_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_samples("i.png", (NCHW, NCHW))
    assert caught.value.message == "`i.png` is an image; the model has 2 inputs: `x`, `x`"
    assert caught.value.hint == "give .npz files instead"


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ToolError) as caught:
        read(NCHW)
    assert caught.value.message == "`i.png` is an image, and Pillow is not installed"
    assert caught.value.hint == "`pip install 'nncc[images]'`"
