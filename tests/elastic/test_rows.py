"""The index of latents and their reading: whole, near sequential, cheap in memory and in time."""

import shutil
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssd1b.elastic import rows as storage
from ssd1b.elastic.feed import ROWS_AT_ONCE, slots
from ssd1b.elastic.mixture import Share
from ssd1b.elastic.passes import CHUNK_ROWS, WINDOW_ROWS
from ssd1b.elastic.rows import Latents, RowGroups
from tests.training.synthetic import sample_id, write_latents


@pytest.fixture
def latents(tmp_path: Path) -> Latents:
    return Latents.open(write_latents(tmp_path / "latents"))


def write_ids(folder: Path, buckets: dict[str, int], *, file_rows: int, group_rows: int, first: int = 0) -> Path:
    """Write latents that are ids from `first` on and nothing else, one row in 8 held out. Returns the folder."""
    for name, count in buckets.items():
        for part, start in enumerate(range(0, count, file_rows)):
            ids = np.arange(first + start, first + min(start + file_rows, count), dtype=np.uint64)
            zeros = pa.array(np.zeros(len(ids), np.int32))
            columns = dict.fromkeys(storage.COLUMNS, zeros) | {
                "sample_id": pa.array(ids),
                "mean": pa.array([b""] * len(ids), pa.binary()),
                "std": pa.array([b""] * len(ids), pa.binary()),
                "captions": pa.array([[]] * len(ids), pa.list_(pa.string())),
                "split": pa.array(np.where(ids % 8 == 0, "heldout", "train")),
            }
            path = folder / f"bucket={name}" / f"part-{part:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), path, row_group_size=group_rows)
        first += count
    return folder


def test_rows_arrive_whole_and_held_out_ones_never(latents: Latents) -> None:
    assert [len(bucket.rows) for bucket in latents.buckets] == [40]
    rows = np.array([39, 0, 17, 5, 0])
    table = latents.read(0, rows)
    assert table["sample_id"].to_pylist() == latents.buckets[0].sample_ids[rows].tolist()
    assert max(table["sample_id"].to_pylist()) >= 2**63 > min(table["sample_id"].to_pylist()), "ids keep all 64 bits"
    everything = latents.read(0, np.arange(40))["sample_id"].to_pylist()
    assert len(set(everything)) == 40
    assert not {sample_id(i) for i in (4, 13, 22)} & set(everything), "a held-out sample is trained on"


def test_rows_of_several_buckets_arrive_in_the_order_asked_for(tmp_path: Path) -> None:
    latents = Latents.open(write_ids(tmp_path, {"a": 300, "b": 200}, file_rows=90, group_rows=16))
    random = np.random.default_rng(0)
    bucket_N = random.integers(2, size=400)
    row_N = random.integers([len(latents.buckets[bucket].rows) for bucket in bucket_N])
    expected = [
        int(latents.buckets[b].sample_ids[row]) for b, row in zip(bucket_N.tolist(), row_N.tolist(), strict=True)
    ]
    assert latents.read(bucket_N, row_N)["sample_id"].to_pylist() == expected
    assert set(expected) <= set(range(500))


def test_nothing_to_train_on_names_the_folder_and_the_job(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no latents to train on under .*/absent: run `python -m jobs.encode`"):
        Latents.open(tmp_path / "absent")
    (tmp_path / "none" / "bucket=128x128").mkdir(parents=True)
    with pytest.raises(ValueError, match="no latents to train on"):
        Latents.open(tmp_path / "none")


def test_the_fingerprint_knows_another_corpus_and_another_mixture(tmp_path: Path, latents: Latents) -> None:
    shutil.copytree(tmp_path / "latents", tmp_path / "copy")
    copy = Latents.open(tmp_path / "copy")
    assert copy.fingerprint() == latents.fingerprint()
    more = Latents.open(write_latents(tmp_path / "more", rows=41, first=1000))
    found = {corpus.fingerprint() for corpus in (latents, more, Latents.mix([(latents, 1), (more, 1)]),
             Latents.mix([(latents, 2), (more, 1)]), Latents.mix([(more, 1), (latents, 1)]))}  # fmt: skip
    assert len(found) == 5


def test_a_mixture_takes_from_each_corpus_its_share(tmp_path: Path) -> None:
    few = Latents.open(write_ids(tmp_path / "few", {"a": 30}, file_rows=30, group_rows=8))
    many = Latents.open(write_ids(tmp_path / "many", {"a": 90, "b": 70}, file_rows=50, group_rows=8, first=30))
    mixed = Latents.mix([(few, Fraction(1, 4)), (many, Fraction(3, 4))])
    assert mixed.mixture == (Share(Fraction(1, 4), 1), Share(Fraction(3, 4), 2))
    order = mixed.order(global_batch=16, slices=4, seed=0)
    taken = Counter(order.slice_at(step, k).bucket for step in range(50) for k in range(4))
    assert taken[0] == 50
    assert taken[1] + taken[2] == 150
    assert Latents.mix([(few, 7)]) is few


def test_corpora_that_share_samples_are_not_mixed(tmp_path: Path) -> None:
    few = Latents.open(write_ids(tmp_path / "few", {"a": 30}, file_rows=30, group_rows=8))
    many = Latents.open(write_ids(tmp_path / "many", {"a": 90}, file_rows=50, group_rows=8, first=27))
    with pytest.raises(ValueError, match=r"3 samples lie in two of the corpora to be mixed, sample_id 27 among them"):
        Latents.mix([(few, 1), (many, 1)])


@pytest.mark.parametrize(("group_rows", "mean_reads"), [(64, 2.1), (256, 4.8)])
def test_an_epoch_in_order_opens_each_row_group_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int, mean_reads: float
) -> None:
    """Task by task, nothing kept from one to the next: as far from one process reading it all as a cluster can be."""
    sizes = {"a": 80_000, "b": 20_000}
    latents = Latents.open(write_ids(tmp_path, sizes, file_rows=10_000, group_rows=group_rows))
    assert len(latents.buckets[0].rows) > WINDOW_ROWS
    order = latents.order(global_batch=64, slices=8, seed=3)
    reads: Counter[tuple[str, int]] = Counter()
    real = storage.read_group

    def counted(path: str, group: int) -> pa.Table:
        reads[path, group] += 1
        return real(path, group)

    monkeypatch.setattr(storage, "read_group", counted)
    monkeypatch.setattr(storage, "held", RowGroups(0))
    at_once = ROWS_AT_ONCE // order.rows_per_slice
    met: list[int] = []
    for start in range(0, order.slices_before(1), at_once):
        table = slots(order, latents, np.arange(start, min(start + at_once, order.slices_before(1))), 0, 1)
        met += table["sample_id"].to_pylist()
    trained = np.concatenate([bucket.sample_ids for bucket in latents.buckets])
    assert len(set(met)) == len(met), "a sample came twice in the epoch"
    assert len(trained) - len(met) < order.rows_per_slice * len(latents.buckets)
    assert len(reads) >= sum(sizes.values()) // group_rows - 2

    # A chunk's rows lie in two runs at most, hence in two blocks, each of which two tasks share at most.
    chunks = -(-group_rows // CHUNK_ROWS) + 1
    assert max(reads.values()) <= 4 * chunks
    mean = sum(reads.values()) / len(reads)
    print(f"row groups of {group_rows}: read {mean:.2f} times on average, {max(reads.values())} at most")
    assert mean < mean_reads


def test_row_groups_are_kept_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"x": np.zeros(100)})
    read: list[tuple[str, int]] = []

    def fake(path: str, group: int) -> pa.Table:
        read.append((path, group))
        return table

    monkeypatch.setattr(storage, "read_group", fake)
    groups = RowGroups(2 * table.nbytes)
    for group in (0, 1, 0, 2, 0, 1):
        groups.get("a", group)
    assert read == [("a", 0), ("a", 1), ("a", 2), ("a", 1)], "what was used last stays"
    assert groups.held_bytes == 2 * table.nbytes
    assert len(groups.tables) == 2


def test_the_index_is_16_bytes_a_row_and_opens_without_an_object_for_each(tmp_path: Path) -> None:
    folder = write_ids(tmp_path, {"a": 200_000}, file_rows=25_000, group_rows=256)
    started = time.monotonic()
    latents = Latents.open(folder)
    seconds = time.monotonic() - started
    bucket = latents.buckets[0]
    arrays = (bucket.rows, bucket.sample_ids, bucket.starts, bucket.file_of, bucket.group_of)
    per_row = sum(array.nbytes for array in arrays) / len(bucket.rows)
    assert 16 <= per_row < 16.1
    assert seconds < 5
    assert bucket.sample_ids.tolist() == [i for i in range(200_000) if i % 8]
