"""The metadata path says of every row what the row's own rule says, and writes what is left once."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssd1b.corpus import metadata, partitions, rejected, samples, synthetic
from ssd1b.corpus.candidates import SCHEMA, Clock, candidates
from ssd1b.corpus.filters import refused, split_for
from ssd1b.corpus.layouts import LAYOUTS
from ssd1b.corpus.manifest import sample_id
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason
from ssd1b.corpus.tables import read_row_group
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.ingest import BUCKETS, Ingest, grit, laion
from ssd1b.sizes import nearest_bucket

ROWS = 40 * synthetic.CYCLE


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, row groups and files so small that a few thousand rows need many of each."""
    monkeypatch.setattr(metadata, "BATCH_ROWS", 300)
    monkeypatch.setattr(partitions, "GROUP_ROWS", 16)
    monkeypatch.setattr(synthetic, "BATCH_ROWS", 350)
    monkeypatch.setattr(synthetic, "FILE_ROWS", 900)


def run(folder: Path, config: Ingest, out: Path) -> dict[str, int]:
    files = [(path, path.name) for path in sorted(folder.iterdir())]
    return candidates(files, config, out, part_rows=50, clock=Clock()).tally


def written(out: Path) -> list[dict[str, Any]]:
    return [
        {**row, "bucket": part.parent.name.removeprefix("bucket=")}
        for part in sorted(out.glob("bucket=*/part-*.parquet"))
        for row in pq.read_table(part, partitioning=None).to_pylist()
    ]


def by_row(folder: Path, config: Ingest) -> tuple[Counter[str], dict[int, Pair]]:
    """The same with the reader of rows and the rule of rows."""
    tally: Counter[str] = Counter()
    passed: list[Pair] = []
    for path in sorted(folder.iterdir()):
        for group in range(pq.ParquetFile(path).num_row_groups):
            for pair in read_row_group(path, group, path.name, LAYOUTS[config.source]):
                found = refused(pair, config) if isinstance(pair, Pair) else pair
                if found is None:
                    assert isinstance(pair, Pair)
                    passed.append(pair)
                else:
                    tally[found.reason.value] += 1
    first: dict[int, Pair] = {}
    for pair in passed:
        if first.setdefault(sample_id(pair.source, pair.key), pair) is not pair:
            tally["duplicate_key"] += 1
    stays: dict[str, int] = {}
    for number in sorted(first):
        if stays.setdefault(first[number].url or "", number) != number:
            tally["duplicate_url"] += 1
    kept = {number: first[number] for number in stays.values()}
    return tally + Counter(kept=len(kept)), kept


def test_the_funnel_names_what_was_planted(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    assert len(list((tmp_path / "in").iterdir())) == 2
    assert run(tmp_path / "in", grit(), tmp_path / "out") == synthetic.planted(ROWS)


def test_every_row_meets_the_fate_that_it_meets_alone(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    found = run(tmp_path / "in", grit(), tmp_path / "out")
    tally, kept = by_row(tmp_path / "in", grit())
    assert found == dict(tally)
    rows = written(tmp_path / "out")
    assert {row["sample_id"] for row in rows} == set(kept)
    assert len(rows) == len(kept) == found["kept"]
    for row in rows:
        pair = kept[row["sample_id"]]
        assert (row["key"], row["url"], (row["caption"],)) == (pair.key, pair.url, pair.captions)
        assert pair.declared_size is not None
        assert (row["height"], row["width"]) == (pair.declared_size.height, pair.declared_size.width)
        assert row["bucket"] == str(nearest_bucket(pair.declared_size, BUCKETS["sdxl"]))
        assert row["split"] == split_for(pair, grit().heldout_share)
        assert row["clip_score"] == pair.clip_score


def test_a_rerun_writes_the_same_files(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    digests = []
    for out in (tmp_path / "a", tmp_path / "b"):
        run(tmp_path / "in", grit(), out)
        paths = sorted(path for path in out.rglob("*") if path.is_file())
        digests.append([(str(p.relative_to(out)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths])
    assert digests[0] == digests[1]
    assert len(digests[0]) > 9, "each bucket has several files"


def test_the_elastic_order_counts_the_rows_and_ingest_reads_them(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    kept = run(tmp_path / "in", grit(), tmp_path / "out")["kept"]
    index = Latents.open(tmp_path / "out")
    train = {row["sample_id"] for row in written(tmp_path / "out") if row["split"] == "train"}
    assert {int(number) for bucket in index.buckets for number in bucket.sample_ids} == train
    again = tmp_path / "again"
    again.mkdir()
    for number, part in enumerate(sorted((tmp_path / "out").rglob("*.parquet"))):
        part.rename(again / f"{number}.parquet")
    tally, pairs = by_row(again, grit())
    assert tally == {"kept": kept}
    assert train <= set(pairs)


def test_rows_without_key_size_or_address(tmp_path: Path) -> None:
    """LAION's columns: widths as doubles, nulls anywhere, and a hash that is often missing."""
    table = pa.table(
        {
            "URL": ["http://a/1", None, "http://a/3", "", "http://a/1"],
            "TEXT": ["a first picture", "no address", "a third picture", "no address", None],
            "WIDTH": [1100.0, 1100.0, None, 1100.0, 1100.0],
            "HEIGHT": [1100.0, 1100.0, 1100.0, 1100.0, 1100.0],
            "hash": pa.array([None, 5, None, 6, 7], pa.int64()),
        }
    )
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table, folder / "l.parquet")
    assert run(folder, laion(), tmp_path / "out") == {"image_missing": 2, "caption_empty": 1, "kept": 2}
    rows = written(tmp_path / "out")
    assert [(row["key"], row["bucket"], row["clip_score"]) for row in rows] == [
        ("l.parquet#0", "1024x1024", None),
        ("l.parquet#2", "unknown", None),
    ]
    assert [row["sample_id"] for row in rows] == [sample_id("laion", "l.parquet#0"), sample_id("laion", "l.parquet#2")]


def test_of_one_address_the_smallest_sample_id_stays(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(200)]
    table = pa.table({"url": ["http://a/1"] * 200, "caption": ["a picture of it"] * 200, "key": keys})
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table, folder / "g.parquet")
    assert run(folder, grit(), tmp_path / "out") == {Reason.DUPLICATE_URL.value: 199, "kept": 1}
    assert [row["sample_id"] for row in written(tmp_path / "out")] == [min(sample_id("grit", key) for key in keys)]


@pytest.mark.parametrize(
    ("column", "message"),
    [({"caption": ["a"]}, "no column url"), ({"url": ["u"], "caption": [["a", "b"]]}, "one text a row")],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, column: dict[str, Any], message: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table(column), folder / "x.parquet")
    with pytest.raises(ValueError, match=message):
        run(folder, grit(), tmp_path / "out")


def test_a_failed_run_leaves_no_file_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    calls = []

    def full(_: partitions.Partition, count: int) -> None:
        calls.append(count)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(partitions.Partition, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "in", grit(), tmp_path / "out")
    assert calls, "the fault was never reached"
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_files_and_row_groups_are_of_even_size(tmp_path: Path) -> None:
    table = pa.table({"sample_id": pa.array(range(137), pa.uint64())})
    with partitions.Partitions(tmp_path, table.schema, 50) as made:
        for start in range(0, 137, 7):
            made.add("b", table.slice(start, 7))
    files = sorted(tmp_path.rglob("*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in files] == [64, 64, 9]
    assert {pq.read_metadata(path).row_group(0).num_rows for path in files[:2]} == {16}
    found = [row for path in files for row in pq.read_table(path, partitioning=None)["sample_id"].to_pylist()]
    assert found == list(range(137)), "rows keep their order"
    assert SCHEMA.field("sample_id").type == pa.uint64()


def test_the_sample_of_rejects_is_even_and_the_same_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    monkeypatch.setattr(samples, "PER_REASON", 9)
    monkeypatch.setattr(rejected, "PER_REASON", 9)
    files = [(path, path.name) for path in sorted((tmp_path / "in").iterdir())]
    found = []
    for rows in (64, 300, 10**6):
        monkeypatch.setattr(metadata, "BATCH_ROWS", rows)
        chosen = candidates(files, grit(), tmp_path / str(rows), part_rows=500, clock=Clock())
        found.append([(row["reason"], row["key"], row["detail"]) for row in chosen.samples.told()])
        assert chosen.splits.total() == chosen.buckets.total() == chosen.tally["kept"]
    assert found[0] == found[1] == found[2]
    assert Counter(reason for reason, _, _ in found[0]) == {reason.value: 9 for reason in synthetic.PLANTED.values()}
    planted = {synthetic.PLANTED[kind].value: kind for kind in (0, 1, 7, 8, 9)}
    numbers = {reason: [(int(key) - 1) // 7919 for each, key, _ in found[0] if each == reason] for reason in planted}
    assert all(number % synthetic.CYCLE == planted[reason] for reason in planted for number in numbers[reason])
    spread = [number for reason in planted for number in numbers[reason]]
    assert min(spread) < ROWS // 8 < 7 * ROWS // 8 < max(spread), "not the first rows, nor the last"


def test_ranks_are_splitmix64() -> None:
    """Of the seed 0, as published; so no two rows share one."""
    assert rejected.ranks(0, 3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert len(np.unique(rejected.ranks(10**9, 10_000))) == 10_000


def test_a_rule_of_batches_that_goes_another_way_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write(tmp_path / "in", ROWS)
    monkeypatch.setattr(rejected, "refused", lambda *_: None)
    with pytest.raises(AssertionError, match="in a batch, but not alone"):
        run(tmp_path / "in", grit(), tmp_path / "out")


@pytest.mark.parametrize("group_rows", [1, 50, 5000])
def test_row_groups_of_any_size_are_read_in_batches(tmp_path: Path, group_rows: int) -> None:
    """A thousand small row groups are not a thousand batches, and one large one is not one batch."""
    table = pa.table({"url": [f"http://a/{i}" for i in range(1000)], "caption": ["a picture of it"] * 1000})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=group_rows)
    parts = list(metadata.read([(tmp_path / "x.parquet", "x")], grit(), metadata.CARRIED, "reads"))
    assert 4 <= len(parts) <= 8
    assert [key for part in parts for key in part["key"].to_pylist()] == [f"x#{i}" for i in range(1000)]
