"""The disk fills up under Ray tasks in mid-ingest, in mid-fetch and in mid-encode; with room again, a rerun completes.

Tasks on other nodes meet a limit on the size of files, for which a write fails as it does on a full disk, half done.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png
from marks import Marks
from test_ingest import in_this_process
from town import FAST, Town, town

from ssd1b.corpus import ingest as ingest_room
from ssd1b.corpus import latents, manifest
from ssd1b.corpus.encoder import PartEncoder
from ssd1b.corpus.fetch.store import whole_lines
from ssd1b.corpus.ingest import ingest
from ssd1b.corpus.latents import encode
from ssd1b.recipes.encode import Encode
from ssd1b.recipes.ingest import Fetch, Ingest

SHARDS, SHARD_ROWS = 8, 3
FULL_FROM = 3
"""The first so many shards, or parts, still find room."""
ROOM_FOR_FETCHED = 5 * len(png()) // 2
"""Bytes: two pictures and a half."""


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    """Marks of tasks that take what they run from this module."""
    from ray import cloudpickle

    (tmp_path / "marks").mkdir()
    modules = [sys.modules[__name__], sys.modules["marks"]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield Marks(tmp_path / "marks")
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


@contextmanager
def full(marks: Marks, what: str, most_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes while the disk counts as full."""
    if not (marks.folder / "full").exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    except OSError:
        marks.leave(what, "full")
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def cramped_shard(marks: Marks, config: Ingest, aside: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """In place of ingest.shard_worker: the same, but later shards meet a full disk, or are at work when others do."""

    def run(work: dict[str, Any]) -> dict[str, Any]:
        number = work["number"]
        if number < FULL_FROM:
            return ingest_room.ingest_shard(config, aside, work)
        time.sleep(0.5)
        if number > FULL_FROM and (marks.folder / "full").exists():
            time.sleep(1.5)  # to write when the job has been told of the first failure
            return ingest_room.ingest_shard(config, aside, work)
        with full(marks, str(number), most_bytes=1_000):
            return ingest_room.ingest_shard(config, aside, work)

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Ingest:
    rows = [{"key": f"k{i}", "image": png(seed=i), "captions": [f"thing {i}"]} for i in range(SHARDS * SHARD_ROWS)]
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "source": "s"} for row in rows]), path, row_group_size=SHARD_ROWS)
    return Ingest(name="t", source="parquet", path=str(path), buckets="nano")


def stored(files: list[Path]) -> list[int]:
    return [one for path in files for one in pq.read_table(path, partitioning=None)["sample_id"].to_pylist()]


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in manifest.part_files(folder)}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "home")
def test_in_mid_ingest(corpus: Ingest, marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = manifest.folder_of("t")
    with monkeypatch.context() as patch:
        patch.setattr(ingest_room, "each", in_this_process)
        ingest(corpus)
    before = stamps(folder)
    monkeypatch.setattr(ingest_room, "shard_worker", partial(cramped_shard, marks))
    (marks.folder / "full").touch()
    with pytest.raises(OSError, match="File too large") as told:
        ingest(corpus)
    assert marks.all("full"), "the disk was never full"
    assert f"make room for {folder.parent}" in str(told.value)
    time.sleep(2)  # who was still at work would have written by now
    assert sorted(path.name for path in folder.parent.iterdir()) == ["t"], "something half-written is left"
    assert stamps(folder) == before, "the old manifest is touched"

    (marks.folder / "full").unlink()
    result = ingest(corpus)
    rows = SHARDS * SHARD_ROWS
    assert (result["rows_in"], result["rows_kept"], result["rejected"]) == (rows, rows, {})
    assert len(set(stored(manifest.parts("t")))) == len(stored(manifest.parts("t"))) == rows
    assert [path.name for path in folder.parent.iterdir()] == ["t"]


@pytest.fixture
def hosts() -> Iterator[Town]:
    with town() as found:
        yield found


def cramped_fetch(marks: Marks, config: Ingest, aside: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """In place of ingest.shard_worker: the same on a disk with room for a few pictures, and part of the next one."""

    def run(work: dict[str, Any]) -> dict[str, Any]:
        with full(marks, str(work["number"]), most_bytes=ROOM_FOR_FETCHED):
            return ingest_room.ingest_shard(config, aside, work)

    return run


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_in_mid_fetch(home: Path, hosts: Town, marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched before stays fetched: the rerun asks for the rest."""
    rows = 12
    table = {"URL": [hosts.url(FAST, i) for i in range(rows)], "TEXT": [f"thing {i}" for i in range(rows)]}
    pq.write_table(pa.table({**table, "hash": list(range(rows))}), home / "corpus.parquet")
    listed = (f"{FAST}:{hosts.port}",)
    fetch = Fetch(contact="me@example.org", private_hosts=listed, host_gap_s=0, per_host=1)
    config = Ingest(name="t", source="laion", path=str(home / "corpus.parquet"), buckets="nano", fetch=fetch)
    monkeypatch.setattr(ingest_room, "shard_worker", partial(cramped_fetch, marks))
    (marks.folder / "full").touch()
    with pytest.raises(OSError, match="File too large") as told:
        ingest(config)
    assert marks.all("full"), "the disk was never full"
    assert f"{home}/fetched/t/" in str(told.value)
    assert not list((home / "manifest").glob("*")), "something half-written is left"
    kept = sum(1 for index in (home / "fetched").rglob("*.index") for _ in whole_lines(index))
    assert kept == 2, "the fault did not come in mid-work"

    seen = len(hosts.log)
    (marks.folder / "full").unlink()
    result = ingest(config)
    assert (result["rows_in"], result["rows_kept"], result["rejected"]) == (rows, rows, {})
    assert len(hosts.pictures(seen)) == rows - kept, "the rerun asked for other than what was missing"
    found = [row for part in manifest.parts("t") for row in pq.read_table(part, partitioning=None).to_pylist()]
    assert {row["url"]: row["image"] for row in found} == {hosts.url(FAST, i): png(seed=i) for i in range(rows)}
    assert len(found) == rows


class CrampedEncoder(PartEncoder):
    """From its fourth part on it has no room."""

    marks: Marks
    parts = 0

    def __call__(self, work: dict[str, Any]) -> dict[str, Any]:
        self.parts += 1
        if self.parts <= FULL_FROM:
            return super().__call__(work)
        with full(self.marks, Path(work["part"]).name, most_bytes=1_000):
            return super().__call__(work)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_in_mid_encode(marks: Marks, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, part_rows = 8, 2
    rows = parts * part_rows
    with monkeypatch.context() as patch:
        patch.setattr(ingest_room, "each", in_this_process)
        ingest(Ingest(name="t", source="shipped", buckets="nano", rows_limit=rows, part_rows=part_rows))
    monkeypatch.setattr(latents, "PartEncoder", type("Cramped", (CrampedEncoder,), {"marks": marks}))
    config = Encode(name="t", manifest="t", model="nano", splits=(), workers=1, batch_size=2)
    folder = latents.folder_of("t")
    (marks.folder / "full").touch()
    with pytest.raises(OSError, match="File too large") as told:
        encode(config)
    assert marks.all("full"), "the disk was never full"
    assert f"make room for {home}/latents/t" in str(told.value)
    assert not list(folder.rglob(".*")), "something half-written is left"
    done = stamps(folder)
    assert len(done) == FULL_FROM

    (marks.folder / "full").unlink()
    result = encode(config)
    assert (result["rows_in"], result["rows_kept"], result["rejected"]) == (rows, rows, {})
    assert (result["parts_reused"], result["parts_encoded"]) == (FULL_FROM, parts - FULL_FROM)
    assert {path: stamp for path, stamp in stamps(folder).items() if path in done} == done
    assert len(set(stored(latents.parts("t")))) == len(stored(latents.parts("t"))) == rows
