"""Where the rows of latents lie, and reading them in any order.

The index of a folder holds 16 bytes for every row that is trained on, and is made from two columns without a Python
object for a row. A reader is asked for many rows at once and opens each row group that holds some of them once.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssd1b.elastic.gather import Pick, gather
from ssd1b.elastic.mixture import Share
from ssd1b.elastic.slices import Order

# N rows asked for

COLUMNS = (
    "sample_id", "mean", "std", "original_height", "original_width",
    "crop_top", "crop_left", "target_height", "target_width", "captions",
)  # fmt: skip
CACHE_BYTES = 256 * 2**20
"""Row groups that a reading process keeps: the whole of a small corpus; of a large one just those last read."""
INDEX_THREADS = 8
"""Files that are indexed at once: most of the time goes in waiting for storage."""


@dataclass(frozen=True)
class Bucket:
    """Where the rows of one bucket lie: row groups in files, and which of all their rows are trained on."""

    name: str
    files: tuple[str, ...]
    file_of: NDArray[np.int32]
    """For each row group, which of the files it is in."""
    group_of: NDArray[np.int32]
    """And which of that file's row groups it is."""
    starts: NDArray[np.int64]
    """First row of each row group in the bucket's own numbering."""
    rows: NDArray[np.int64]
    """The rows that are trained on, in the same numbering."""
    sample_ids: NDArray[np.uint64]
    """Of those rows."""


@dataclass(frozen=True)
class Latents:
    """The rows of latents that are trained on, by bucket."""

    buckets: tuple[Bucket, ...]
    mixture: tuple[Share, ...] = ()
    """The corpora, where there are several; each has the next buckets."""

    @staticmethod
    def open(folder: Path) -> "Latents":
        """Index the training rows of a latents folder.

        Raises:
            ValueError: nothing to train on; the message names the folder and the job that fills it.
        """
        buckets = [index(part) for part in sorted(folder.glob("bucket=*")) if part.is_dir()]
        kept = tuple(bucket for bucket in buckets if len(bucket.rows))
        if not kept:
            raise ValueError(
                f"no latents to train on under {folder}: run `python -m jobs.encode` first, "
                f"so that it writes {folder}/bucket=<WxH>/*.parquet"
            )
        return Latents(kept)

    @staticmethod
    def mix(corpora: Sequence[tuple["Latents", int | Fraction]]) -> "Latents":
        """Return several corpora as one, each with its weight. A corpus alone is itself, whatever its weight.

        Raises:
            ValueError: a sample lies in two of them.
        """
        if len(corpora) == 1:
            return corpora[0][0]
        assert all(not corpus.mixture for corpus, _ in corpora)
        ids = np.sort(np.concatenate([bucket.sample_ids for corpus, _ in corpora for bucket in corpus.buckets]))
        if shared := np.unique(ids[1:][ids[1:] == ids[:-1]]).tolist():
            raise ValueError(
                f"{len(shared):,} samples lie in two of the corpora to be mixed, sample_id {shared[0]} among them, and "
                f"would be taken by both: mix corpora of unlike sources, or make one manifest of them"
            )
        return Latents(
            tuple(bucket for corpus, _ in corpora for bucket in corpus.buckets),
            tuple(Share(weight, len(corpus.buckets)) for corpus, weight in corpora),
        )

    def order(self, *, global_batch: int, slices: int, seed: int) -> Order:
        """Return the elastic order of these rows."""
        return Order(
            bucket_rows=tuple(len(bucket.rows) for bucket in self.buckets),
            global_batch=global_batch,
            slices=slices,
            seed=seed,
            mixture=self.mixture,
        )

    def fingerprint(self) -> str:
        """Return a digest of which samples stand where: a run cannot be resumed on others."""
        digest = hashlib.sha256()
        for bucket in self.buckets:
            digest.update(bucket.name.encode() + bucket.sample_ids.tobytes())
        for share in self.mixture:
            digest.update(f"{share.weight} {share.buckets} ".encode())
        return digest.hexdigest()[:16]

    def read(self, bucket_N: NDArray[np.int64] | int, row_N: NDArray[np.int64]) -> pa.Table:
        """Return rows in the order asked for, each given by its bucket and its number among the bucket's rows.

        Every row group that holds some of them is read once.
        """
        bucket_N = np.broadcast_to(bucket_N, row_N.shape)
        picks = []
        for bucket in np.unique(bucket_N).tolist():
            where = self.buckets[bucket]
            of_bucket = np.flatnonzero(bucket_N == bucket)
            stored = where.rows[row_N[of_bucket]]
            group = np.searchsorted(where.starts, stored, side="right") - 1
            for one in np.unique(group).tolist():
                chosen = np.flatnonzero(group == one)
                table = held.get(where.files[where.file_of[one]], int(where.group_of[one]))
                picks.append(Pick(table, stored[chosen] - where.starts[one], of_bucket[chosen]))
        return gather(picks)


def index(folder: Path) -> Bucket:
    """Return where the rows of a bucket folder lie."""
    paths = sorted(folder.glob("*.parquet"))
    with ThreadPoolExecutor(INDEX_THREADS) as threads:
        found = list(threads.map(rows_of, paths))
    sizes = np.concatenate([np.zeros(0, np.int64), *(sizes for sizes, _, _ in found)])
    groups = [len(sizes) for sizes, _, _ in found]
    totals = np.array([sizes.sum() for sizes, _, _ in found], np.int64)
    before = (np.cumsum(totals) - totals).tolist()
    rows = [kept_rows + first for (_, kept_rows, _), first in zip(found, before, strict=True)]
    return Bucket(
        name=folder.name.removeprefix("bucket="),
        files=tuple(map(str, paths)),
        file_of=np.repeat(np.arange(len(paths), dtype=np.int32), groups),
        group_of=np.concatenate([np.zeros(0, np.int32), *(np.arange(count, dtype=np.int32) for count in groups)]),
        starts=np.cumsum(sizes) - sizes,
        rows=np.concatenate([np.zeros(0, np.int64), *rows]),
        sample_ids=np.concatenate([np.zeros(0, np.uint64), *(ids for _, _, ids in found)]),
    )


def rows_of(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Return of a file the sizes of its row groups, the rows that are trained on, and their sample ids."""
    with pq.ParquetFile(path, pre_buffer=True) as file:
        told = file.metadata
        sizes = np.array([told.row_group(group).num_rows for group in range(told.num_row_groups)], np.int64)
        table = file.read(columns=["sample_id", "split"], use_threads=False)
    trained = pc.equal(table["split"], "train").to_numpy()
    return sizes, np.flatnonzero(trained), table["sample_id"].to_numpy()[trained]


class RowGroups:
    """The row groups that were read last, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.tables: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def get(self, path: str, group: int) -> pa.Table:
        """Return a row group, from storage if need be."""
        key = (path, group)
        if key in self.tables:
            self.tables.move_to_end(key)
            return self.tables[key]
        table = read_group(path, group)
        self.tables[key] = table
        self.held_bytes += table.nbytes
        while self.held_bytes > self.limit_bytes:
            self.held_bytes -= self.tables.popitem(last=False)[1].nbytes
        return table


held = RowGroups(CACHE_BYTES)


def read_group(path: str, group: int) -> pa.Table:
    """Read one row group from storage."""
    with pq.ParquetFile(path, metadata=footer(path)) as file:
        return file.read_row_group(group, columns=list(COLUMNS))


@lru_cache(maxsize=256)
def footer(path: str) -> pq.FileMetaData:
    """Return a file's own index, which costs as much to read as a small row group."""
    return pq.read_metadata(path)
