"""The invisible watermark: read back, hardly seen, and as the published method defines it."""

import io

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from serve.pictures.watermark import LEAST, marked, message_of

MESSAGE = b"ssd1b!"


def photograph(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with grain."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 32, width // 32, 3), dtype=np.uint8)
    smooth_HW3 = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth_HW3 + random.normal(0, 4, smooth_HW3.shape), 0, 255).astype(np.uint8)


def drawing(paper: int) -> NDArray[np.uint8]:
    picture_HW3 = np.full((512, 512, 3), paper, np.uint8)
    picture_HW3[128:384, 128:384] = (200, 40, 60)
    return picture_HW3


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def as_published(pixels_HW3: NDArray[np.uint8], length: int) -> bytes:
    """Decode slowly, by the definition: OpenCV's rounded U, a Haar transform, block after block."""
    red, green, blue = np.moveaxis(pixels_HW3.astype(float), 2, 0)
    u_HW = np.clip(np.round(0.492 * (blue - (0.299 * red + 0.587 * green + 0.114 * blue)) + 128), 0, 255)
    height, width = (side // 4 * 4 for side in u_HW.shape)
    low, _ = pywt.dwt2(u_HW[:height, :width], "haar")
    votes: list[list[bool]] = [[] for _ in range(8 * length)]
    corners = [(i, j) for i in range(low.shape[0] // 4) for j in range(low.shape[1] // 4)]
    for number, (i, j) in enumerate(corners):
        block = low[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].ravel()
        value = block[1 + np.argmax(np.abs(block[1:]))]
        votes[number % len(votes)].append(abs(value) % 36 > 18)
    return np.packbits([np.mean(bit) > 0.5 for bit in votes]).tobytes()


@pytest.mark.parametrize("size", [(256, 256), (300, 266), (512, 768), (1024, 1024)])
def test_a_photograph_carries_it_unseen(size: tuple[int, int]) -> None:
    before = photograph(*size)
    after = marked(before, MESSAGE)
    assert (after.shape, after.dtype) == (before.shape, np.uint8)
    assert message_of(after, len(MESSAGE)) == MESSAGE
    assert as_published(after, len(MESSAGE)) == MESSAGE
    assert message_of(before, len(MESSAGE)) != MESSAGE
    assert psnr(before, after) > 39


@settings(max_examples=20)
@given(message=st.binary(min_size=1, max_size=16), seed=st.integers(0, 99))
def test_any_message(message: bytes, seed: int) -> None:
    after = marked(photograph(384, 384, seed), message)
    assert message_of(after, len(message)) == message
    assert as_published(after, len(message)) == message


@pytest.mark.parametrize("paper", [0, 128, 255])
def test_drawings_on_plain_paper(paper: int) -> None:
    """Where nothing hides it, it shows more; it is still there."""
    after = marked(drawing(paper), MESSAGE)
    assert message_of(after, len(MESSAGE)) == MESSAGE
    assert psnr(drawing(paper), after) > 30


def test_it_survives_a_good_jpeg() -> None:
    buffer = io.BytesIO()
    Image.fromarray(marked(photograph(512, 512), MESSAGE)).save(buffer, "jpeg", quality=90)
    assert message_of(np.asarray(Image.open(buffer)), len(MESSAGE)) == MESSAGE


def test_the_same_picture_is_marked_the_same() -> None:
    assert (marked(photograph(256, 256), MESSAGE) == marked(photograph(256, 256), MESSAGE)).all()


@pytest.mark.parametrize(
    ("side", "message", "says"), [(LEAST, b"", "has 0"), (LEAST, b"x" * 17, "has 17"), (248, b"x", "256")]
)
def test_what_cannot_be_marked(side: int, message: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        marked(photograph(side, side), message)
