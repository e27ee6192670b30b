"""A shard that breaks while an ingestion is under way: its rows are counted to the last one, and the rest goes on."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png
from test_ingest import in_this_process

from ssd1b.corpus import ingest as ingest_room
from ssd1b.corpus import manifest, pipeline, sources
from ssd1b.corpus.fetch.store import Store
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.ingest import Fetch, Ingest

FILES, GROUPS, GROUP_ROWS = 3, 3, 4
ROWS = FILES * GROUPS * GROUP_ROWS
Report = dict[str, Any]


@pytest.fixture
def corpus(home: Path) -> Ingest:
    folder = home / "corpus"
    folder.mkdir()
    for number in range(FILES):
        first = number * GROUPS * GROUP_ROWS
        rows = [
            {"key": f"k{i}", "source": "s", "image": png(seed=i), "captions": [f"thing {i}"]}
            for i in range(first, first + GROUPS * GROUP_ROWS)
        ]
        table = pa.Table.from_pylist(rows)
        pq.write_table(
            table, folder / f"{number}.parquet", row_group_size=GROUP_ROWS, compression="none", use_dictionary=False,
            write_page_checksum=True,
        )  # fmt: skip
    return Ingest(name="t", source="parquet", path=str(folder), buckets="nano")


def cut(victim: Path) -> None:
    victim.write_bytes(victim.read_bytes()[:-40])


def flip(victim: Path) -> None:
    """Change a bit of a picture of the second row group, in the middle of its pixels, where no decoder need notice."""
    column = pq.read_schema(victim).get_field_index("image")
    chunk = pq.read_metadata(victim).row_group(1).column(column)
    data = bytearray(victim.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    victim.write_bytes(data)


def breaking(
    each: Callable[..., Iterator[Report]], break_it: Callable[[], object], work: list[Report], *rest: Any
) -> Iterator[Report]:
    """In place of ingest.each: breaks a file when all shards are listed and none is read."""
    break_it()
    return each(work, *rest)


@pytest.mark.parametrize(
    ("damage", "lost"), [(cut, GROUPS * GROUP_ROWS), (Path.unlink, GROUPS * GROUP_ROWS), (flip, GROUP_ROWS)]
)
@pytest.mark.parametrize("each", [in_this_process, pytest.param(pipeline.each, marks=pytest.mark.ray)])
def test_a_file_that_breaks_when_the_job_has_begun(
    corpus: Ingest, damage: Callable[[Path], None], lost: int, each: Any,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if each is pipeline.each:
        request.getfixturevalue("ray_cluster")
    victim = Path(corpus.path) / "1.parquet"
    sound = victim.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(ingest_room, "each", partial(breaking, each, partial(damage, victim)))
        result = ingest(corpus)
    assert result["rejected"] == {"unreadable_shard": lost}
    assert result["rows_in"] == ROWS == result["rows_kept"] + lost
    assert {line.partition(":")[0] for line in result["unreadable"]} == {"1.parquet"}
    rows = [row for part in manifest.parts("t") for row in pq.read_table(part, partitioning=None).to_pylist()]
    assert len({row["sample_id"] for row in rows}) == len(rows) == ROWS - lost
    assert all(row["image"] == png(seed=int(row["key"][1:])) for row in rows)

    victim.write_bytes(sound)
    monkeypatch.setattr(ingest_room, "each", in_this_process)
    result = ingest(corpus)
    assert (result["rows_kept"], result["rejected"]) == (ROWS, {})


@pytest.mark.parametrize("shard_rows", [2, 3, 100])
def test_a_corpus_of_urls_that_breaks_when_the_job_has_begun(
    home: Path, shard_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of a row group's rows: those of the file that is gone count each for its own, and no more."""
    for number, rows in enumerate((5, 7)):
        urls = [f"https://pictures.test/{number}/{i}" for i in range(rows)]
        table = pa.table({"URL": urls, "TEXT": ["a thing"] * rows, "hash": [10 * number + i for i in range(rows)]})
        pq.write_table(table, home / f"{number}.parquet", row_group_size=4)
    fetch = Fetch(contact="me@example.org")
    config = Ingest(name="t", source="laion", path=str(home / "*.parquet"), buckets="nano", fetch=fetch)
    monkeypatch.setattr(sources, "URL_ROWS", shard_rows)
    for shard in sources.shards(config):
        with Store(Path(shard.kept), most_bytes=fetch.most_bytes) as store:  # as if an earlier run had fetched all
            for found in sources.read_rows(shard, config):
                assert not isinstance(found, sources.Reject)
                assert found.url is not None
                store.keep(found.url, png(seed=int(found.key)))
    victim = home / "1.parquet"
    monkeypatch.setattr(ingest_room, "each", partial(breaking, in_this_process, partial(cut, victim)))
    result = ingest(config)
    assert (result["rows_in"], result["rows_kept"], result["rejected"]) == (12, 5, {"unreadable_shard": 7})
    result = ingest(config)
    assert result["rejected"] == {"unreadable_shard": 1}, "a file that is broken from the start counts as one row"
