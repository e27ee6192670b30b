"""What the columns of known corpora are called: one table per corpus, from our fields to their names.

Names are found whatever their case; of several present the first counts. CLIP scores of ViT-L/14 go before those of
ViT-B/32, which are on another scale.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from ssd1b.corpus.pair import LABELS
from ssd1b.sizes import Size

IMAGE = ("image", "jpg", "image_bytes")
"""Bytes, or a struct with a field `bytes`, as Hugging Face datasets write pictures."""
CAPTIONS = ("captions", "caption", "text", "prompt")
SCORES: Mapping[str, tuple[str, ...]] = {
    "clip_score": (
        "clip_score", "clip_similarity_vitl14", "clip_l14_similarity_score", "similarity", "clip_similarity_vitb32",
        "clip_b32_similarity_score",
    ),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    "watermark": ("watermark", "pwatermark", "watermark_score"),
    "unsafe": ("unsafe", "punsafe", "nsfw_score_opennsfw2", "nsfw_score_gantman"),
    "language": ("language", "lang"),
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
}  # fmt: skip
"""Of a picture beside its caption, in any corpus. An original size is of what the URL holds, not of a copy."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One corpus's columns."""

    needed: tuple[tuple[str, ...], ...]
    """Fields of which each table must have one per entry."""
    columns: Mapping[str, tuple[str, ...]]
    corpus: str | None = None
    """The source that its pairs name; None: the file's own name, or its column `source`."""


def layout_of_urls(corpus: str, key: tuple[str, ...], **columns: tuple[str, ...]) -> Layout:
    return Layout(
        corpus=corpus,
        needed=(("url", "image"), ("captions",)),
        columns={
            "key": key, "url": ("url", "image_url"), "image": IMAGE, "captions": CAPTIONS, **SCORES,
            "split": ("split",), "licence": ("licence", "license"), **columns,
        },
    )  # fmt: skip


PICTURES = Layout(
    needed=(("image",), ("captions",)),
    columns={
        "key": ("key",), "source": ("source",), "image": IMAGE, "captions": CAPTIONS, **SCORES,
        **{label: (label,) for label in LABELS},
    },
)  # fmt: skip
"""Tables that hold their pictures."""
LAYOUTS: Mapping[str, Layout] = {
    "parquet": PICTURES,
    # `id` is COYO's; GRIT's own `key` counts within a file
    "grit": layout_of_urls("grit", ("id", "key"), noun_chunks=("noun_chunks",), ref_exps=("ref_exps",)),
    # `hash` is of URL and text; SAMPLE_ID is often null or repeated
    "laion": layout_of_urls("laion", ("hash",)),
    "coyo": layout_of_urls("coyo", ("id",)),
    "datacomp": layout_of_urls("datacomp", ("uid",), sha256=("sha256",)),
    "midjourney": layout_of_urls(
        "midjourney", ("id",), captions=("clean_prompt", "clean_prompts", "prompt", "content", "text")
    ),
}  # fmt: skip
CANDIDATES = Layout(
    needed=(("url",), ("captions",)),
    columns={
        "captions": ("caption",), "split": ("given_split",), **{name: (name,) for name in SCORES},
        **{name: (name,) for name in ("key", "url", "sha256", "licence", "regions")},
    },
)  # fmt: skip
"""What candidates.py writes of any of them: under our names, with the keys that the corpus's own rows have."""
MARK = b"ssd1b.candidates"
"""In a file's own metadata: the corpus that its candidates were chosen from."""


def layout_in(schema: pa.Schema, layout: Layout, file: object) -> Layout:
    """Return the layout of a file of a corpus: the corpus's own, or that of the candidates chosen from it.

    Raises:
        ValueError: they are candidates of another corpus, whose rows would get other names and meet other filters.
    """
    told = (schema.metadata or {}).get(MARK)
    if told is None:
        return layout
    if told.decode() != layout.corpus:
        raise ValueError(f"{file} holds candidates of {told.decode()}: run the recipe {told.decode()}")
    return replace(CANDIDATES, corpus=layout.corpus)


def found_columns(layout: Layout, present: Iterable[str], file: object) -> dict[str, str]:
    """Return the name of each field that a table has, by our name.

    Raises:
        ValueError: a needed one is missing; the message names the file, what it has and what it needs.
    """
    names = list(present)
    by_lower = {name.lower(): name for name in reversed(names)}
    found = {}
    for field, candidates in layout.columns.items():
        name = next((name for name in candidates if name in names), None)
        name = name or next((by_lower[name] for name in candidates if name in by_lower), None)
        if name is not None:
            found[field] = name
    for choice in layout.needed:
        if not any(field in found for field in choice):
            wanted = " or ".join(name for field in choice for name in layout.columns[field])
            raise ValueError(f"{file} has no column {wanted}: its columns are {', '.join(names)}")
    return found


def number(value: object) -> float | None:
    """Return a score as a number, or None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        score = float(value)
    except ValueError:
        return None
    return score if math.isfinite(score) else None


def declared_size(width: object, height: object) -> Size | None:
    """Return the size that a row gives its picture, or None unless both sides are there."""
    sides = number(height), number(width)
    if sides[0] is None or sides[1] is None or sides[0] < 1 or sides[1] < 1:
        return None
    return Size(int(sides[0]), int(sides[1]))


def scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores, language and declared size of a row whose keys are ours, as fields of a pair."""
    language = row.get("language")
    return {
        **{name: number(row.get(name)) for name in ("clip_score", "aesthetic", "watermark", "unsafe")},
        "language": str(language) if language else None,
        "declared_size": declared_size(row.get("width"), row.get("height")),
    }


def scores_of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of a JSON object whose keys are any corpus's."""
    by_lower = {str(name).lower(): value for name, value in reversed(list(entry.items()))}
    ours = {
        field: next((by_lower[name] for name in names if by_lower.get(name) is not None), None)
        for field, names in SCORES.items()
    }
    return scores(ours)
