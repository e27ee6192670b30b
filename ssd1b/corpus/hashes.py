"""A picture's perceptual hash: 64 bits that stay nearly the same when it is scaled, recompressed or toned."""

import numpy as np
from PIL import Image

SIDE = 32
"""Pixels of the side to which a picture is shrunk, whatever its shape."""
KEPT = 8
"""Frequencies of each axis that are kept, the lowest."""
HASH_PX = 64
"""Least side of a picture of which the hash is taken: twice SIDE, so that shrinking still smooths."""
DCT = np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5)[None] * np.arange(KEPT)[:, None])
"""Rows of the DCT-II, unscaled, shape (KEPT, SIDE)."""


def perceptual_hash(image: Image.Image) -> int:
    """Return the pHash of a picture, unsigned, its most significant bit the lowest frequency.

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, 3.2.1, in the common form of 8x8
    coefficients with the first: luminance, 32x32, DCT-II, one bit per low frequency for above the median. So half of
    the bits are set, and two hashes differ in an even number of them. It knows neither colours nor details; unlike
    drawings of a few lines can share it.
    """
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
    # whole numbers, so that coefficients that should be zero are, and do not take a sign from rounding
    frequencies = np.rint(DCT @ grey @ DCT.T)
    bits = frequencies.ravel() > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
