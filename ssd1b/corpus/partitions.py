"""Many rows to a partition per bucket, in files of even size, without holding more than a row group of each."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 1 << 14
"""Rows of a row group: what a reader of one row must read."""


class Partition:
    """The files of one bucket. A file takes its name once it is whole."""

    def __init__(self, folder: Path, schema: pa.Schema, part_rows: int, repeating: Sequence[str]) -> None:
        self.folder = folder
        self.schema = schema
        self.part_rows = part_rows
        self.repeating = list(repeating)
        self.waiting: list[pa.Table] = []
        self.waiting_rows = 0
        self.writer: pq.ParquetWriter | None = None
        self.parts = 0
        self.rows_of_part = 0

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.waiting_rows += len(table)
        while self.waiting_rows >= GROUP_ROWS:
            self.write(GROUP_ROWS)

    def write(self, count: int) -> None:
        """Write so many of the waiting rows as a row group."""
        table = pa.concat_tables(self.waiting)
        if self.writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.writer = pq.ParquetWriter(self.aside, self.schema, compression="zstd", use_dictionary=self.repeating)
        self.writer.write_table(table.slice(0, count).combine_chunks())
        self.rows_of_part += min(count, len(table))
        self.waiting = [table.slice(count)]
        self.waiting_rows = max(0, len(table) - count)
        if self.rows_of_part >= self.part_rows:
            self.finish()

    @property
    def aside(self) -> Path:
        return self.folder / f".part-{self.parts:05d}.{os.getpid()}"

    def finish(self) -> None:
        """Close the file that is open and give it its name."""
        if self.writer is not None:
            self.writer.close()
            self.aside.rename(self.folder / f"part-{self.parts:05d}.parquet")
            self.writer, self.rows_of_part = None, 0
            self.parts += 1

    def close(self) -> None:
        if self.waiting_rows:
            self.write(self.waiting_rows)
        self.finish()


class Partitions:
    """The partitions of all buckets below a folder: `with Partitions(...) as p: p.add("1024x1024", table)`.

    `repeating` names the columns of few values: to make a dictionary of any other is work that is thrown away.
    """

    def __init__(self, folder: Path, schema: pa.Schema, part_rows: int, repeating: Sequence[str] = ()) -> None:
        self.folder = folder
        self.schema = schema
        self.part_rows = part_rows
        self.repeating = repeating
        self.of_bucket: dict[str, Partition] = {}

    def __enter__(self) -> "Partitions":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for partition in self.of_bucket.values():
                partition.close()

    def add(self, bucket: str, table: pa.Table) -> None:
        """Take rows of a bucket, in the order in which they will lie."""
        if bucket not in self.of_bucket:
            folder = self.folder / f"bucket={bucket}"
            self.of_bucket[bucket] = Partition(folder, self.schema, self.part_rows, self.repeating)
        self.of_bucket[bucket].add(table)
