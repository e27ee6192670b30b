"""Parquet files as pairs: one row, one pair, under the names that layouts.py knows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssd1b.corpus import regions
from ssd1b.corpus.layouts import PICTURES, Layout, found_columns, layout_in, scores
from ssd1b.corpus.pair import Pair, labels, texts
from ssd1b.corpus.reasons import Reason, Reject

READ_ROWS = 64
"""Rows with pictures that are in memory at a time."""
READ_URLS = 1024
"""The same of rows without."""


def row_groups(path: Path, layout: Layout = PICTURES) -> list[int]:
    """Return the rows of each row group of a Parquet file.

    Raises:
        OSError, pyarrow.ArrowInvalid: the file has no readable footer, as after a cut transfer.
        ValueError: it lacks a column that the layout needs, or holds candidates of another corpus.
    """
    with pq.ParquetFile(path) as file:
        found_columns(layout_in(file.schema_arrow, layout, path), file.schema_arrow.names, path)
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def read_row_group(
    path: Path, row_group: int, name: str, layout: Layout = PICTURES, first: int = 0, rows: int | None = None
) -> Iterator[Pair | Reject]:
    """Yield the pairs of a row group, or `rows` of them from the one at `first`; `name` is the file's in keys.

    A row group that breaks off yields one Reject for the rows that are lost. Bytes are checked against the checksums of
    their pages, where the file has any.
    """
    at, end = first, first + (rows or 0)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            total = file.metadata.row_group(row_group).num_rows
            end = total if rows is None else min(total, first + rows)
            before = sum(file.metadata.row_group(i).num_rows for i in range(row_group))
            columns = found_columns(layout_in(file.schema_arrow, layout, path), file.schema_arrow.names, path)
            batch_rows = READ_ROWS if "image" in columns else READ_URLS
            seen = 0
            for batch in file.iter_batches(batch_rows, [row_group], sorted(set(columns.values()))):
                wanted = batch.slice(max(0, at - seen), max(0, end - max(at, seen)))
                seen += len(batch)
                for row in wanted.to_pylist():
                    ours = {field: row[column] for field, column in columns.items()}
                    yield pair_of(ours, name, before + at, layout)
                    at += 1
                if at >= end:
                    return
    except (OSError, pa.ArrowException) as error:
        detail = f"row group {row_group}: {str(error).splitlines()[0]}"
        yield Reject(reason=Reason.UNREADABLE_SHARD, source=name, key=name, detail=detail, rows=max(end - at, 1))


def pair_of(row: Mapping[str, Any], name: str, number: int, layout: Layout = PICTURES) -> Pair | Reject:
    """Return the pair that a row holds, by our field names; a row without a key is known by its file and number."""
    source = layout.corpus or str(row.get("source") or name)
    key = str(row["key"]) if row.get("key") not in (None, "") else f"{name}#{number}"
    image: Any = row.get("image")
    path = None
    if isinstance(image, dict):
        image, path = image.get("bytes"), image.get("path")
    image = image if isinstance(image, bytes) and image else None
    url = row.get("url") or None
    if image is None and url is None and not (path and Path(path).is_absolute()):
        return Reject(reason=Reason.IMAGE_MISSING, source=source, key=key, detail=f"path {path}" if path else "")
    captions = texts(row.get("captions"))
    first = captions[0] if captions else ""
    packed = row.get("regions")
    return Pair(
        source=source,
        key=key,
        captions=captions,
        image=image,
        path=path if image is None and url is None else None,
        url=url,
        sha256=row.get("sha256") or None,
        regions=tuple(packed) if packed else regions.pack(row.get("noun_chunks"), row.get("ref_exps"), first),
        **scores(row),
        **labels(row),
    )
