"""The judgement of one pair: a manifest row, or the name of the reason why it is none."""

import hashlib
from collections.abc import Iterable
from typing import Any

from ssd1b.corpus.manifest import sample_id, split_of
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.pictures import decode, is_blank
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.recipes.ingest import BUCKETS, Ingest
from ssd1b.sizes import Size, nearest_bucket


def clean(captions: Iterable[str]) -> list[str]:
    """Return the captions with single spaces, without doubles and without those that hold no letter or digit."""
    tidy = (" ".join(caption.split()) for caption in captions)
    return list(dict.fromkeys(caption for caption in tidy if any(letter.isalnum() for letter in caption)))


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


def judge(pair: Pair, config: Ingest) -> dict[str, Any] | Reject:
    """Return the pair's manifest row, or why it gets none.

    The picture is decoded to its end, since only that shows damage.
    """

    def reject(reason: Reason, detail: str = "") -> Reject:
        return Reject(reason=reason, source=pair.source, key=pair.key, detail=detail)

    captions = clean(pair.captions)
    if not captions:
        return reject(Reason.CAPTION_EMPTY, repr(pair.captions)[:200])
    try:
        data = pair.read()
    except OSError as error:
        return reject(Reason.IMAGE_MISSING, str(error))
    # 1/8 is the coarsest that a JPEG offers, and enough to see whether it is whole
    picture = decode(data, max_pixels=config.max_pixels, at_least=Size(1, 1))
    if isinstance(picture, Reject):
        return reject(picture.reason, picture.detail)
    size = picture.original
    bucket = nearest_bucket(size, BUCKETS[config.buckets])
    if size.height < bucket.height or size.width < bucket.width:
        return reject(Reason.TOO_SMALL, f"{size} for bucket {bucket}")
    if max(size.aspect / bucket.aspect, bucket.aspect / size.aspect) > config.max_crop:
        return reject(Reason.ASPECT_EXTREME, f"{size} for bucket {bucket}")
    if is_blank(picture.image):
        return reject(Reason.IMAGE_BLANK)
    return {
        "sample_id": sample_id(pair.source, pair.key),
        "source": pair.source,
        "key": pair.key,
        "captions": captions,
        "split": split_for(pair, config.heldout_share),
        "style": pair.style,
        "concept": pair.concept,
        "group": pair.group,
        "subgroup": pair.subgroup,
        "height": size.height,
        "width": size.width,
        "bucket": str(bucket),
        "sha256": hashlib.sha256(data).hexdigest(),
        "clip_score": pair.clip_score,
        "aesthetic": pair.aesthetic,
        "licence": pair.licence,
        "image": pair.image,
        "path": pair.path,
    }
