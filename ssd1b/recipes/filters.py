"""Which pairs a corpus takes, told by their metadata: what can be judged before a picture is fetched.

A field that a source does not give (null, or NaN) passes, because a corpus without scores is not a bad corpus; a field
named in `required` does not. A limit itself passes: min_clip_score=0.3 keeps 0.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FARTHEST = 8
"""Largest distance of near duplicates: beyond it unlike pictures are taken for one, and the search takes hours."""
Score = Literal["clip_score", "aesthetic", "watermark", "unsafe", "language"]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The limits that a pair must keep. None and empty ask for nothing."""

    min_side_px: int | None = None
    """Of the shorter side: of the declared size before the picture is fetched, of the picture itself after."""
    max_aspect: float | None = None
    """Longer side over shorter. Apart from it, `max_crop` of the recipe limits what a bucket cuts away."""
    min_clip_score: float | None = None
    """Similarity of picture and caption; its scale is that of the model that the source used."""
    min_aesthetic: float | None = None
    max_watermark: float | None = None
    """Probability of a watermark, 0 to 1."""
    max_unsafe: float | None = None
    """Probability of unsafe content, 0 to 1."""
    languages: tuple[str, ...] = ()
    """Wanted languages. "en" takes en, EN and en-GB; "en-GB" takes only that."""
    min_caption_chars: int | None = None
    """Captions outside these four limits are left out of their pair; a pair without captions left is rejected."""
    max_caption_chars: int | None = None
    min_caption_words: int | None = None
    """Words are what spaces part: a Chinese caption is one word."""
    max_caption_words: int | None = None
    required: tuple[Score, ...] = ()
    """Scores that a pair must have, whatever their value."""
    animated: Literal["first_frame", "reject"] = "first_frame"
    """What becomes of GIF, WebP, PNG and AVIF with several frames."""
    near_duplicate_bits: int | None = None
    """Pictures whose 64-bit perceptual hashes differ in at most so many bits are one picture; None looks for none.

    An even number (see corpus/hashes.py); 4 is usual for photographs. Drawings: None, since the hash sees no colour and
    few lines. Of the shipped corpus's 4,013 drawings 0 would drop 25, 2: 89, 4: 223 and 6: 385, nearly all wrongly.
    """

    def __post_init__(self) -> None:
        bits = self.near_duplicate_bits
        if bits is not None and not 0 <= bits <= FARTHEST:
            raise ValueError(f"near_duplicate_bits={bits}: choose 0 to {FARTHEST} of 64; 4 is usual for photographs")


def everything() -> Filters:
    """Take every pair with a caption and a picture that fits its bucket."""
    return Filters()


def web() -> Filters:
    """Photographs of the web with captions of people: small, odd, marked and unsafe ones left out."""
    return Filters(
        min_side_px=512,
        max_aspect=3.0,
        min_clip_score=0.2,
        min_aesthetic=4.5,
        max_watermark=0.8,
        max_unsafe=0.5,
        languages=("en",),
        min_caption_chars=5,
        max_caption_chars=2000,
        min_caption_words=2,
        near_duplicate_bits=4,
    )


RECIPES: dict[str, Callable[[], Filters]] = {recipe.__name__: recipe for recipe in (everything, web)}
