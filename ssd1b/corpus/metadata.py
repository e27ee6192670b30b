"""The metadata of a corpus of URLs in large batches, under our names and types, as `tables.py` reads it row by row.

What cannot be read is told in its place, so that every row of the corpus has one: a file without a readable end as one
row, and of a row group that breaks off the rows behind the break. Memory does not grow with files or row groups.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssd1b.command import show
from ssd1b.corpus.layouts import LAYOUTS, found_columns, layout_in, number
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.tables import READ_URLS
from ssd1b.recipes.ingest import Ingest

BATCH_ROWS = 1 << 16
BUFFER_BYTES = 1 << 20
"""Of a column that are read at a time: some corpora's row groups are whole files."""
SIDES = ("height", "width")
SCORES = ("clip_score", "aesthetic", "watermark", "unsafe", "language")
JUDGED = ("key", "url", "captions", "split", *SIDES, *SCORES, "sha256")
"""What a row's fate depends on."""
CARRIED = (*JUDGED, "licence", "noun_chunks", "ref_exps", "regions")
"""All that is known of a row."""
TEXTS = ("url", "captions", "split", "language", "sha256", "licence")
NUMBERS = (*SIDES, *SCORES[:-1])
File = tuple[Path, str]
"""Where it lies, and what it is called in keys."""
Part: TypeAlias = pa.RecordBatch | Reject


def rows_of(found: Part) -> int:
    """Return how many rows of the corpus a batch or what replaces it stands for."""
    rows: int = found.rows if isinstance(found, Reject) else len(found)
    return rows


def count(file: File, config: Ingest) -> int:
    """Return the rows of a file as `read` tells them."""
    try:
        rows: int = pq.read_metadata(file[0]).num_rows
    except (OSError, pa.ArrowException):
        return 1
    return rows if config.rows_limit is None else min(rows, config.rows_limit)


def wanted(files: Sequence[File], config: Ingest) -> Sequence[File]:
    """Return the files that a recipe reads."""
    return files if config.rows_limit is None else files[:1]


def read(files: Sequence[File], config: Ingest, fields: Sequence[str], stage: str) -> Iterator[Part]:
    """Yield the rows of the files in order, those fields that a file has, each row with a key.

    Raises:
        ValueError: a file lacks the URL or the caption, has several captions a row, or holds pictures itself.
    """
    for i, file in enumerate(files):
        show(f"ingest {config.name}: {stage} {file[1]}, file {i + 1} of {len(files)}")
        yield from read_file(file, config, fields)


def read_file(file: File, config: Ingest, fields: Sequence[str]) -> Iterator[Part]:
    path, name = file
    try:
        opened = pq.ParquetFile(path, buffer_size=BUFFER_BYTES)
    except (OSError, pa.ArrowException) as error:
        yield lost(config, name, str(error), 1)
        return
    with opened:
        columns = usable_columns(opened, config, path)
        columns = {ours: theirs for ours, theirs in columns.items() if ours in fields}
        left = config.rows_limit if config.rows_limit is not None else opened.metadata.num_rows
        start = 0
        for found in record_batches(opened, sorted(set(columns.values())), config, name):
            found = found if rows_of(found) <= left else cut(found, left)
            yield found if isinstance(found, Reject) else under_our_names(found, columns, name, start)
            start, left = start + rows_of(found), left - rows_of(found)
            if left <= 0:
                return


def usable_columns(file: pq.ParquetFile, config: Ingest, path: Path) -> dict[str, str]:
    """Return the columns of a file by our names.

    Raises:
        ValueError: as `read` does.
    """
    schema = file.schema_arrow
    found = found_columns(layout_in(schema, LAYOUTS[config.source], path), schema.names, path)
    if "image" in found:
        raise ValueError(
            f"{path} holds pictures, in its column {found['image']}: there is nothing to fetch later; leave out "
            f"--set pictures=later"
        )
    for needed in ("url", "captions"):
        kind = schema.field(found[needed]).type if needed in found else None
        if kind is None or not is_text(kind):
            raise ValueError(f"{path}: {needed} is {kind or 'missing'}, but a corpus of URLs has one text a row")
    return found


def record_batches(file: pq.ParquetFile, columns: list[str], config: Ingest, name: str) -> Iterator[Part]:
    """Yield a file in batches; where one cannot be read, its row groups one by one as far as they go."""
    for groups in runs(file.metadata):
        given = 0
        try:
            for batch in file.iter_batches(BATCH_ROWS, groups, columns):
                given += len(batch)
                yield batch
        except (OSError, pa.ArrowException):
            for group in groups:
                rows = file.metadata.row_group(group).num_rows
                yield from rest_of_group(file, group, min(given, rows), columns, config, name)
                given -= min(given, rows)


def runs(metadata: pq.FileMetaData) -> list[list[int]]:
    """Return the row groups in order, small ones together up to a batch."""
    sizes = np.array([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], np.int64)
    batch_of = np.cumsum(sizes) // BATCH_ROWS
    return [[i for i, _ in run] for _, run in groupby(enumerate(batch_of.tolist()), lambda item: item[1])]


def rest_of_group(
    file: pq.ParquetFile, group: int, given: int, columns: list[str], config: Ingest, name: str
) -> Iterator[Part]:
    """Yield a row group's rows behind the first `given`, as far as `tables.read_row_group` can read them."""
    at, rows = 0, file.metadata.row_group(group).num_rows
    try:
        for batch in file.iter_batches(READ_URLS, [group], columns):
            at += len(batch)
            if at > given:
                yield batch.slice(max(0, len(batch) - (at - given)))
    except (OSError, pa.ArrowException) as error:
        yield lost(config, name, f"row group {group}: {error}", rows - max(at, given))


def lost(config: Ingest, name: str, problem: str, rows: int) -> Reject:
    detail = problem.splitlines()[0] if problem else "cannot be read"
    return Reject(reason=Reason.UNREADABLE_SHARD, source=config.name, key=name, detail=detail, rows=rows)


def cut(found: Part, rows: int) -> Part:
    if isinstance(found, Reject):
        return Reject(reason=found.reason, source=found.source, key=found.key, detail=found.detail, rows=rows)
    return found.slice(0, rows)


def under_our_names(batch: pa.RecordBatch, columns: dict[str, str], name: str, start: int) -> pa.RecordBatch:
    """Return a batch by our names: texts as text, numbers as float64, a key in every row, lists as they are."""
    named = {ours: batch.column(theirs) for ours, theirs in columns.items()}
    made = {ours: as_text(named[ours]) for ours in TEXTS if ours in named}
    made |= {ours: as_numbers(named[ours]) for ours in NUMBERS if ours in named}
    return pa.RecordBatch.from_pydict({**named, **made, "key": keys(named.get("key"), len(batch), name, start)})


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def as_text(column: pa.Array) -> pa.Array:
    """Return a column as Python's str would write it, null where it is null."""
    if is_text(column.type) or pa.types.is_integer(column.type):
        return pc.cast(column, pa.string())
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())


def as_numbers(column: pa.Array) -> pa.Array:
    """Return a column as `layouts.number` reads its values, but for what is not finite."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        return pc.cast(column, pa.float64(), safe=False)
    return pa.array([number(value) for value in column.to_pylist()], pa.float64())


def keys(column: pa.Array | None, count: int, name: str, start: int) -> pa.Array:
    """Return the keys of a batch as text; a row without one is known by its file and number."""
    text = pa.nulls(count, pa.string()) if column is None else as_text(column)
    without = pc.or_(pc.is_null(text), pc.equal(text, "").fill_null(False)).to_numpy(zero_copy_only=False)
    if not without.any():
        return text
    numbers = np.flatnonzero(without) + start
    return pc.replace_with_mask(text, pa.array(without), pa.array([f"{name}#{number}" for number in numbers.tolist()]))
