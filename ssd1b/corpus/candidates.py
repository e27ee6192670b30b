"""The metadata path: from a corpus of URLs to the rows that are worth fetching, before anything is fetched.

    parquet -> filters -> duplicates by key and by URL -> parquet, one partition per bucket of the declared size

The corpus is read twice. The first reading judges: of each row two bytes are kept, and of each that passes 16 more, the
hashes of its key and its URL. With what finding duplicates takes for a moment, memory grows by BYTES_PER_ROW and by
nothing else. The second reading writes. What is written has the layout of a corpus of URLs itself, so its folder can be
the path of jobs.ingest, which fetches and judges the pictures; and it has the columns by which the elastic order counts
rows. GRIT's regions are not carried along.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssd1b.corpus.columns import CODE, REASONS, Codes, Columns, refusals, size_codes
from ssd1b.corpus.duplicates import repeats
from ssd1b.corpus.layouts import LAYOUTS, found_columns
from ssd1b.corpus.manifest import split_of
from ssd1b.corpus.partitions import Partitions
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import BUCKETS, Ingest

# N rows of the corpus, M of them pass the filters, B rows of a batch

BYTES_PER_ROW = 24
BATCH_ROWS = 1 << 16
HASH_PARTS = 32
"""Duplicates are looked for in so many parts of the hashes, one after the other, so that sorting takes little room."""
SCORE_NAMES = ("clip_score", "aesthetic", "watermark", "unsafe", "language")
SIDES = ("height", "width")
CARRIED = ("sha256", "licence")
"""What the rule does not look at, but who fetches does."""
SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.uint64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        *(pa.field(name, pa.int32()) for name in SIDES),
        *(pa.field(name, pa.string() if name == "language" else pa.float64()) for name in SCORE_NAMES),
        *(pa.field(name, pa.string()) for name in CARRIED),
    ]
)
Ids = NDArray[np.uint64]


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - started

    def each(self, stage: str, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, counting the time that they take to come."""
        iterator = iter(items)
        while True:
            with self.timed(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item


def candidates(
    files: list[tuple[Path, str]], config: Ingest, folder: Path, *, part_rows: int, clock: Clock
) -> dict[str, int]:
    """Write the rows of a corpus of URLs that are worth fetching below a folder; return rows by reason, and `kept`.

    `files` are paths with the names by which rows without a key are known. Rows lie in the order of the files; of
    equal keys the first stays, of equal URLs the row with the smallest sample_id. Equal means equal in the first 64
    bits of SHA-256: of 15 million rows one is lost to chance in 160,000 corpora.

    Raises:
        ValueError: a file lacks a column, has one of another type, or is cut.
        OSError: a file cannot be read or written.
    """
    total = sum(pq.read_metadata(path).num_rows for path, _ in files)
    code_N = np.zeros(total, np.uint8)
    id_M, url_M = np.zeros(total, np.uint64), np.zeros(total, np.uint64)  # what is not written takes no memory
    passed = at = 0
    for batch in read(files, config, clock):
        with clock.timed("filter"):
            code_B = judge(batch, config)
        code_N[at : at + len(batch)] = code_B
        at += len(batch)
        good = batch.filter(pa.array(code_B == 0))
        with clock.timed("hash"):
            until = passed + len(good)
            id_M[passed:until] = hashes(f"{prefix(config)}\0".encode(), good["key"])
            url_M[passed:until] = hashes(b"", good["url"])
            passed = until
    with clock.timed("duplicates"):
        id_M = id_M[:passed]
        fate_M = duplicates(id_M, url_M[:passed])
        del url_M
    with Partitions(folder, SCHEMA, part_rows) as partitions:
        write(read(files, config, clock), config, (code_N, id_M, fate_M), partitions, clock)
    counted = np.bincount(code_N, minlength=len(REASONS)).tolist()
    return {reason.value if reason else "kept": rows for reason, rows in zip(REASONS, counted, strict=True) if rows}


def prefix(config: Ingest) -> str:
    """Return the source that the corpus's pairs name, the first part of what sample_id hashes."""
    return LAYOUTS[config.source].corpus or config.name


def read(files: list[tuple[Path, str]], config: Ingest, clock: Clock) -> Iterator[pa.RecordBatch]:
    """Yield the metadata in batches under our names, each with a key."""
    layout = LAYOUTS[config.source]
    for path, name in files:
        with pq.ParquetFile(path) as file:
            found = found_columns(layout, file.schema_arrow.names, path)
            wanted = ("key", "url", "captions", "split", *SIDES, *SCORE_NAMES, *CARRIED)
            columns = {ours: found[ours] for ours in wanted if ours in found}
            for needed in ("url", "captions"):
                kind = file.schema_arrow.field(columns[needed]).type if needed in columns else None
                if kind not in (pa.string(), pa.large_string()):
                    raise ValueError(
                        f"{path}: {needed} is {kind or 'missing'}, but a corpus of URLs has one text a row"
                    )
            start = 0
            for batch in clock.each("read", file.iter_batches(BATCH_ROWS, columns=sorted(set(columns.values())))):
                renamed = {ours: batch.column(theirs) for ours, theirs in columns.items()}
                renamed["key"] = keys(renamed.get("key"), len(batch), name, start)
                start += len(batch)
                yield pa.RecordBatch.from_pydict(renamed)


def keys(column: pa.Array | None, count: int, name: str, start: int) -> pa.Array:
    """Return the keys of a batch as text; a row without one is known by its file and number."""
    text = pa.nulls(count, pa.string()) if column is None else pc.cast(column, pa.string())
    without = pc.or_(pc.is_null(text), pc.equal(text, "").fill_null(False)).to_numpy(zero_copy_only=False)
    if not without.any():
        return text
    numbers = np.flatnonzero(without) + start
    return pc.replace_with_mask(text, pa.array(without), pa.array([f"{name}#{number}" for number in numbers.tolist()]))


def judge(batch: pa.RecordBatch, config: Ingest) -> Codes:
    """Return the code of each row, shape (B,); a row without a URL has no picture."""
    code_B, _ = refusals(columns_of(batch), config)
    nowhere = pc.or_(pc.is_null(batch["url"]), pc.equal(batch["url"], "").fill_null(False))
    code_B[nowhere.to_numpy(zero_copy_only=False)] = CODE[Reason.IMAGE_MISSING]
    return code_B


def columns_of(batch: pa.RecordBatch) -> Columns:
    given = set(batch.schema.names)
    return Columns(caption=batch["captions"], **{name: batch[name] for name in (*SIDES, *SCORE_NAMES) if name in given})


def hashes(start: bytes, texts: pa.Array) -> Ids:
    """Return the first 8 bytes of SHA-256 of `start` and each text, as `manifest.sample_id` has them."""
    sha256 = hashlib.sha256
    found = b"".join([sha256(start + text.encode()).digest()[:8] for text in texts.to_pylist()])
    return np.frombuffer(found, ">u8").astype(np.uint64)


def duplicates(id_M: Ids, url_M: Ids) -> Codes:
    """Return DUPLICATE_KEY or DUPLICATE_URL where a row is one, shape (M,), else 0."""
    fate_M = np.zeros(len(id_M), np.uint8)
    for value_M, rank_M, reason in ((id_M, None, Reason.DUPLICATE_KEY), (url_M, id_M, Reason.DUPLICATE_URL)):
        for part in range(HASH_PARTS):
            first = part * (1 << 64) // HASH_PARTS
            last = (part + 1) * (1 << 64) // HASH_PARTS - 1
            here = np.flatnonzero((value_M >= np.uint64(first)) & (value_M <= np.uint64(last)) & (fate_M == 0))
            again = repeats(here if rank_M is None else rank_M[here], value_M[here])
            fate_M[here[again]] = CODE[reason]
    return fate_M


def write(
    batches: Iterator[pa.RecordBatch],
    config: Ingest,
    found: tuple[Codes, Ids, Codes],
    partitions: Partitions,
    clock: Clock,
) -> None:
    """Write the rows that are in to their buckets, and put the fate of those that passed the filters into code_N."""
    code_N, id_M, fate_M = found
    buckets = BUCKETS[config.buckets]
    at = passed = 0
    for batch in batches:
        code_B = code_N[at : at + len(batch)]
        at += len(batch)
        good = np.flatnonzero(code_B == 0)
        fate = fate_M[passed : passed + len(good)]
        id_B = id_M[passed : passed + len(good)][fate == 0]
        passed += len(good)
        code_B[good] = fate
        with clock.timed("split"):
            rows = batch.take(pa.array(good[fate == 0]))
            split = splits(rows, config)
        with clock.timed("write"):
            table = as_table(rows, id_B, split)
            _, bucket_B = size_codes(columns_of(rows), config, len(rows))
            for bucket in np.unique(bucket_B).tolist():
                chosen = table.filter(pa.array(bucket_B == bucket))
                partitions.add(str(buckets[bucket]) if bucket >= 0 else "unknown", chosen)


def splits(rows: pa.RecordBatch, config: Ingest) -> list[str]:
    """Return the split of each row, as `filters.split_for` chooses it."""
    source, share = prefix(config), config.heldout_share
    told = rows["split"].to_pylist() if "split" in rows.schema.names else [None] * len(rows)
    return [
        ("train" if split == "train" else "heldout") if split else split_of(f"{source}/{key}", share)
        for split, key in zip(told, rows["key"].to_pylist(), strict=True)
    ]


def as_table(rows: pa.RecordBatch, id_B: Ids, split: list[str]) -> pa.Table:
    """Return rows under the names and types of SCHEMA."""
    made = {"sample_id": pa.array(id_B), "split": pa.array(split, pa.string()), "caption": rows["captions"]}
    given = {name: rows[name] for name in SCHEMA.names if name in rows.schema.names}
    columns = {**given, **made}
    return pa.table(
        [
            pc.cast(columns[field.name], field.type) if field.name in columns else pa.nulls(len(rows), field.type)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )
