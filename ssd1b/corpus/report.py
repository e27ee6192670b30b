"""What jobs.ingest shows of a manifest, gathered from its parts and from the sample of what was left out."""

from collections.abc import Mapping
from heapq import nsmallest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ssd1b.corpus import manifest
from ssd1b.corpus.pictures import decode
from ssd1b.corpus.reasons import Reject
from ssd1b.corpus.report_sheet import COLUMNS, TILE, Report, Shown, draw
from ssd1b.corpus.samples import Samples, shown
from ssd1b.recipes.ingest import Ingest
from ssd1b.sizes import Size

EXAMPLES = 3 * COLUMNS
"""Kept rows that are shown: those of smallest sample_id, a hash, so an even sample."""


def write_sheet(folder: Path, config: Ingest, result: Mapping[str, Any], samples: Samples) -> None:
    """Draw the report of the parts in a folder and keep it there."""
    draw(gather(folder, config, result, samples)).save(folder / manifest.SHEET)


def gather(folder: Path, config: Ingest, result: Mapping[str, Any], samples: Samples) -> Report:
    """Return what the report shows. Holds 8 bytes per row."""
    heights, widths = [], []
    first: list[tuple[int, str, int]] = []
    for part in manifest.part_files(folder):
        table = pq.read_table(part, columns=["sample_id", "height", "width"], partitioning=None)
        heights.append(table["height"].to_numpy())
        widths.append(table["width"].to_numpy())
        found = ((key, str(part), i) for i, key in enumerate(table["sample_id"].to_pylist()))
        first = nsmallest(EXAMPLES, [*first, *found])
    left_out = {"not_selected": result["not_selected"], **result["rejected"]}
    kept = result["rows_kept"]
    return Report(
        title=f"Manifest {config.name}",
        subtitle=f"{result['rows_in']:,} rows in, {kept:,} kept ({kept / result['rows_in']:.1%})  ·  source "
        f"{config.source}  ·  {config.buckets} buckets  ·  {result['shards']:,} shards, {result['parts']:,} parts",
        rows_in=result["rows_in"],
        left_out={name: rows for name, rows in sorted(left_out.items(), key=lambda item: -item[1]) if rows},
        buckets=dict(sorted(result["buckets"].items(), key=lambda item: -item[1])),
        height_N=np.concatenate(heights),
        width_N=np.concatenate(widths),
        kept=[example(Path(part), row, config.max_pixels) for _, part, row in first],
        lost={
            reason: [Shown(picture=shown(row["picture"]), text=row["detail"], name=name_of(row)) for row in rows]
            for reason, rows in samples.found.items()
        },
    )


def example(part: Path, row: int, max_pixels: int) -> Shown:
    table = pq.read_table(part, columns=["captions", "image", "path"], partitioning=None).slice(row, 1)
    found = table.to_pylist()[0]
    return Shown(picture=small(found["image"], found["path"], max_pixels), text=found["captions"][0])


def small(data: bytes | None, path: str | None, max_pixels: int) -> Image.Image | None:
    """Return a small form of a kept picture, or None where the file was taken away since it was judged."""
    if data is None:
        assert path is not None, "a kept row has neither picture nor path"
        if not Path(path).is_file():
            return None
        data = Path(path).read_bytes()
    picture = decode(data, max_pixels=max_pixels, at_least=Size(TILE, TILE))
    if isinstance(picture, Reject):
        return None
    picture.image.thumbnail((2 * TILE, 2 * TILE))
    return picture.image


def name_of(row: Mapping[str, Any]) -> str:
    return str(row["key"] or row["source"])
