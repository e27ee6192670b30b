"""Nodes of a real cluster are killed in mid-ingest and in mid-encode: every row is kept or counted, once.

The tasks wait, at places that the test names, for the kill; so it is known what was half done, and that it was.
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png
from marks import Killer, Marks
from test_ingest import in_this_process

from ssd1b.corpus import ingest as ingest_room
from ssd1b.corpus import latents, manifest
from ssd1b.corpus.encoder import PartEncoder
from ssd1b.corpus.ingest import ingest
from ssd1b.corpus.latents import encode
from ssd1b.recipes.encode import Encode
from ssd1b.recipes.ingest import Ingest

SHARDS, SHARD_ROWS = 16, 6
PARTS, PART_ROWS = 20, 2
PLACES = ("before", "half", "written")
"""Before anything is written, with half a part, and with all written but not reported."""


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    (tmp_path / "marks").mkdir()
    return Marks(tmp_path / "marks")


@contextmanager
def nodes_of(cluster: Any, *cpus: int, taken_of_head: int = 0) -> Iterator[list[Any]]:
    """Yield nodes that are added, and remove those that live on; what tasks run is taken there with this module.

    taken_of_head: CPUs of the head that are kept busy, so that fewer processes start on this machine.
    """
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    modules = [sys.modules[__name__], sys.modules["marks"]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)  # workers cannot import what is no package
    on_head = NodeAffinitySchedulingStrategy(cluster.head_node.node_id, soft=False)
    idle = ray.remote(num_cpus=taken_of_head, scheduling_strategy=on_head)(Idle).remote()
    ray.get(idle.ready.remote())
    added = [cluster.add_node(num_cpus=each, object_store_memory=80 * 2**20) for each in cpus]
    try:
        yield added
    finally:
        ray.kill(idle)
        for node in added:
            if node in cluster.worker_nodes:
                cluster.remove_node(node)
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


class Idle:
    """An actor that takes CPUs and does nothing."""

    def ready(self) -> None:
        pass


def rows_of(files: list[Path], *columns: str) -> list[dict[str, Any]]:
    return [row for path in files for row in pq.read_table(path, columns=list(columns), partitioning=None).to_pylist()]


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return by what a part can be told from one that was written anew."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in manifest.part_files(folder)}


def slow_shard(marks: Marks, config: Ingest, aside: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """In place of ingest.shard_worker: the same, but some tasks of the condemned node stop in the middle."""

    def run(work: dict[str, Any]) -> dict[str, Any]:
        what = str(work["number"])
        marks.leave(what, "began")
        time.sleep(0.2)
        place = marks.claim(PLACES) if marks.condemned() else None
        if place == "before":
            marks.hold(what, place)
        if place == "half":
            whole = pq.write_table

            def half(table: pa.Table, where: Path, **told: Any) -> None:
                whole(table, where, **told)
                where.write_bytes(where.read_bytes()[:-100])
                marks.hold(what, "half")

            manifest.pq.write_table = half
        report = ingest_room.ingest_shard(config, aside, work)
        if place == "written":
            marks.hold(what, place)
        marks.leave(what, "ended")
        return report

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Ingest:
    """16 row groups, each of 3 good rows, one without a caption, one of junk and one that was in the group before."""
    rows = []
    for shard in range(SHARDS):
        good = [3 * shard + i for i in range(3)]
        rows += [{"key": f"k{i}", "image": png(seed=i), "captions": [f"thing {i}"]} for i in good]
        rows += [
            {"key": f"mute{shard}", "image": png(seed=200 + shard), "captions": [" "]},
            {"key": f"junk{shard}", "image": b"junk", "captions": ["a thing"]},
            {"key": f"twin{shard}", "image": png(seed=(good[0] - 3) % (3 * SHARDS)), "captions": ["a twin"]},
        ]
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "source": "s"} for row in rows]), path, row_group_size=SHARD_ROWS)
    return Ingest(name="t", source="parquet", path=str(path), buckets="nano", part_rows=2)


@pytest.mark.ray
@pytest.mark.timeout(300)  # beside other work: the processes of a cluster give way to all others
def test_a_node_that_dies_in_mid_ingest_costs_no_row_and_doubles_none(
    ray_cluster: Any, home: Path, corpus: Ingest, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ingest_room, "each", in_this_process)
        undisturbed = ingest(dataclasses.replace(corpus, name="undisturbed"))
    monkeypatch.setattr(ingest_room, "shard_worker", partial(slow_shard, marks))

    def half_parts() -> set[int]:
        """Return which processes are writing a part."""
        return {int(path.name.rpartition(".")[2]) for path in (home / "manifest").rglob(".part-*")}

    with nodes_of(ray_cluster, 3, taken_of_head=6) as nodes:
        with Killer(ray_cluster, marks, PLACES, lambda: nodes[0], half_parts) as killer:
            result = ingest(corpus)
        assert killer.killed is nodes[0], "no node was killed"
    held = {place: marks.all(f"held-{place}") for place in PLACES}
    assert [len(found) for found in held.values()] == [1, 1, 1]
    assert held["half"][0].pid in killer.before, "no part was half written"
    for (mark,) in held.values():
        again = [other.node for other in marks.all("ended") if other.what == mark.what]
        assert again, f"shard {mark.what} was not read again"
        assert mark.node not in again
    assert {mark.what for mark in marks.all("ended")} == set(map(str, range(SHARDS)))

    assert result["rows_in"] == SHARDS * SHARD_ROWS
    assert result["rejected"] == dict.fromkeys(("image_corrupt", "caption_empty", "duplicate"), SHARDS)
    assert result["rows_kept"] == SHARDS * 3
    left_out = ("folder", "manifest", "rejects_file", "report", "seconds")
    assert [result[name] for name in result if name not in left_out] == [
        undisturbed[name] for name in undisturbed if name not in left_out
    ]
    columns = ("sample_id", "key", "sha256", "captions", "image")
    assert rows_of(manifest.parts("t"), *columns) == rows_of(manifest.parts("undisturbed"), *columns)
    assert not list((home / "manifest").rglob(".*")), "something half-written is left"
    print(f"shards begun {len(marks.all('began'))} of {SHARDS}, ended {len(marks.all('ended'))}")


class SlowEncoder(PartEncoder):
    """Leaves marks; on the condemned node it stops when a part is written but not yet reported."""

    marks: Marks

    def __call__(self, work: dict[str, Any]) -> dict[str, Any]:
        what = Path(work["part"]).name
        self.marks.leave(what, "began")
        report = super().__call__(work)
        time.sleep(0.2)
        if self.marks.condemned():
            self.marks.hold(what, "written")
        self.marks.leave(what, "ended")
        return report


@pytest.mark.ray
@pytest.mark.usefixtures("home")
@pytest.mark.timeout(300)  # beside other work: the processes of a cluster give way to all others
def test_a_node_that_dies_in_mid_encode_costs_no_part_that_was_done(
    ray_cluster: Any, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two actors on two of three nodes. One node is killed; its actor has the third to start again on."""
    rows = PARTS * PART_ROWS
    with monkeypatch.context() as patch:
        patch.setattr(ingest_room, "each", in_this_process)
        ingest(Ingest(name="t", source="shipped", buckets="nano", rows_limit=rows, part_rows=PART_ROWS))
    monkeypatch.setattr(latents, "PartEncoder", type("Slow", (SlowEncoder,), {"marks": marks}))
    # more CPUs than the head has, and one actor fills a node
    config = Encode(name="t", manifest="t", model="nano", splits=(), workers=2, batch_size=2, decode_threads=9)
    folder = latents.folder_of("t")
    with nodes_of(ray_cluster, 9, 9, 9) as nodes:

        def victim() -> Any:
            """One that has done a part and has more to do."""
            done = marks.all("ended")
            return next((node for node in nodes if any(mark.node == node.node_id for mark in done)), None)

        with Killer(ray_cluster, marks, ["written"], victim, lambda: stamps(folder)) as killer:
            result = encode(config)
        assert killer.killed is not None, "no node was killed"
    (held,) = marks.all("held-written")
    began = Counter(mark.what for mark in marks.all("began"))
    assert began[held.what] == 2, "Ray did not ask again for what the dead node had not reported"
    assert held.node not in [mark.node for mark in marks.all("ended") if mark.what == held.what]
    assert folder / "bucket=128x128" / held.what in killer.before
    assert 2 <= len(killer.before) < PARTS, "it was not in the middle"
    after = stamps(folder)
    assert {path: after[path] for path in killer.before} == killer.before, "a part that was done was encoded again"

    assert (result["rows_in"], result["rows_kept"], result["rejected"]) == (rows, rows, {})
    assert (result["parts_encoded"], result["parts_reused"]) == (PARTS, 0)
    stored = [row["sample_id"] for row in rows_of(latents.parts("t"), "sample_id")]
    assert sorted(stored) == sorted(row["sample_id"] for row in rows_of(manifest.parts("t"), "sample_id"))
    assert len(set(stored)) == rows
    assert not list(folder.rglob(".*"))
    assert json.loads((folder / manifest.SUMMARY).read_text()) == result
    print(f"parts begun {sum(began.values())} of {PARTS}, done when the node died {len(killer.before)}")


@pytest.mark.usefixtures("home")
def test_a_part_whose_report_was_lost_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a cluster: every part is asked for twice, as Ray does when the first answer died with a node."""
    monkeypatch.setattr(ingest_room, "each", in_this_process)
    ingest(Ingest(name="t", source="shipped", buckets="nano", rows_limit=6, part_rows=2))
    folder = latents.folder_of("t")

    def twice(work: list[Any], make: Callable[[], Callable[[Any], Any]], **_: Any) -> Iterator[Any]:
        function = make()
        for item in work:
            lost, before = function(item), stamps(folder)
            report = function(item)
            assert report == lost
            assert stamps(folder) == before
            yield report

    monkeypatch.setattr(latents, "each", twice)
    result = encode(Encode(name="t", manifest="t", model="nano", splits=(), workers=1, batch_size=2))
    assert (result["rows_in"], result["rows_kept"], result["parts_encoded"]) == (6, 6, 3)
