"""Pictures as strangers make them: bombs, profiles, odd modes, animations. Each is decoded rightly or has a name."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from drawn import encoded, gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from ssd1b.corpus.pictures import Picture, decode
from ssd1b.corpus.profiles import LARGEST
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.sizes import Size

LIMIT = 4_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = (
    SRGB.replace(b"rXYZ", b"~~~~", 1)
    .replace(b"bXYZ", b"rXYZ", 1)
    .replace(b"~~~~", b"bXYZ", 1)
    .replace("sRGB".encode("utf-16-be"), "odd1".encode("utf-16-be"))
)
"""sRGB with its red and blue primaries exchanged, under another name."""


def good(data: bytes, at_least: Size | None = None) -> Picture:
    picture = decode(data, max_pixels=LIMIT, at_least=at_least)
    assert isinstance(picture, Picture), picture
    assert picture.image.mode == "RGB"
    return picture


def bad(data: bytes) -> Reject:
    found = decode(data, max_pixels=LIMIT)
    assert isinstance(found, Reject), found
    return found


def pixel(data: bytes, x: int = 0, y: int = 0) -> Any:
    return good(data).image.getpixel((x, y))


def near(one: tuple[int, ...], other: tuple[int, ...], within: int = 6) -> bool:
    return all(abs(a - b) <= within for a, b in zip(one, other, strict=True))


def cmyk_profile() -> bytes:
    """An ICC 2.4 profile of a press whose cyan ink prints red, whose magenta and yellow print nothing, as one table.

    ICC.1:2001-04, 6.5.8 (lut8Type): two grid points for each of four inks, to CIELAB.
    """
    paper, red, black = (255, 128, 128), (136, 209, 195), (0, 128, 128)  # L* 53, a* 80, b* 67: sRGB's red
    cmyk = ((index & 8, index & 1) for index in range(16))
    colours = bytes(value for c, k in cmyk for value in (black if k else red if c else paper))
    lut = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut += bytes(range(256)) * 4 + colours + bytes(range(256)) * 3
    text = b"odd press"
    description = struct.pack(">4s4xI", b"desc", len(text) + 1) + text + bytes(1 + 4 + 4 + 2 + 1 + 67)
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white, b"A2B0": lut}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s4x", start + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp"
    )
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_that_claims(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(3 * width + 1))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(3000, 3000), (10_000, 10_000), (60_000, 60_000)])
def test_a_size_bomb_is_named_before_it_is_decoded(width: int, height: int) -> None:
    """Below, within and above Pillow's own warning; decoding would take up to 10 GB."""
    assert bad(png_that_claims(width, height)).reason is Reason.IMAGE_TOO_LARGE


def test_a_metadata_bomb_is_no_picture() -> None:
    data = encoded(gradient(64, 64), icc_profile=bytes(80 << 20))
    assert len(data) < 200_000
    assert bad(data).reason is Reason.IMAGE_CORRUPT


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "ICO"])
def test_only_formats_of_photographs_are_opened(kind: str) -> None:
    """EPS is a program, and Pillow would start Ghostscript on it."""
    data = encoded(gradient(64, 64), kind)
    Image.open(io.BytesIO(data))
    assert bad(data).reason is Reason.IMAGE_CORRUPT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
@pytest.mark.parametrize("left", [0.3, 0.7, 0.95])
def test_a_cut_picture_is_corrupt_at_any_scale(kind: str, left: float) -> None:
    noise = Image.effect_noise((256, 256), 80).convert("RGB")
    data = encoded(noise, kind)
    good(data)
    for at_least in (None, Size(8, 8)):
        found = decode(data[: int(len(data) * left)], max_pixels=LIMIT, at_least=at_least)
        assert isinstance(found, Reject)
        assert found.reason is Reason.IMAGE_CORRUPT


def test_a_profile_decides_what_a_colour_is() -> None:
    swapped = encoded(Image.new("RGB", (16, 16), (255, 0, 0)), icc_profile=SWAPPED)
    assert near(pixel(swapped), (0, 0, 255))
    plain = encoded(Image.new("RGB", (16, 16), (255, 0, 0)), icc_profile=SRGB)
    assert pixel(plain) == (255, 0, 0)


def test_a_profile_leaves_transparency_alone() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    image.putpixel((0, 0), (255, 0, 0, 0))
    data = encoded(image, icc_profile=SWAPPED)
    assert pixel(data) == (255, 255, 255)
    assert near(pixel(data, 4, 4), (0, 0, 255))
    keyed = Image.new("RGB", (8, 8), (255, 0, 0))
    keyed.putpixel((0, 0), (0, 255, 0))
    data = encoded(keyed, icc_profile=SWAPPED, transparency=(0, 255, 0))
    assert pixel(data) == (255, 255, 255)
    assert near(pixel(data, 4, 4), (0, 0, 255))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_by_its_profile_and_without_one_by_the_common_inks(kind: str) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert near(pixel(encoded(cyan, kind)), (0, 255, 255), within=8)
    assert near(pixel(encoded(cyan, kind, icc_profile=cmyk_profile())), (255, 0, 0), within=12)


@pytest.mark.parametrize("profile", [b"junk", SRGB[:200], cmyk_profile(), b"\0" * (LARGEST + 1)])
def test_a_profile_that_cannot_be_used_counts_as_none(profile: bytes) -> None:
    red = pixel(encoded(Image.new("RGB", (16, 16), (255, 0, 0)), "JPEG", icc_profile=profile))
    assert near(red, (255, 0, 0), within=3)


@pytest.mark.parametrize("turn", range(1, 9))
def test_each_exif_turn_is_undone_in_draft_too(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = gradient(400, 240)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(stored, "JPEG", quality=95, exif=exif))))
    for at_least in (None, Size(60, 60), Size(60, 30), Size(30, 60)):
        picture = good(encoded(stored, "JPEG", quality=95, exif=exif), at_least)
        assert (picture.original.width, picture.original.height) == expected.size
        shrunk = expected.resize(picture.image.size)
        assert np.abs(np.asarray(shrunk, int) - np.asarray(picture.image, int)).mean() < 3
        if at_least:
            assert picture.image.height >= at_least.height
            assert picture.image.width >= at_least.width


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif", [b"junk", b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff"]
)
def test_a_broken_exif_leaves_the_picture_as_it_lies(exif: bytes) -> None:
    assert good(encoded(gradient(40, 20), "JPEG", exif=exif)).original == Size(height=20, width=40)


def sixteen_bit_rgb() -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""
    row = b"\0" + struct.pack(">6H", 65535, 32768, 256, 0, 0, 65535)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def test_sixteen_bits_a_channel_become_eight() -> None:
    assert pixel(sixteen_bit_rgb()) == (255, 128, 1)
    assert pixel(sixteen_bit_rgb(), 1) == (0, 0, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_of_any_file(kind: str) -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8040, np.uint16))
    assert pixel(encoded(grey, kind)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (8, 8), 90), (90, 90, 90)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("LA", (8, 8), (90, 0)), (255, 255, 255)),
        (Image.new("LA", (8, 8), (90, 255)), (90, 90, 90)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), (127, 127, 127)),
        (Image.new("RGB", (8, 8), (9, 8, 7)).quantize(4), (9, 8, 7)),
    ],
    ids=["grey", "one bit", "grey clear", "grey opaque", "half clear", "palette"],
)
def test_odd_modes_become_rgb_on_white(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert near(pixel(encoded(image)), expected, within=1)


def test_a_palette_with_an_alpha_of_its_own() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30, 0, 0, 255] + [0] * 759)
    image.putpixel((0, 0), 0)
    image.putpixel((1, 0), 2)
    data = encoded(image, transparency=bytes([0, 255, 128]))
    assert pixel(data) == (255, 255, 255)
    assert near(pixel(data, 1, 0), (127, 127, 255), within=1)
    assert pixel(data, 2, 2) == (10, 200, 30)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_says_that_it_is_one(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    moving = good(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert moving.animated
    assert near(moving.image.getpixel((3, 3)), (255, 0, 0), within=20)
    assert not good(encoded(frames[0], kind)).animated


def test_pages_are_no_animation() -> None:
    pages = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime")]
    picture = good(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert not picture.animated
    assert picture.image.getpixel((3, 3)) == (255, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), down=st.integers(1, 300), across=st.integers(1, 300),
    progressive=st.booleans(),
)  # fmt: skip
def test_draft_mode_never_goes_below_what_is_asked(
    width: int, height: int, down: int, across: int, progressive: bool
) -> None:
    data = encoded(Image.new("RGB", (width, height), "teal"), "JPEG", progressive=progressive)
    picture = good(data, Size(height=down, width=across))
    assert picture.original == Size(height=height, width=width)
    assert picture.image.height >= min(down, height)
    assert picture.image.width >= min(across, width)
