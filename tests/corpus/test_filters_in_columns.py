"""The filters of a row and of a batch of columns are one rule."""

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from drawn import encoded, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssd1b.corpus.columns import REASONS, Columns, refusals
from ssd1b.corpus.filters import clean, judge, refused, speaks
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import BUCKETS, Ingest
from ssd1b.sizes import Size, nearest_bucket

PLAIN = Ingest(name="t", source="parquet", buckets="nano")
PAIR = Pair(source="s", key="k", captions=("a red apple",), image=png())
WHITESPACE = [chr(point) for point in range(0x110000) if chr(point).isspace()]

scores = st.one_of(
    st.none(),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.floats(-1, 10),
)
limits = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(-1, 10))
counts = st.one_of(st.none(), st.integers(0, 12))
captions = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.text(st.sampled_from(["a", "é", "中", "½", "!", "🍎", "\ufeff", *WHITESPACE]), max_size=12),
)
sides = st.one_of(st.none(), st.integers(-1, 1), st.integers(100, 200), st.integers(1, 3000))
languages = st.sampled_from([None, "", "en", "EN", "en-GB", "en_US", "eng", "de", "zh"])
rows = st.fixed_dictionaries(
    {
        "caption": captions, "height": sides, "width": sides, "clip_score": scores, "aesthetic": scores,
        "watermark": scores, "unsafe": scores, "language": languages,
    }
)  # fmt: skip
filters = st.builds(
    Filters,
    min_side_px=st.one_of(st.none(), st.integers(0, 1500)),
    max_aspect=st.one_of(st.none(), st.sampled_from([1.0, 2.0]), st.floats(1, 5)),
    min_clip_score=limits, min_aesthetic=limits, max_watermark=limits, max_unsafe=limits,
    languages=st.lists(st.sampled_from(["en", "en-GB", "DE", "fr"]), max_size=2).map(tuple),
    min_caption_chars=counts, max_caption_chars=counts, min_caption_words=counts, max_caption_words=counts,
    required=st.lists(
        st.sampled_from(["clip_score", "aesthetic", "watermark", "unsafe", "language"]), max_size=3
    ).map(tuple),
)  # fmt: skip


def as_pair(row: dict[str, Any]) -> Pair:
    size = None if row["height"] is None or row["width"] is None else Size(row["height"], row["width"])
    scores = {name: row[name] for name in ("clip_score", "aesthetic", "watermark", "unsafe", "language")}
    texts = () if row["caption"] is None else (row["caption"],)
    return Pair(source="s", key="k", captions=texts, image=None, declared_size=size, **scores)


def as_columns(batch: list[dict[str, Any]]) -> Columns:
    kinds = {"caption": pa.string(), "language": pa.string(), "height": pa.int64(), "width": pa.int64()}
    return Columns(**{name: pa.array([row[name] for row in batch], kinds.get(name, pa.float64())) for name in batch[0]})


@settings(max_examples=300, deadline=None)
@given(
    batch=st.lists(rows, min_size=1, max_size=12),
    filters=filters,
    buckets=st.sampled_from(["nano", "sdxl"]),
    max_crop=st.sampled_from([1.0, 1.5, 2.0]),
)
def test_a_batch_is_judged_as_its_rows_are(
    batch: list[dict[str, Any]], filters: Filters, buckets: Any, max_crop: float
) -> None:
    config = dataclasses.replace(PLAIN, buckets=buckets, filters=filters, max_crop=max_crop)
    codes_N, buckets_N = refusals(as_columns(batch), config)
    by_row = [refused(as_pair(row), config) for row in batch]
    assert [REASONS[code] for code in codes_N] == [found and found.reason for found in by_row]
    for row, index in zip(batch, buckets_N.tolist(), strict=True):
        known = (row["height"] or 0) > 0 and (row["width"] or 0) > 0
        expected = nearest_bucket(Size(row["height"], row["width"]), BUCKETS[buckets]) if known else None
        assert (None if index < 0 else BUCKETS[buckets][index]) == expected


def test_a_source_without_a_column_is_one_with_nulls() -> None:
    batch = [{"caption": "a cat", **dict.fromkeys(("height", "width", "clip_score", "language"))}]
    config = dataclasses.replace(PLAIN, filters=Filters(required=("unsafe",), min_clip_score=0.3, languages=("en",)))
    codes_N, buckets_N = refusals(as_columns(batch), config)
    assert REASONS[codes_N[0]] is Reason.SCORE_MISSING
    assert buckets_N.tolist() == [-1]
    codes_N, _ = refusals(Columns(caption=pa.array(["a cat"])), dataclasses.replace(config, filters=Filters()))
    assert codes_N.tolist() == [0]


@pytest.mark.parametrize(
    ("limit", "change", "reason"),
    [
        ({"min_side_px": 129}, {}, Reason.SIDE_TOO_SHORT),
        ({"max_aspect": 1.5}, {"image": png(200, 128)}, Reason.ASPECT_TOO_LONG),
        ({"min_clip_score": 0.3}, {"clip_score": 0.29}, Reason.CLIP_SCORE_LOW),
        ({"min_aesthetic": 5.0}, {"aesthetic": 4.9}, Reason.AESTHETIC_LOW),
        ({"max_watermark": 0.5}, {"watermark": 0.51}, Reason.WATERMARK),
        ({"max_unsafe": 0.5}, {"unsafe": 0.51}, Reason.UNSAFE),
        ({"languages": ("en",)}, {"language": "de"}, Reason.LANGUAGE_UNWANTED),
        ({"min_caption_chars": 12}, {}, Reason.CAPTION_TOO_SHORT),
        ({"min_caption_words": 4}, {}, Reason.CAPTION_TOO_SHORT),
        ({"max_caption_chars": 10}, {}, Reason.CAPTION_TOO_LONG),
        ({"max_caption_words": 2}, {}, Reason.CAPTION_TOO_LONG),
        ({"required": ("aesthetic",)}, {}, Reason.SCORE_MISSING),
        ({"required": ("clip_score",)}, {"clip_score": math.nan}, Reason.SCORE_MISSING),
        ({"min_side_px": 500}, {"declared_size": Size(499, 900), "image": None}, Reason.SIDE_TOO_SHORT),
        ({}, {"declared_size": Size(100, 100), "image": None}, Reason.TOO_SMALL),
        ({}, {"declared_size": Size(128, 600), "image": None}, Reason.ASPECT_EXTREME),
        ({"animated": "reject"}, {"image": b"moving"}, Reason.IMAGE_ANIMATED),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_filter_has_its_name_and_its_limit_passes(
    limit: dict[str, Any], change: dict[str, Any], reason: Reason
) -> None:
    if change.get("image") == b"moving":
        frames = [Image.effect_noise((128, 128), sigma) for sigma in (40, 80)]
        change = {"image": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])}
    pair, config = dataclasses.replace(PAIR, **change), dataclasses.replace(PLAIN, filters=Filters(**limit))
    found = judge(pair, config)
    assert isinstance(found, Reject)
    assert found.reason is reason
    at_the_limit = {
        "clip_score": 0.3, "aesthetic": 5.0, "watermark": 0.5, "unsafe": 0.5, "language": "en-GB",
        "captions": ("one two",) if reason is Reason.CAPTION_TOO_LONG else ("a red apple here",),
        "declared_size": None, "image": png(200, 200),
    }  # fmt: skip
    if "min_side_px" not in limit or limit["min_side_px"] < 200:
        assert isinstance(judge(dataclasses.replace(pair, **at_the_limit), config), dict)


def test_a_pair_keeps_the_captions_that_fit() -> None:
    config = dataclasses.replace(PLAIN, filters=Filters(min_caption_words=2, max_caption_chars=20))
    several = ("apple", "a  red apple", "an apple that is told of at length", "a fruit")
    row = judge(dataclasses.replace(PAIR, captions=several), config)
    assert isinstance(row, dict)
    assert row["captions"] == ["a red apple", "a fruit"]


def test_what_a_declared_size_promises_is_measured_again() -> None:
    found = judge(dataclasses.replace(PAIR, image=png(64, 64), declared_size=Size(1024, 1024)), PLAIN)
    assert isinstance(found, Reject)
    assert found.reason is Reason.TOO_SMALL


def test_an_unwanted_pair_is_refused_without_its_picture() -> None:
    """What a fetcher asks before it goes to the network: the pair has no picture yet."""
    config = dataclasses.replace(PLAIN, filters=Filters(min_clip_score=0.3))
    pair = dataclasses.replace(PAIR, image=None, clip_score=0.1)
    found = refused(pair, config)
    assert found is not None
    assert (found.reason, found.source, found.key) == (Reason.CLIP_SCORE_LOW, "s", "k")
    assert "0.1" in found.detail
    assert "0.3" in found.detail
    assert refused(dataclasses.replace(pair, clip_score=0.4), config) is None


def test_language_tags() -> None:
    assert speaks("EN", ("en",))
    assert speaks("en_us", ("en",))
    assert speaks("pt-BR", ("de", "pt-br"))
    assert not speaks("pt", ("pt-BR",))
    assert not speaks("eng", ("en",))


def test_every_space_that_python_knows_parts_words() -> None:
    config = dataclasses.replace(PLAIN, filters=Filters(min_caption_words=3))
    texts = [f"{space}a{space}{space}b{space}" for space in WHITESPACE]
    codes_N, _ = refusals(Columns(caption=pa.array(texts)), config)
    assert len(WHITESPACE) > 20
    assert all(clean([text]) == ["a b"] for text in texts)
    assert np.all(codes_N == REASONS.index(Reason.CAPTION_TOO_SHORT))
