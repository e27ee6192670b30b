"""The rule of `filters.refused` for a batch of metadata at once: millions of rows a second instead of thousands.

The two are written apart, this one in Arrow and numpy, and a test holds them to the same answer.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssd1b.corpus.filters import LIMITS, has_words, speaks
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import BUCKETS, Ingest
from ssd1b.sizes import Size

# N rows of a batch, K buckets

REASONS: tuple[Reason | None, ...] = (None, *Reason)
"""What a code means: 0 passes."""
CODE = {reason: code for code, reason in enumerate(REASONS)}
Codes = NDArray[np.uint8]
ODD_SPACES = r"\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
"""What str.split() splits at, beside the space itself."""
NUMBERS = ("clip_score", "aesthetic", "watermark", "unsafe")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The metadata of N rows; a column that the source does not have is None."""

    caption: pa.Array
    """Text; null is an empty one."""
    height: pa.Array | None = None
    """Declared, pixels; null or 0 where not known."""
    width: pa.Array | None = None
    clip_score: pa.Array | None = None
    aesthetic: pa.Array | None = None
    watermark: pa.Array | None = None
    unsafe: pa.Array | None = None
    language: pa.Array | None = None


def refusals(columns: Columns, config: Ingest) -> tuple[Codes, NDArray[np.int64]]:
    """Return the code of each row's reason, 0 where it passes, and the index of its bucket, -1 without a size.

    Both have shape (N,). What comes first in `filters.refused` decides here too.
    """
    count = len(columns.caption)
    codes_N = caption_codes(columns.caption, config.filters)
    settle(codes_N, score_codes(columns, config.filters, count))
    sizes, buckets_N = size_codes(columns, config, count)
    settle(codes_N, sizes)
    return codes_N, buckets_N


def settle(codes_N: Codes, later_N: Codes) -> None:
    """Fill in the codes of a later check where the ones before found nothing."""
    np.copyto(codes_N, later_N, where=codes_N == 0)


def mark(codes_N: Codes, wrong_N: NDArray[np.bool_], reason: Reason) -> None:
    """Give the reason to the wrong rows that have none yet."""
    codes_N[wrong_N & (codes_N == 0)] = CODE[reason]


def caption_codes(caption: pa.Array, filters: Filters) -> Codes:
    """Return the codes of captions without words, too short or too long."""
    codes_N = np.zeros(len(caption), np.uint8)
    tidy = tidied(caption.fill_null(""))
    # nearly every caption has a plain letter; the few others are asked the row's own question, Unicode's tables and all
    mute_N = ~flags(pc.match_substring_regex(tidy, "[0-9A-Za-z]"))
    for i in np.flatnonzero(mute_N).tolist():
        mute_N[i] = not has_words(tidy[i].as_py())
    mark(codes_N, mute_N, Reason.CAPTION_EMPTY)
    chars_N = pc.utf8_length(tidy).to_numpy(zero_copy_only=False)
    words_N = pc.count_substring(tidy, " ").to_numpy(zero_copy_only=False) + 1
    short_N = (chars_N < (filters.min_caption_chars or 0)) | (words_N < (filters.min_caption_words or 0))
    mark(codes_N, short_N, Reason.CAPTION_TOO_SHORT)
    for limit, counted_N in ((filters.max_caption_chars, chars_N), (filters.max_caption_words, words_N)):
        if limit is not None:
            mark(codes_N, counted_N > limit, Reason.CAPTION_TOO_LONG)
    return codes_N


def tidied(caption: pa.Array) -> pa.Array:
    """Return the captions with single spaces. Few need it, and to find them takes a tenth of mending all."""
    untidy = pc.match_substring_regex(caption, f"^ | $|  |[{ODD_SPACES}]")
    mended = pc.replace_substring_regex(caption.filter(untidy), pattern=f"[ {ODD_SPACES}]+", replacement=" ")
    return pc.replace_with_mask(caption, untidy, pc.utf8_trim(mended, " "))


def score_codes(columns: Columns, filters: Filters, count: int) -> Codes:
    """Return the codes of scores that are missing where they are required, or over their limits."""
    codes_N = np.zeros(count, np.uint8)
    score_N = {name: numbers(getattr(columns, name), count) for name in NUMBERS}
    language = pa.nulls(count, pa.string()) if columns.language is None else columns.language
    language = pc.if_else(pc.equal(language, ""), None, language)
    for name in filters.required:
        missing_N = flags(pc.is_null(language)) if name == "language" else np.isnan(score_N[name])
        mark(codes_N, missing_N, Reason.SCORE_MISSING)
    for field, limit_name, sign, reason in LIMITS:
        limit = getattr(filters, limit_name)
        if limit is not None:
            mark(codes_N, sign * score_N[field] < sign * limit, reason)  # NaN is beyond nothing
    if filters.languages:
        known = pc.unique(language).drop_null()
        spoken = pa.array([each for each in known.to_pylist() if speaks(each, filters.languages)], pa.string())
        wanted_N = flags(pc.is_in(language, value_set=spoken)) | flags(pc.is_null(language))
        mark(codes_N, ~wanted_N, Reason.LANGUAGE_UNWANTED)
    return codes_N


def size_codes(columns: Columns, config: Ingest, count: int) -> tuple[Codes, NDArray[np.int64]]:
    """Return the codes of declared sizes that are out, and the index of each row's bucket, -1 without a size."""
    codes_N = np.zeros(count, np.uint8)
    height_N, width_N = (np.trunc(numbers(side, count)) for side in (columns.height, columns.width))
    known_N = (height_N > 0) & (width_N > 0)
    height_N, width_N = np.where(known_N, height_N, 1.0), np.where(known_N, width_N, 1.0)
    short_N, long_N = np.minimum(height_N, width_N), np.maximum(height_N, width_N)
    filters = config.filters
    if filters.min_side_px is not None:
        mark(codes_N, known_N & (short_N < filters.min_side_px), Reason.SIDE_TOO_SHORT)
    if filters.max_aspect is not None:
        mark(codes_N, known_N & (long_N / short_N > filters.max_aspect), Reason.ASPECT_TOO_LONG)
    buckets = BUCKETS[config.buckets]
    nearest_N, crop_N = nearest(height_N, width_N, buckets)
    high_N, wide_N = (np.array([getattr(size, side) for size in buckets])[nearest_N] for side in ("height", "width"))
    mark(codes_N, known_N & ((height_N < high_N) | (width_N < wide_N)), Reason.TOO_SMALL)
    mark(codes_N, known_N & (crop_N > config.max_crop), Reason.ASPECT_EXTREME)
    return codes_N, np.where(known_N, nearest_N, -1)


def nearest(
    height_N: NDArray[np.float64], width_N: NDArray[np.float64], buckets: tuple[Size, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the index of each size's nearest bucket, as `sizes.nearest_bucket` chooses, and the ratio of the aspects.

    Both have shape (N,).
    """
    aspect_N1, aspect_K = (width_N / height_N)[:, None], np.array([size.aspect for size in buckets])
    ratio_NK = np.maximum(aspect_K / aspect_N1, aspect_N1 / aspect_K)
    nearest_N = ratio_NK.argmin(axis=1)
    return nearest_N, ratio_NK[np.arange(len(nearest_N)), nearest_N]


def numbers(column: pa.Array | None, count: int) -> NDArray[np.float64]:
    """Return a column as float64 of shape (N,), NaN where it has nothing; what is not finite is no number."""
    if column is None:
        return np.full(count, np.nan)
    found: NDArray[np.float64] = pc.cast(column, pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(found), found, np.nan)


def flags(column: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = column.fill_null(False).to_numpy(zero_copy_only=False)
    return found
