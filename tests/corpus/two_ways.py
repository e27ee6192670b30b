"""A corpus of URLs with a defect of each kind, its pictures, and the two ways to ingest it."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png

from ssd1b.corpus import ingest as ingestion
from ssd1b.corpus import manifest, metadata, partitions, sources
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import RECIPES, Fetch, Ingest

BOX = [0.1, 0.2, 0.5, 0.75, 0.9]
PICTURES = {
    "good": png(), "other": png(seed=1), "again": png(), "small": png(20, 20), "wide": png(200, 130, seed=2),
    "junk": b"junk",
}  # fmt: skip
"""What lies in the mirror; `gone` does not."""


def small_steps_without_ray(patch: pytest.MonkeyPatch) -> None:
    """Shards in this process and last first; batches, row groups and shards of a few rows."""

    def in_this_process(work: list[Any], make: Callable[[], Callable[[Any], Any]], **_: Any) -> Iterator[Any]:
        function = make()
        for item in reversed(work):
            yield json.loads(json.dumps(function(item)))

    patch.setattr(ingestion, "each", in_this_process)
    patch.setattr(metadata, "BATCH_ROWS", 7)
    patch.setattr(partitions, "GROUP_ROWS", 4)
    patch.setattr(sources, "URL_ROWS", 5)


def write_mirror(folder: Path) -> Path:
    (folder / "h.test").mkdir()
    for name, data in PICTURES.items():
        (folder / "h.test" / name).write_bytes(data)
    return folder


def write_corpus(folder: Path) -> Path:
    """Five usable rows and one of each defect, in two files."""
    sound = {"caption": "a sound picture", "url": url("good"), "height": 200, "width": 200,
             "clip_similarity_vitl14": 0.3, "noun_chunks": [[2.0, 7.0, *BOX]], "ref_exps": None}  # fmt: skip
    defects: list[dict[str, Any]] = [
        {}, {"url": url("other")}, {"url": url("wide"), "caption": " a  wide picture"}, {"url": url("gone")},
        {"url": url("junk")}, {"url": url("again")}, {"caption": "?"}, {"caption": "cat"}, {"url": None},
        {"clip_similarity_vitl14": 0.1}, {"height": 20}, {"url": url("good")}, {"id": 101, "url": url("other")},
    ]  # fmt: skip
    folder.mkdir()
    rows = [{"id": 100 + i, **sound, **defect} for i, defect in enumerate(defects)]
    pq.write_table(pa.Table.from_pylist(rows[:9]), folder / "a.parquet", row_group_size=4)
    pq.write_table(pa.Table.from_pylist(rows[9:]), folder / "b.parquet")
    return folder


PLANTED = {
    "caption_empty": 1, "caption_too_short": 1, "image_missing": 1, "clip_score_low": 1, "too_small": 1,
    "duplicate_url": 1, "duplicate_key": 1,
}  # fmt: skip
"""What the metadata of that corpus tells."""


def url(name: str | None) -> str | None:
    return name and f"http://h.test/{name}"


def recipe(source: str, path: Path, mirror: Path, **changes: Any) -> Ingest:
    filters = Filters(min_clip_score=0.2, languages=("en",), min_caption_chars=4, near_duplicate_bits=None)
    given = {"name": "t", "path": str(path), "buckets": "nano", "filters": filters, "fetch": Fetch(mirror=str(mirror))}
    return dataclasses.replace(RECIPES[source](), **{**given, **changes})


def manifest_rows(name: str = "t") -> list[dict[str, Any]]:
    rows = [row for part in manifest.parts(name) for row in pq.read_table(part, partitioning=None).to_pylist()]
    return sorted(rows, key=lambda row: row["sample_id"])


def both_ways(config: Ingest) -> tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any] | None]:
    """Ingest directly, and by way of candidates; None where nothing is left. Hold the two manifests to be the same."""
    direct = outcome(config)
    rows = manifest_rows() if direct else []
    first = outcome(dataclasses.replace(config, pictures="later"))
    second = outcome(dataclasses.replace(config, path="candidates:t")) if first else None
    assert (manifest_rows() if second else []) == rows
    return direct, first, second


def outcome(config: Ingest) -> dict[str, Any] | None:
    shutil.rmtree(manifest.folder_of(config.name), ignore_errors=True)
    try:
        result = ingest(config)
    except ValueError as error:
        if "nothing is left" not in str(error):
            raise
        return None
    assert result["rows_in"] == result["rows_kept"] + result["not_selected"] + sum(result["rejected"].values())
    return result
