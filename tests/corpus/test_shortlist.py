"""Candidates are written whole or not at all, what is left out is named, and what comes next is said."""

import dataclasses
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from two_ways import PLANTED, recipe, small_steps_without_ray, url, write_corpus, write_mirror

from ssd1b import tracking
from ssd1b.command import configure
from ssd1b.corpus import manifest, metadata, partitions
from ssd1b.corpus.candidates import SCHEMA
from ssd1b.corpus.ingest import ingest
from ssd1b.corpus.record import EXPERIMENT, metrics, recorded
from ssd1b.corpus.shortlist import shortlist
from ssd1b.recipes.ingest import RECIPES, Fetch, Ingest


@pytest.fixture(autouse=True)
def no_ray_and_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps_without_ray(monkeypatch)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_every_row_is_a_candidate_or_named(
    corpus: Path, mirror: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ingest(recipe("grit", corpus, mirror, pictures="later"))
    assert result["rejected"] == PLANTED
    assert (result["rows_in"], result["rows_kept"], result["not_selected"], result["shards"]) == (13, 6, 0, 2)
    assert sum(result["splits"].values()) == sum(result["buckets"].values()) == 6
    folder = home / "candidates" / "t"
    assert result["folder"] == str(folder)
    assert json.loads((folder / manifest.SUMMARY).read_text()) == result
    assert (folder / manifest.SHEET).stat().st_size > 1000
    rejects = [json.loads(line) for line in Path(result["rejects_file"]).read_text().splitlines()]
    assert Counter(reject["reason"] for reject in rejects) == PLANTED
    details = {reject["reason"]: (reject["source"], reject["key"], reject["detail"]) for reject in rejects}
    assert details["clip_score_low"] == ("grit", "109", "clip_score 0.1, the limit is 0.2")
    assert details["duplicate_key"] == ("grit", "101", url("other"))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["t"], "nothing is left aside"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("6 of 13 rows are worth fetching; no picture was fetched yet")
    assert lines[-1].strip() == result["next"]


def test_the_command_that_comes_next_takes_up_where_this_one_ended(corpus: Path, mirror: Path, home: Path) -> None:
    config = recipe("grit", corpus, mirror, pictures="later", splits=("train", "heldout"))
    without = dataclasses.replace(config, fetch=Fetch())
    assert "--set fetch.contact=you@example.org" in ingest(without)["next"], "and no contact was asked for"
    command = shlex.split(ingest(config)["next"])
    assert not (home / "fetched").exists()
    assert set(command[4::2]) == {"--set"}
    assert command[:4] == ["python", "-m", "jobs.ingest", "grit"]
    again = configure(RECIPES, command[3], command[5::2])
    assert again == dataclasses.replace(config, pictures="fetch", path="candidates:t")
    result = ingest(again)
    assert (result["rows_in"], result["rows_kept"]) == (6, 3)
    assert result["rejected"] == {"image_missing": 1, "image_corrupt": 1, "duplicate": 1}


def test_candidates_can_be_narrowed_again(corpus: Path, mirror: Path, home: Path) -> None:
    config = recipe("grit", corpus, mirror, pictures="later")
    before = ingest(config)
    rows = pq.read_table(home / "candidates" / "t", schema=SCHEMA).to_pylist()
    again = dataclasses.replace(config, path="candidates:t")
    assert ingest(again)["rejected"] == {}
    assert pq.read_table(home / "candidates" / "t", schema=SCHEMA).to_pylist() == rows
    narrow = dataclasses.replace(again, filters=dataclasses.replace(config.filters, min_caption_words=4))
    with pytest.raises(
        ValueError, match=r"nothing is left of 6 rows of 'grit'.*; for example \d+: caption_too_short, [^{<]*$"
    ):
        ingest(narrow)
    assert pq.read_table(home / "candidates" / "t", schema=SCHEMA).to_pylist() == rows, "the old ones stay"
    assert before["rows_kept"] == len(rows) == 6


def test_the_first_rows_only(corpus: Path, mirror: Path, home: Path) -> None:
    del home
    result = ingest(recipe("grit", corpus, mirror, pictures="later", rows_limit=2))
    assert (result["rows_in"], result["rows_kept"]) == (2, 2)


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("parquet", {}, "parquet holds its pictures.*corpora of URLs are grit, laion, coyo, datacomp"),
        ("emoji", {}, "emoji holds its pictures"),
        ("midjourney", {}, "Midjourney scrape has no scores"),
        ("grit", {"styles": ("photo",)}, "no style 'photo' in this source"),
        ("grit", {"subgroups": ("bird",)}, "no subgroup 'bird' in this source"),
        ("grit", {"path": "candidates:other"}, r"no candidates 'other' under .*\(there: \['u'\]\).*pictures=later"),
        ("grit", {"path": "candidates:"}, "no candidates ''"),
        ("coyo", {"path": "candidates:u"}, "holds candidates of grit: run the recipe grit"),
        ("coyo", {"path": "candidates:u", "pictures": "fetch"}, "holds candidates of grit: run the recipe grit"),
    ],
)
def test_what_cannot_be_is_refused(
    source: str, changes: dict[str, Any], message: str, corpus: Path, mirror: Path, home: Path
) -> None:
    del home
    ingest(recipe("grit", corpus, mirror, name="u", pictures="later"))
    config = dataclasses.replace(recipe(source, corpus, mirror, pictures="later"), **changes)
    with pytest.raises(ValueError, match=message):
        ingest(config)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"url": ["u"], "caption": [["a", "b"]]}, "caption.* is list.*one text a row"),
        ({"url": ["u"], "caption": ["a"], "jpg": [b"x"]}, "holds pictures, in its column jpg.*leave out"),
    ],
)
def test_a_file_of_another_kind_is_refused(table: dict[str, Any], message: str, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "x.parquet")
    with pytest.raises(ValueError, match=message):
        ingest(recipe("grit", folder, home, pictures="later"))
    assert not (home / "candidates").exists() or not list((home / "candidates").iterdir())


def test_a_failed_run_leaves_the_old_candidates(
    corpus: Path, mirror: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe("grit", corpus, mirror, pictures="later")
    before = ingest(config)
    calls = []

    def full(_: partitions.Partition, count: int) -> None:
        calls.append(count)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(partitions.Partition, "write", full)
    with pytest.raises(OSError, match="No space left"):
        ingest(config)
    assert calls, "the fault was never reached"
    assert sorted(path.name for path in (home / "candidates").iterdir()) == ["t"]
    assert json.loads((home / "candidates" / "t" / manifest.SUMMARY).read_text()) == before


def test_a_corpus_that_changes_between_the_readings_is_noticed(
    corpus: Path, mirror: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    config = recipe("grit", corpus, mirror, pictures="later")
    real, changed = metadata.read_file, []

    def read_file(file: Any, config: Ingest, fields: Any) -> Iterator[Any]:
        if fields is metadata.CARRIED and file[1] == "b.parquet":
            changed.append(file)
            pq.write_table(pq.read_table(file[0]).slice(0, 1), file[0])
        yield from real(file, config, fields)

    monkeypatch.setattr(metadata, "read_file", read_file)
    with pytest.raises(ValueError, match="changed while it was read: 10 rows instead of 13"):
        shortlist(config)
    assert changed, "the fault was never reached"


def test_a_run_in_mlflow_holds_recipe_figures_and_files(
    corpus: Path, mirror: Path, home: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, home / "mlflow.db")
    result = recorded(recipe("grit", corpus, mirror, pictures="later"))
    client = tracking.connect()
    run = client.get_run(result["run_id"])
    assert client.get_experiment(run.info.experiment_id).name == EXPERIMENT
    assert (run.info.status, run.data.tags["candidates"]) == ("FINISHED", "t")
    assert run.data.params["pictures"] == "later"
    assert {name: run.data.metrics[f"rejected.{name}"] for name in PLANTED} == PLANTED
    files = {file.path for file in client.list_artifacts(result["run_id"])}
    assert files == {manifest.SUMMARY, manifest.REJECTS, manifest.SHEET}
    assert metrics(result)["rows_kept"] == 6
