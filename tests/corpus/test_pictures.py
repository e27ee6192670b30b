"""Pictures of any origin become RGB on white, or the name of what is wrong."""

import numpy as np
import pytest
from drawn import encoded, gradient, png
from PIL import Image

from ssd1b.corpus.pictures import Picture, decode
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.sizes import Size

LIMIT = 1_000_000


def good(data: bytes, at_least: Size | None = None) -> Picture:
    picture = decode(data, max_pixels=LIMIT, at_least=at_least)
    assert isinstance(picture, Picture), picture
    assert picture.image.mode == "RGB"
    return picture


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.IMAGE_CORRUPT),
        (b"not a picture at all", Reason.IMAGE_CORRUPT),
        (png()[: len(png()) // 2], Reason.IMAGE_CORRUPT),
        (encoded(gradient(256, 256), "JPEG")[:1500], Reason.IMAGE_CORRUPT),
        (encoded(Image.new("1", (2000, 2000))), Reason.IMAGE_TOO_LARGE),
        (encoded(Image.new("1", (20_000, 20_000))), Reason.IMAGE_TOO_LARGE),
        (encoded(Image.new("F", (16, 16)), "TIFF"), Reason.IMAGE_MODE_UNKNOWN),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "large", "bomb", "float"],
)
def test_what_is_no_picture_is_named(data: bytes, reason: Reason) -> None:
    found = decode(data, max_pixels=LIMIT)
    assert isinstance(found, Reject)
    assert found.reason is reason


def test_transparent_parts_become_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((3, 3), (0, 0, 255, 255))
    picture = good(encoded(image)).image
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((3, 3)) == (0, 0, 255)


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    image.putpixel((0, 0), 0)
    picture = good(encoded(image, transparency=0)).image
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((4, 4)) == (10, 200, 30)


def test_sixteen_bits_keep_their_greys() -> None:
    ramp = np.linspace(0, 65535, 16).astype(np.uint16)[None].repeat(4, axis=0)
    picture = np.asarray(good(encoded(Image.fromarray(ramp))).image)
    assert picture[0, :, 0].tolist() == [int(value) >> 8 for value in ramp[0]]


def test_cmyk_becomes_rgb() -> None:
    red = good(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")).image.getpixel((8, 8))
    assert isinstance(red, tuple)
    assert red[0] > 200
    assert max(red[1:]) < 60


def test_exif_rotation_is_undone_and_swaps_the_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = good(encoded(gradient(40, 20), "JPEG", exif=exif))
    assert picture.original == Size(height=40, width=20)
    assert picture.image.size == (20, 40)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert good(data).image.getpixel((0, 0)) == (255, 0, 0)


def test_a_jpeg_is_decoded_small_but_never_below_what_is_asked() -> None:
    picture = good(encoded(gradient(800, 400), "JPEG"), at_least=Size(128, 128))
    assert picture.original == Size(height=400, width=800)
    assert 128 <= picture.image.height < 400
