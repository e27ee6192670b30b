"""The metadata path: from a corpus of URLs to the rows that are worth fetching, before anything is fetched.

    parquet -> filters -> duplicates by key and by URL -> parquet, one partition per bucket of the declared size

The corpus is read twice. The first reading judges: of each row two bytes are kept, and of each that passes 16 more, the
hashes of its key and its URL. With what finding duplicates takes for a moment, memory grows by BYTES_PER_ROW and by
nothing else. The second reading writes. What is written has a layout that `tables.py` knows, so that jobs.ingest takes
it for the corpus, fetches and judges the pictures; and it has the columns by which the elastic order counts rows.

To ingest candidates is to ingest their corpus, but for one thing: where rows of one key name unlike URLs, the first of
them is the candidate, whether or not its picture will be there.
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssd1b.corpus.columns import CODE, REASONS, Codes, Columns, numbers, refusals, size_codes, tidied
from ssd1b.corpus.duplicates import repeats
from ssd1b.corpus.layouts import LAYOUTS, MARK
from ssd1b.corpus.manifest import split_of
from ssd1b.corpus.metadata import CARRIED, JUDGED, SCORES, SIDES, File, Part, count, read, rows_of, wanted
from ssd1b.corpus.partitions import Partitions
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.region_columns import KIND, packed_columns
from ssd1b.corpus.rejected import Rejected
from ssd1b.corpus.samples import Samples
from ssd1b.recipes.ingest import BUCKETS, Ingest

# N rows of the corpus, M of them pass the filters, B rows of a batch

BYTES_PER_ROW = 24
HASH_PARTS = 32
"""Duplicates are looked for in so many parts of the hashes, one after the other, so that sorting takes little room."""
NOT_SELECTED = len(REASONS)
"""The code of a row whose split the recipe does not take."""
LARGEST_SIDE = 2**31 - 1
SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.uint64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),  # with single spaces
        pa.field("split", pa.string(), nullable=False),
        pa.field("given_split", pa.string()),  # what the corpus calls it, where it does
        *(pa.field(name, pa.int32()) for name in SIDES),
        *(pa.field(name, pa.string() if name == "language" else pa.float64()) for name in SCORES),
        pa.field("sha256", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("regions", KIND),  # see regions.py
    ]
)
REPEATING = ("split", "given_split", *SIDES, "language", "licence")
"""Columns of few values, which Parquet writes as a dictionary."""
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


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What became of a corpus."""

    tally: dict[str, int]
    """Rows by reason, and `kept` and `not_selected` where there are such."""
    splits: Counter[str] = field(default_factory=Counter)
    """Kept rows."""
    buckets: Counter[str] = field(default_factory=Counter)
    samples: Samples = field(default_factory=Samples)


@dataclass(frozen=True)
class Judged:
    """What the first reading found."""

    code_N: Codes
    """Why a row is out; 0 where it passes the filters, until the second reading fills in what duplicates are."""
    id_M: Ids
    fate_M: Codes
    """DUPLICATE_KEY, DUPLICATE_URL or 0."""


def candidates(files: Sequence[File], config: Ingest, folder: Path, *, part_rows: int, clock: Clock) -> Chosen:
    """Write the rows of a corpus of URLs that are worth fetching below a folder.

    Rows lie in the order of the files; of equal keys the first stays, of equal URLs the row with the smallest
    sample_id. Equal means equal in the first 64 bits of SHA-256: of 15 million rows one is lost to chance in 160,000
    corpora. A file or row group that cannot be read is counted as such.

    Raises:
        ValueError: a file lacks a column or has one of another type, or it changed between the readings.
        OSError: nothing can be written.
    """
    files = wanted(files, config)
    judged = judge_all(files, config, sum(count(file, config) for file in files), clock)
    chosen = Chosen(tally={})
    schema = SCHEMA.with_metadata({MARK: prefix(config)})
    with Partitions(folder, schema, part_rows, repeating=REPEATING) as partitions:
        write(clock.each("read", read(files, config, CARRIED, "writes")), config, judged, partitions, chosen, clock)
    names = [reason.value if reason else "kept" for reason in REASONS] + ["not_selected"]
    counted = np.bincount(judged.code_N, minlength=len(names)).tolist()
    chosen.tally.update({name: rows for name, rows in zip(names, counted, strict=True) if rows})
    return chosen


def judge_all(files: Sequence[File], config: Ingest, total: int, clock: Clock) -> Judged:
    """Read the corpus for the first time."""
    code_N = np.zeros(total, np.uint8)
    id_M, url_M = np.zeros(total, np.uint64), np.zeros(total, np.uint64)  # what is not written takes no memory
    passed = at = 0
    for found in clock.each("read", read(files, config, JUDGED, "judges")):
        here = slice(at, at + rows_of(found))
        at = here.stop
        if isinstance(found, Reject):
            code_N[here] = CODE[found.reason]
            continue
        with clock.timed("filter"):
            code_N[here] = judge(found, config)
        good = found.filter(pa.array(code_N[here] == 0))
        with clock.timed("hash"):
            until = passed + len(good)
            id_M[passed:until] = hashes(f"{prefix(config)}\0".encode(), good["key"])
            url_M[passed:until] = hashes(b"", pictures(good))
            passed = until
    check_rows(at, total)
    with clock.timed("duplicates"):
        return Judged(code_N, id_M[:passed], duplicates(id_M[:passed], url_M[:passed]))


def check_rows(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"the corpus changed while it was read: {found} rows instead of {expected}; start again")


def prefix(config: Ingest) -> str:
    """Return the source that the corpus's pairs name, the first part of what sample_id hashes."""
    return LAYOUTS[config.source].corpus or config.name


def judge(batch: pa.RecordBatch, config: Ingest) -> Codes:
    """Return the code of each row, shape (B,), in the order in which jobs.ingest asks.

    A row without a URL has no picture; what is not selected is not judged; then the filters.
    """
    code_B, _ = refusals(columns_of(batch), config)
    if config.splits:
        code_B[~np.isin(splits(batch, config), config.splits)] = NOT_SELECTED
    nowhere = pc.or_(pc.is_null(batch["url"]), pc.equal(batch["url"], "").fill_null(False))
    code_B[nowhere.to_numpy(zero_copy_only=False)] = CODE[Reason.IMAGE_MISSING]
    return code_B


def columns_of(batch: pa.RecordBatch) -> Columns:
    given = set(batch.schema.names)
    return Columns(caption=batch["captions"], **{name: batch[name] for name in (*SIDES, *SCORES) if name in given})


def pictures(batch: pa.RecordBatch) -> pa.Array:
    """Return what tells the rows' pictures apart: the URL, with the hash that the corpus lists of what lies there."""
    if "sha256" not in batch.schema.names:
        return batch["url"]
    return pc.binary_join_element_wise(batch["url"], pc.utf8_lower(batch["sha256"].fill_null("")), "\0")


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
    items: Iterator[Part], config: Ingest, judged: Judged, partitions: Partitions, chosen: Chosen, clock: Clock
) -> None:
    """Write the rows that are in to their buckets, and put the fate of those that passed the filters into code_N."""
    buckets = [*map(str, BUCKETS[config.buckets]), "unknown"]  # "unknown" is the last: its index is -1
    rejected = Rejected(config, chosen.samples)
    at = passed = 0
    for found in items:
        code_B = judged.code_N[at : at + rows_of(found)]
        good = np.flatnonzero(code_B == 0)
        fate, id_B = (column[passed : passed + len(good)] for column in (judged.fate_M, judged.id_M))
        passed += len(good)
        if isinstance(found, Reject):  # also where a column breaks off that the first reading did not need
            code_B[:] = CODE[found.reason]
            chosen.samples.add(found, max_pixels=config.max_pixels)
            at += rows_of(found)
            continue
        code_B[good] = fate
        with clock.timed("name rejects"):
            rejected.name(found, code_B, at)
        at += rows_of(found)
        with clock.timed("split"):
            rows = found.take(pa.array(good[fate == 0]))
            split = splits(rows, config)
            chosen.splits.update(split)
        with clock.timed("write"):
            _, bucket_B = size_codes(columns_of(rows), config, len(rows))
            made = made_of(rows, id_B[fate == 0], split, clock)
            for bucket in np.unique(bucket_B).tolist():
                of_bucket = made.take(pa.array(np.flatnonzero(bucket_B == bucket)))
                partitions.add(buckets[bucket], pa.Table.from_batches([of_bucket]))
                chosen.buckets[buckets[bucket]] += len(of_bucket)
    check_rows(at, len(judged.code_N))


def splits(rows: pa.RecordBatch, config: Ingest) -> list[str]:
    """Return the split of each row, as `filters.split_for` chooses it."""
    source, share = prefix(config), config.heldout_share
    told = rows["split"].to_pylist() if "split" in rows.schema.names else [None] * len(rows)
    return [
        ("train" if split == "train" else "heldout") if split else split_of(f"{source}/{key}", share)
        for split, key in zip(told, rows["key"].to_pylist(), strict=True)
    ]


def made_of(rows: pa.RecordBatch, id_B: Ids, split: list[str], clock: Clock) -> pa.RecordBatch:
    """Return rows under the names and types of SCHEMA."""
    given = {name: rows[name] for name in rows.schema.names}
    tidy = tidied(rows["captions"])
    known_B = np.ones(len(rows), bool)
    side_B = {name: np.trunc(numbers(given.get(name), len(rows))) for name in SIDES}
    for side in side_B.values():
        known_B &= (side >= 1) & (side <= LARGEST_SIDE)  # NaN is neither
    made = {name: pa.array(np.where(known_B, side, 0).astype(np.int32), mask=~known_B) for name, side in side_B.items()}
    if "regions" not in given and {"noun_chunks", "ref_exps"} & set(given):
        with clock.timed("of it regions"):
            made["regions"] = packed_columns(given.get("noun_chunks"), given.get("ref_exps"), rows["captions"], tidy)
    made |= {"sample_id": pa.array(id_B), "split": pa.array(split, pa.string()), "caption": tidy}
    columns = {**given, **made, "given_split": given.get("split", pa.nulls(len(rows), pa.string()))}
    arrays = [
        pc.cast(columns[each.name], each.type) if each.name in columns else pa.nulls(len(rows), each.type)
        for each in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
