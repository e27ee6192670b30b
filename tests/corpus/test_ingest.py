"""A run of jobs.ingest: every row is in the manifest or counted by name, and a rerun gives the same."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png

from ssd1b.corpus import ingest as room
from ssd1b.corpus import manifest
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.ingest import Ingest


def in_this_process(work: list[Any], make: Callable[[], Callable[[Any], Any]], **_: Any) -> Iterator[Any]:
    """What pipeline.each does, without Ray and last first: order must not matter."""
    function = make()
    for item in reversed(work):
        yield json.loads(json.dumps(function(item)))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "each", in_this_process)


@pytest.fixture
def corpus(tmp_path: Path) -> Ingest:
    """Two whole files and a cut one: 4 good rows, and one each of junk, no caption, too small, twin, repeated key."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    good = [{"key": f"k{i}", "image": png(seed=i), "captions": [f"thing {i}"], "style": "photo"} for i in range(4)]
    bad = [
        {"key": "junk", "image": b"junk", "captions": ["a thing"], "style": "photo"},
        {"key": "mute", "image": png(seed=10), "captions": [" "], "style": "photo"},
        {"key": "tiny", "image": png(8, 8), "captions": ["a thing"], "style": "photo"},
        {"key": "twin", "image": png(seed=0), "captions": ["a twin"], "style": "photo"},
        {"key": "k1", "image": png(seed=11), "captions": ["k1 again"], "style": "photo"},
    ]
    for name, rows in (("a", good), ("b", bad), ("c", good)):
        table = pa.Table.from_pylist([{**row, "source": "s"} for row in rows])
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=3)
    cut = (folder / "c.parquet").read_bytes()
    (folder / "c.parquet").write_bytes(cut[:-40])
    return Ingest(name="t", source="parquet", path=str(folder), buckets="nano")


def rows_of(name: str) -> list[dict[str, Any]]:
    return [row for part in manifest.parts(name) for row in pq.read_table(part, partitioning=None).to_pylist()]


def check(result: dict[str, Any], home: Path) -> None:
    reasons = ("unreadable_shard", "image_corrupt", "caption_empty", "too_small", "duplicate_key", "duplicate")
    assert result["rejected"] == dict.fromkeys(reasons, 1)
    assert result["rows_in"] == result["rows_kept"] + sum(result["rejected"].values()) == 10
    assert [line.partition(":")[0] for line in result["unreadable"]] == ["c.parquet"]
    rows = rows_of("t")
    assert len({row["sample_id"] for row in rows}) == len({row["sha256"] for row in rows}) == len(rows) == 4
    assert {row["key"] for row in rows} <= {"k0", "k1", "k2", "k3", "twin"}
    rejects = [json.loads(line) for line in Path(result["rejects_file"]).read_text().splitlines()]
    assert sum(reject["rows"] for reject in rejects) == 6
    assert sorted(path.name for path in (home / "manifest").iterdir()) == ["t"], "nothing is left aside"


@pytest.mark.usefixtures("no_ray")
def test_every_row_is_kept_or_named(corpus: Ingest, home: Path) -> None:
    check(ingest(corpus), home)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_every_row_is_kept_or_named_through_ray(corpus: Ingest, home: Path) -> None:
    check(ingest(corpus), home)


@pytest.mark.usefixtures("no_ray", "home")
def test_a_rerun_gives_the_same_rows_and_digests(corpus: Ingest) -> None:
    ingest(corpus)
    before = [(part.name, manifest.digest_of(part)) for part in manifest.parts("t")]
    ingest(corpus)
    assert [(part.name, manifest.digest_of(part)) for part in manifest.parts("t")] == before


@pytest.mark.usefixtures("no_ray")
def test_a_failed_run_leaves_the_old_manifest(corpus: Ingest, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(corpus)
    before = rows_of("t")
    calls = []

    def full(*_: Any) -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write_part", full)
    with pytest.raises(OSError, match="No space left"):
        ingest(corpus)
    assert calls, "the fault was never reached"
    assert rows_of("t") == before
    assert [path.name for path in (home / "manifest").iterdir()] == ["t"]


@pytest.mark.usefixtures("no_ray", "home")
def test_what_is_not_selected_is_no_reject(corpus: Ingest) -> None:
    kept = ingest(corpus)["splits"]
    only = next(iter(kept))
    result = ingest(dataclasses.replace(corpus, splits=(only,)))
    assert result["rows_kept"] == kept[only]
    assert result["rows_in"] == result["rows_kept"] + result["not_selected"] + sum(result["rejected"].values())


@pytest.mark.usefixtures("no_ray", "home")
def test_a_misspelt_style_is_named(corpus: Ingest) -> None:
    with pytest.raises(ValueError, match=r"no style 'foto'.*photo"):
        ingest(dataclasses.replace(corpus, styles=("foto",)))


@pytest.mark.usefixtures("no_ray", "home")
def test_nothing_left_is_an_error_that_says_why(corpus: Ingest) -> None:
    with pytest.raises(ValueError, match="too_small"):
        ingest(dataclasses.replace(corpus, buckets="sdxl"))
    with pytest.raises(ValueError, match=r"run jobs\.ingest"):
        manifest.parts("t")
