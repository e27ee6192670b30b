"""Pictures become the pixels of their bucket: Pillow's own Lanczos, with the crop where it was."""

import numpy as np
import pytest
from drawn import encoded, gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssd1b.corpus.pictures import cover_and_crop
from ssd1b.corpus.pixels import fit, read_pixels
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.sizes import Size

LIMIT = 1_000_000
SIDES = st.integers(16, 200)


def noisy(height: int, width: int) -> Image.Image:
    grain_HWC = np.random.default_rng(0).integers(-60, 60, (height, width, 3))
    return Image.fromarray((np.asarray(gradient(width, height)) + grain_HWC).clip(0, 255).astype(np.uint8))


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, bucket=st.builds(Size, SIDES, SIDES))
def test_pixels_are_pillows_lanczos_and_crop(height: int, width: int, bucket: Size) -> None:
    image = noisy(height, width)
    found, expected = fit(image, bucket), cover_and_crop(image, bucket)
    assert (found.top, found.left) == (expected.top, expected.left)
    assert found.pixels_HWC.shape == (bucket.height, bucket.width, 3)
    assert found.pixels_HWC.flags.c_contiguous
    apart = np.abs(found.pixels_HWC.astype(int) - np.asarray(expected.image).astype(int))
    assert apart.max() <= 3
    assert apart.mean() < 0.05


def test_a_picture_of_the_buckets_size_keeps_its_bits() -> None:
    image = noisy(96, 64)
    np.testing.assert_array_equal(fit(image, Size(96, 64)).pixels_HWC, np.asarray(image))


def test_a_large_jpeg_is_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(gradient(512, 512), "JPEG")
    decoded: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "ssd1b.corpus.pixels.fit", lambda image, bucket: decoded.append(image.size) or fit(image, bucket)
    )
    found = read_pixels(data, Size(100, 120), max_pixels=LIMIT)
    assert decoded == [(128, 128)]
    assert not isinstance(found, Reject)
    assert found.pixels_HWC.shape == (100, 120, 3)


def test_what_is_no_picture_is_named() -> None:
    found = read_pixels(b"junk", Size(64, 64), max_pixels=LIMIT)
    assert isinstance(found, Reject)
    assert found.reason is Reason.IMAGE_CORRUPT
