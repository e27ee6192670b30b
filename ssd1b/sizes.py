"""Sizes in pixels: the only home of height/width order."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Size:
    """Height and width of a picture, pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def latent(self) -> "Size":
        """The size of the latent: an eighth of each side."""
        return Size(self.height // 8, self.width // 8)

    @staticmethod
    def parse(text: str) -> "Size":
        """Read "WIDTHxHEIGHT", the order in which people and APIs write sizes."""
        width, cross, height = text.lower().partition("x")
        if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
            raise ValueError(f"{text!r} is not a size: write WIDTHxHEIGHT in pixels, for example 1024x1024")
        return Size(int(height), int(width))


SDXL_BUCKETS = tuple(
    Size.parse(text)
    for text in (
        "1024x1024", "1152x896", "896x1152", "1216x832", "832x1216", "1344x768", "768x1344", "1536x640", "640x1536",
    )
)  # fmt: skip
"""The nine sizes SSD-1B is trained and served at (segmind/SSD-1B model card)."""
NANO_BUCKETS = (Size(128, 128),)


def nearest_bucket(size: Size, buckets: tuple[Size, ...]) -> Size:
    """Return the bucket whose aspect is nearest to the picture's, measured as a ratio; the first of equals."""
    return min(buckets, key=lambda bucket: max(bucket.aspect / size.aspect, size.aspect / bucket.aspect))


def time_ids(original: Size, crop_top: int, crop_left: int, target: Size) -> tuple[int, int, int, int, int, int]:
    """Return SDXL's micro-conditioning (arXiv 2307.01952, 2.2).

    In this order: original height and width, crop top and left, target height and width.
    """
    return (original.height, original.width, crop_top, crop_left, target.height, target.width)
