"""An invisible watermark: a short message in the colour of a picture, read back without the original.

The method is the one that diffusers marks SDXL's pictures with ("dwtDct" of the package invisible-watermark), whose
decoder reads these: in the U plane of YUV, each 4x4 block of the Haar transform's low band carries one bit of the
message, over and over; its greatest coefficient but the first is moved to a quarter or three quarters of a step of 36.
Written here in numpy, since that package has had no release since 2023, wants 150 MB of OpenCV and torch, and walks the
blocks one at a time. Unlike it we move to the nearer step and keep the moved one the greatest: the change is smaller
(40 dB, not 36, on smooth noise), and fewer bits are lost.

It tells of good faith; it is no lock. It survives PNG, and JPEG of high quality; scaling, cropping and JPEG below about
75 end it, and on plain white or black areas it shows: a tint of blue or yellow in some blocks.
"""

import numpy as np
from numpy.typing import NDArray

# H W picture height and width; R C rows and columns of blocks, 8x8 pixels each; K the 16 coefficients of a block

LEAST = 256
"""Pixels of the shorter side below which the method has too few blocks, and diffusers marks nothing either."""
STEP = 36.0
BLOCK = 4
"""Coefficients a side."""
PIXELS = 2 * BLOCK
"""Pixels a side."""
BYTES = 16
"""Longest message: at 256x256 each bit still stands in eight blocks."""
U_OF_RGB = np.array([-0.492 * 0.299, -0.492 * 0.587, 0.492 * (1 - 0.114)])
"""U - 128 of a pixel (BT.601 as OpenCV has it: 0.492 (B - Y))."""
RGB_OF_U = np.array([0.0, -0.395, 2.032])
"""What a change of U does to a pixel at constant Y and V."""


def marked(pixels_HW3: NDArray[np.uint8], message: bytes) -> NDArray[np.uint8]:
    """Return the picture with the message in it.

    Raises:
        ValueError: a message of no byte or too many, or a picture that is too small.
    """
    if not 1 <= len(message) <= BYTES:
        raise ValueError(f"a watermark has 1 to {BYTES} bytes; {message!r} has {len(message)}")
    if min(pixels_HW3.shape[:2]) < LEAST:
        raise ValueError(f"a watermark needs {LEAST} pixels a side; the picture has {pixels_HW3.shape[:2]}")
    before_RCK = blocks(pixels_HW3)
    rows, columns, _ = before_RCK.shape
    bits_RC = np.resize(np.unpackbits(np.frombuffer(message, np.uint8)), (rows, columns))
    at_RC1, value_RC1 = greatest(before_RCK)
    offset_RC1 = (0.25 + 0.5 * bits_RC[..., None]) * STEP
    target_RC1 = within(np.round((value_RC1 - offset_RC1) / STEP) * STEP + offset_RC1, value_RC1, pixels_HW3)
    after_RCK = before_RCK.copy()
    after_RCK[..., 1:] = np.minimum(before_RCK[..., 1:], target_RC1 - 1)
    np.put_along_axis(after_RCK, at_RC1, target_RC1, axis=2)
    # a coefficient of the low band is half the sum of its four pixels: a change of it is half of that in each
    change = ((after_RCK - before_RCK) / 2).reshape(rows, columns, BLOCK, BLOCK).swapaxes(1, 2)
    change_HW = change.reshape(rows * BLOCK, columns * BLOCK).repeat(2, axis=0).repeat(2, axis=1)
    made_HW3 = pixels_HW3.astype(np.float64)
    made_HW3[: rows * PIXELS, : columns * PIXELS] += change_HW[..., None] * RGB_OF_U
    return np.clip(np.round(made_HW3), 0, 255).astype(np.uint8)


def within(
    target_RC1: NDArray[np.float64], value_RC1: NDArray[np.float64], pixels_HW3: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return the targets, but a step further up where blue, which moves most, would have to go below black.

    At white there is nothing to mend: what cannot go up stays within the half of its step.
    """
    rows, columns, _ = target_RC1.shape
    blue_RC = pixels_HW3[: rows * PIXELS, : columns * PIXELS, 2].reshape(rows, PIXELS, columns, PIXELS)
    darkest_RC1 = blue_RC.min(axis=(1, 3))[..., None] + (target_RC1 - value_RC1) / 2 * RGB_OF_U[2]
    return np.where(darkest_RC1 < 0, target_RC1 + STEP, target_RC1)


def message_of(pixels_HW3: NDArray[np.uint8], length: int) -> bytes:
    """Return the message of so many bytes that the blocks spell by majority; from a picture without one, anything."""
    _, value_RC1 = greatest(blocks(pixels_HW3))
    votes = (value_RC1.ravel() % STEP) > STEP / 2
    bits = [votes[i :: 8 * length].mean() > 0.5 for i in range(8 * length)]
    return np.packbits(bits).tobytes()


def blocks(pixels_HW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the low band of U by blocks, shape (R, C, K); what is left over at the edges is not in it."""
    rows, columns = pixels_HW3.shape[0] // PIXELS, pixels_HW3.shape[1] // PIXELS
    u_HW = pixels_HW3[: rows * PIXELS, : columns * PIXELS] @ U_OF_RGB + 128
    low = u_HW.reshape(rows, BLOCK, 2, columns, BLOCK, 2).sum(axis=(2, 5)) / 2
    return np.asarray(low.swapaxes(1, 2).reshape(rows, columns, BLOCK * BLOCK))


def greatest(blocks_RCK: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return where the greatest coefficient but the first stands in each block, and its value, shapes (R, C, 1)."""
    at_RC1 = blocks_RCK[..., 1:].argmax(axis=2, keepdims=True) + 1
    return at_RC1, np.take_along_axis(blocks_RCK, at_RC1, axis=2)
