"""Pictures become the pixels of their bucket: Pillow's own Lanczos, with the crop where it was."""

import numpy as np
import pytest
from drawn import encoded, gradient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssd1b.corpus.pixels import fit, read_pixels
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.sizes import Size

LIMIT = 1_000_000
SIDES = st.integers(16, 200)


def noisy(height: int, width: int) -> Image.Image:
    grain_HWC = np.random.default_rng(0).integers(-60, 60, (height, width, 3))
    return Image.fromarray((np.asarray(gradient(width, height)) + grain_HWC).clip(0, 255).astype(np.uint8))


def pillows(image: Image.Image, bucket: Size) -> np.ndarray:
    """The picture covering its bucket, cut at the centre, by Pillow: across and then down.

    Left to itself, Pillow 13 shrinks a picture over twice as high as wide down first; clipping to bytes in between
    then lets strong grain differ by up to 20 of 255 from every other picture's treatment.
    """
    scale = max(bucket.height / image.height, bucket.width / image.width)
    height, width = max(bucket.height, round(image.height * scale)), max(bucket.width, round(image.width * scale))
    across = image.resize((width, image.height), Image.Resampling.LANCZOS)
    resized_HWC = np.asarray(across.resize((width, height), Image.Resampling.LANCZOS))
    top, left = (height - bucket.height) // 2, (width - bucket.width) // 2
    return resized_HWC[top : top + bucket.height, left : left + bucket.width]


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, bucket=st.builds(Size, SIDES, SIDES))
@example(height=69, width=31, bucket=Size(16, 16))
@example(height=41, width=18, bucket=Size(16, 16))
def test_pixels_are_pillows_lanczos_and_crop(height: int, width: int, bucket: Size) -> None:
    image = noisy(height, width)
    found = fit(image, bucket)
    assert found.pixels_HWC.shape == (bucket.height, bucket.width, 3)
    assert found.pixels_HWC.flags.c_contiguous
    apart = np.abs(found.pixels_HWC.astype(int) - pillows(image, bucket).astype(int))
    assert apart.max() <= 3
    assert apart.mean() < 0.05


def test_the_crop_is_central_and_counts_in_resized_pixels() -> None:
    found = fit(gradient(300, 150), Size(height=100, width=100))
    assert (found.top, found.left) == (0, 50)


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
