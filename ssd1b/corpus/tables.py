"""The Parquet source: one pair per row, under the column names that such corpora commonly have."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssd1b.corpus.pair import LABELS, Pair, labels, texts
from ssd1b.corpus.reasons import Reason, Reject

IMAGE = ("image", "jpg", "image_bytes")
"""Bytes, or a struct with a field `bytes`, as Hugging Face datasets write pictures."""
CAPTION = ("captions", "caption", "text", "prompt")
CLIP_SCORE = ("clip_score", "clip_similarity_vitl14")
READ_ROWS = 64


def column(names: tuple[str, ...], present: list[str]) -> str | None:
    return next((name for name in names if name in present), None)


def row_groups(path: Path) -> list[int]:
    """Return the rows of each row group of a Parquet file.

    Raises:
        OSError, pyarrow.ArrowInvalid: the file has no readable footer, as after a cut transfer.
        ValueError: it has no column of pictures or none of captions.
    """
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        for wanted in (IMAGE, CAPTION):
            if column(wanted, names) is None:
                raise ValueError(f"{path} has no column {' or '.join(wanted)}: its columns are {', '.join(names)}")
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def read_row_group(path: Path, row_group: int, name: str) -> Iterator[Pair | Reject]:
    """Yield the pairs of a row group; `name` is the file's name in keys and, without a source column, its source.

    A row group that breaks off yields one Reject for the rows that are lost.
    """
    read = total = 0
    try:
        with pq.ParquetFile(path) as file:
            total = file.metadata.row_group(row_group).num_rows
            first = sum(file.metadata.row_group(i).num_rows for i in range(row_group))
            wanted = [*IMAGE, *CAPTION, *CLIP_SCORE, *LABELS, "aesthetic", "key", "source"]
            columns = [name for name in file.schema_arrow.names if name in wanted]
            for batch in file.iter_batches(READ_ROWS, [row_group], columns):
                for row in batch.to_pylist():
                    yield pair_of(row, name, first + read)
                    read += 1
    except (OSError, pa.ArrowException) as error:
        detail = f"row group {row_group}: {str(error).splitlines()[0]}"
        yield Reject(reason=Reason.UNREADABLE_SHARD, source=name, key=name, detail=detail, rows=max(total - read, 1))


def pair_of(row: Mapping[str, Any], name: str, number: int) -> Pair | Reject:
    """Return the pair that a row holds; a row without a key is known by its file and number."""
    present = list(row)
    image, text = row[column(IMAGE, present) or ""], row[column(CAPTION, present) or ""]
    image = image["bytes"] if isinstance(image, dict) else image
    source, key = str(row.get("source") or name), str(row.get("key") or f"{name}#{number}")
    if not image:
        return Reject(reason=Reason.IMAGE_MISSING, source=source, key=key)
    score = column(CLIP_SCORE, present)
    return Pair(
        source=source,
        key=key,
        captions=texts(text),
        image=image,
        clip_score=row[score] if score else None,
        aesthetic=row.get("aesthetic"),
        **labels(row),
    )
