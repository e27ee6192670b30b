"""What jobs.ingest shows of a manifest or of candidates: of the parts, and of the sample of what was left out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
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
SIZES = 1 << 18
"""Sizes that the histograms count: of more rows every second, or third, and so on."""
Place = tuple[int, Path, int]
"""sample_id, part, and row in it."""


def write_sheet(folder: Path, config: Ingest, result: Mapping[str, Any], samples: Samples) -> None:
    """Draw the report of the parts in a folder and keep it there."""
    draw(gather(folder, config, result, samples)).save(folder / manifest.SHEET)


def gather(folder: Path, config: Ingest, result: Mapping[str, Any], samples: Samples) -> Report:
    """Return what the report shows. Takes no more memory for more rows."""
    kept = result["rows_kept"]
    every = -(-kept // SIZES)
    sides: dict[str, list[NDArray[np.int64]]] = {"height": [], "width": []}
    first: list[Place] = []
    seen = 0
    for part in manifest.part_files(folder):
        table = pq.read_table(part, columns=["sample_id", *sides], partitioning=None)
        some = table.take(pa.array(np.arange(-seen % every, len(table), every)))
        some = some.filter(pc.is_valid(some["height"]))  # candidates can be of unknown size
        for name, found in sides.items():
            found.append(some[name].to_numpy())
        first = sorted([*first, *smallest(part, table["sample_id"].to_numpy())])[:EXAMPLES]
        seen += len(table)
    left_out = {"not_selected": result["not_selected"], **result["rejected"]}
    later = config.pictures == "later"
    return Report(
        title=f"{'Candidates' if later else 'Manifest'} {config.name}",
        subtitle=f"{result['rows_in']:,} rows in, {kept:,} kept ({kept / result['rows_in']:.1%})  ·  source "
        f"{config.source}  ·  {config.buckets} buckets  ·  from {result['shards']:,} "
        f"{'file' if later else 'shard'}{'s' * (result['shards'] != 1)}, {result['parts']:,} parts",
        rows_in=result["rows_in"],
        left_out={name: rows for name, rows in sorted(left_out.items(), key=lambda item: -item[1]) if rows},
        buckets=dict(sorted(result["buckets"].items(), key=lambda item: -item[1])),
        height_N=np.concatenate(sides["height"]),
        width_N=np.concatenate(sides["width"]),
        kept=[example(part, row, config.max_pixels) for _, part, row in first],
        lost={
            reason: [Shown(picture=shown(row["picture"]), text=row["detail"], name=name_of(row)) for row in rows]
            for reason, rows in samples.found.items()
        },
    )


def smallest(part: Path, id_N: NDArray[np.uint64]) -> list[Place]:
    """Return the places of the rows of a part that have the smallest sample_id."""
    rows = np.argpartition(id_N, EXAMPLES)[:EXAMPLES] if len(id_N) > EXAMPLES else np.arange(len(id_N))
    return [(int(id_N[row]), part, int(row)) for row in rows]


def example(part: Path, row: int, max_pixels: int) -> Shown:
    with pq.ParquetFile(part) as file:
        present = set(file.schema_arrow.names) & {"captions", "image", "path", "caption", "url"}
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                break
            row -= rows
        found = file.read_row_group(group, columns=sorted(present)).slice(row, 1).to_pylist()[0]
    if "captions" not in found:  # a candidate
        return Shown(picture=None, text=found["caption"], name=found["url"])
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
