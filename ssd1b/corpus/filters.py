"""The judgement of one pair: a manifest row, or the name of the reason why it is none.

`refused` needs the metadata only and so can run before a picture is fetched; `judge` decides by the picture as well.
`ssd1b.corpus.columns` holds the same rule for whole batches of metadata; a test keeps the two alike.
"""

import hashlib
from collections.abc import Iterable
from math import isfinite
from typing import Any

from ssd1b.corpus.hashes import HASH_PX, perceptual_hash
from ssd1b.corpus.manifest import sample_id, split_of
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.pictures import decode, is_blank
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import BUCKETS, Ingest
from ssd1b.sizes import Size, nearest_bucket

SCORES = ("clip_score", "aesthetic", "watermark", "unsafe", "language")
LIMITS = (
    ("clip_score", "min_clip_score", 1, Reason.CLIP_SCORE_LOW),
    ("aesthetic", "min_aesthetic", 1, Reason.AESTHETIC_LOW),
    ("watermark", "max_watermark", -1, Reason.WATERMARK),
    ("unsafe", "max_unsafe", -1, Reason.UNSAFE),
)
"""(field of a pair, its limit, 1 for a floor and -1 for a ceiling, reason of those beyond)"""
Refusal = tuple[Reason, str]
"""A reason and its detail."""


def clean(captions: Iterable[str]) -> list[str]:
    """Return the captions with single spaces, without doubles and without those that hold no letter or digit."""
    tidy = (" ".join(caption.split()) for caption in captions)
    return list(dict.fromkeys(caption for caption in tidy if has_words(caption)))


def has_words(caption: str) -> bool:
    return any(letter.isalnum() for letter in caption)


def split_for(pair: Pair, heldout_share: int) -> str:
    """Return the pair's split. What a source calls test, validation or else is held out; else the concept decides."""
    if pair.split:
        return "train" if pair.split == "train" else "heldout"
    return split_of(pair.concept or f"{pair.source}/{pair.key}", heldout_share)


def selected(pair: Pair, config: Ingest) -> bool:
    """Say whether the recipe wants this pair at all."""
    wanted = (
        (config.styles, pair.style),
        (config.splits, split_for(pair, config.heldout_share)),
        (config.subgroups, pair.subgroup),
    )
    return all(not choice or value in choice for choice, value in wanted)


def refused(pair: Pair, config: Ingest) -> Reject | None:
    """Return why a pair is out by its metadata alone, or None where the picture must decide.

    The declared size is believed only against the pair: what it promises is measured again on the picture.
    """
    found = caption_refusal(pair.captions, config.filters) or score_refusal(pair, config.filters)
    size = pair.declared_size
    if found is None and size is not None and size.height > 0 and size.width > 0:  # some corpora write 0 for unknown
        found = size_refusal(size, config)
    return Reject(reason=found[0], source=pair.source, key=pair.key, detail=found[1]) if found else None


def caption_refusal(captions: Iterable[str], filters: Filters) -> Refusal | None:
    """Return why none of the captions will do: why the first of them will not."""
    left = clean(captions)
    if not left:
        return Reason.CAPTION_EMPTY, repr(tuple(captions))[:200]
    found = [caption_misfit(caption, filters) for caption in left]
    return (found[0], left[0][:200]) if found[0] is not None and None not in found else None


def caption_misfit(caption: str, filters: Filters) -> Reason | None:
    """Return why a clean caption is outside the limits, or None."""
    chars, words = len(caption), caption.count(" ") + 1
    if chars < (filters.min_caption_chars or 0) or words < (filters.min_caption_words or 0):
        return Reason.CAPTION_TOO_SHORT
    longest = (filters.max_caption_chars, chars), (filters.max_caption_words, words)
    return Reason.CAPTION_TOO_LONG if any(limit is not None and count > limit for limit, count in longest) else None


def is_known(value: float | str | None) -> bool:
    """Say whether a score is there: null, an empty text and what is not finite are not."""
    return isfinite(value) if isinstance(value, float | int) else bool(value)


def score_refusal(pair: Pair, filters: Filters) -> Refusal | None:
    """Return the first score that is missing where it must be there, or that is over its limit."""
    for name in SCORES:
        if name in filters.required and not is_known(getattr(pair, name)):
            return Reason.SCORE_MISSING, name
    for name, limit_name, sign, reason in LIMITS:
        value, limit = getattr(pair, name), getattr(filters, limit_name)
        if limit is not None and is_known(value) and sign * value < sign * limit:
            return reason, f"{name} {value:.4g}, the limit is {limit}"
    if filters.languages and is_known(pair.language) and not speaks(str(pair.language), filters.languages):
        return Reason.LANGUAGE_UNWANTED, str(pair.language)
    return None


def speaks(language: str, wanted: tuple[str, ...]) -> bool:
    """Say whether a language tag is one of the wanted, or a regional form of one: en-GB is en (RFC 4647, 3.3.1)."""
    tag = language.lower().replace("_", "-")
    return any(tag == each.lower() or tag.startswith(f"{each.lower()}-") for each in wanted)


def size_refusal(size: Size, config: Ingest) -> Refusal | None:
    """Return why a picture of this size is out."""
    filters = config.filters
    short, long = sorted((size.height, size.width))
    if filters.min_side_px is not None and short < filters.min_side_px:
        return Reason.SIDE_TOO_SHORT, f"{size}, the limit is {filters.min_side_px}"
    if filters.max_aspect is not None and long / short > filters.max_aspect:
        return Reason.ASPECT_TOO_LONG, f"{size}, the limit is {filters.max_aspect}"
    bucket = nearest_bucket(size, BUCKETS[config.buckets])
    if size.height < bucket.height or size.width < bucket.width:
        return Reason.TOO_SMALL, f"{size} for bucket {bucket}"
    if max(size.aspect / bucket.aspect, bucket.aspect / size.aspect) > config.max_crop:
        return Reason.ASPECT_EXTREME, f"{size} for bucket {bucket}"
    return None


def judge(pair: Pair, config: Ingest) -> dict[str, Any] | Reject:
    """Return the pair's manifest row, or why it gets none.

    The picture is decoded to its end, since only that shows damage.
    """

    def reject(reason: Reason, detail: str = "") -> Reject:
        return Reject(reason=reason, source=pair.source, key=pair.key, detail=detail)

    if found := refused(pair, config):
        return found
    try:
        data = pair.read()
    except OSError as error:
        return reject(Reason.IMAGE_MISSING, str(error))
    # as coarse as a JPEG can be decoded and still be hashed: enough to see whether it is whole
    picture = decode(data, max_pixels=config.max_pixels, at_least=Size(HASH_PX, HASH_PX))
    if isinstance(picture, Reject):
        return reject(picture.reason, picture.detail)
    if picture.animated and config.filters.animated == "reject":
        return reject(Reason.IMAGE_ANIMATED)
    size = picture.original
    if misfit := size_refusal(size, config):
        return reject(*misfit)
    if is_blank(picture.image):
        return reject(Reason.IMAGE_BLANK)
    return {
        "sample_id": sample_id(pair.source, pair.key),
        "source": pair.source,
        "key": pair.key,
        "captions": [text for text in clean(pair.captions) if caption_misfit(text, config.filters) is None],
        "split": split_for(pair, config.heldout_share),
        "style": pair.style,
        "concept": pair.concept,
        "group": pair.group,
        "subgroup": pair.subgroup,
        "height": size.height,
        "width": size.width,
        "bucket": str(nearest_bucket(size, BUCKETS[config.buckets])),
        "sha256": hashlib.sha256(data).hexdigest(),
        "phash": perceptual_hash(picture.image),
        "clip_score": pair.clip_score,
        "aesthetic": pair.aesthetic,
        "watermark": pair.watermark,
        "unsafe": pair.unsafe,
        "language": pair.language,
        "licence": pair.licence,
        "regions": pair.regions,
        "url": pair.url,
        "image": pair.image,
        "path": pair.path,
    }
