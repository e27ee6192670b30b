"""Pictures to start from: scaled, cropped about the centre, turned upright; what cannot be read is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from serve import fitting
from serve.errors import RequestError
from serve.fitting import fitted, fitted_mask, nearest_size
from ssd1b.sizes import SDXL_BUCKETS, Size

SQUARE = Size(64, 64)


def file_of(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def thirds(width: int, height: int) -> Image.Image:
    """Red, green and blue beside each other."""
    picture = Image.new("RGB", (width, height))
    for i, colour in enumerate(("red", "lime", "blue")):
        picture.paste(colour, (i * width // 3, 0, (i + 1) * width // 3, height))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_middle_is_kept(kind: str) -> None:
    pixels_3HW = fitted(file_of(thirds(300, 100), kind), SQUARE)
    assert (pixels_3HW.shape, pixels_3HW.dtype) == ((3, 64, 64), np.float32)
    red, green, blue = pixels_3HW[:, 10:54, 10:54].mean((1, 2))
    assert green > 0.9 > -0.9 > max(red, blue)
    assert -1 <= pixels_3HW.min() <= pixels_3HW.max() <= 1


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels_3HW = fitted(file_of(Image.fromarray(levels)), SQUARE)
    assert np.array_equal(np.round((pixels_3HW + 1) * 127.5), levels.transpose(2, 0, 1))


def test_transparent_is_white_and_grey_and_palette_are_read() -> None:
    assert fitted(file_of(Image.new("RGBA", (64, 64), (0, 0, 0, 0))), SQUARE).min() == 1
    assert np.allclose(fitted(file_of(Image.new("L", (64, 64), 255)), SQUARE), 1)
    assert fitted(file_of(thirds(64, 64).convert("P")), SQUARE).shape == (3, 64, 64)


def test_a_camera_held_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    data = file_of(thirds(90, 60), "JPEG", exif=exif.tobytes())
    assert nearest_size(data, (Size(90, 60), Size(60, 90))) == Size(90, 60)
    pixels_3HW = fitted(data, Size(96, 64))
    assert pixels_3HW[0, :20].mean() > 0.8  # red is at the top
    assert pixels_3HW[2, -20:].mean() > 0.8


def test_a_mask_is_one_value_a_latent_position() -> None:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    mask_1hw = fitted_mask(file_of(mask), SQUARE)
    assert mask_1hw.shape == (1, 8, 8)
    assert np.array_equal(mask_1hw[0], np.repeat([[0.0] * 4 + [1.0] * 4], 8, 0))


def test_the_shape_decides_the_size() -> None:
    assert nearest_size(file_of(Image.new("RGB", (300, 200))), SDXL_BUCKETS) == Size.parse("1216x832")
    assert nearest_size(file_of(Image.new("RGB", (20, 20))), SDXL_BUCKETS) == Size.parse("1024x1024")


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", file_of(thirds(99, 99))[:200], b"GIF89a..."]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    for read in (lambda: fitted(data, SQUARE), lambda: nearest_size(data, (SQUARE,))):
        with pytest.raises(RequestError, match="image cannot be read as a picture") as info:
            read()
        assert (info.value.status, info.value.param) == (400, "image")
    with pytest.raises(RequestError, match="mask cannot be read"):
        fitted_mask(data, SQUARE)


def test_a_small_file_of_too_many_pixels_is_refused_before_it_unfolds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "PIXELS", 1000)
    with pytest.raises(RequestError, match="99x99 pixels; at most 1,000"):
        fitted(file_of(Image.new("RGB", (99, 99))), SQUARE)
