"""Candidates first and pictures later is the same, row for row, as both at once."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_ways import (
    BOX,
    PICTURES,
    both_ways,
    manifest_rows,
    recipe,
    small_steps_without_ray,
    url,
    write_corpus,
    write_mirror,
)

from ssd1b.corpus import sources
from ssd1b.corpus.filters import clean
from ssd1b.corpus.regions import unpack


@pytest.fixture(autouse=True)
def no_ray_and_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps_without_ray(monkeypatch)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


words = st.sampled_from(
    ["a cat", "  a  cat\tand\na dog ", "a café", "?!", "", "cat", None, "中文 一只猫", "a\u3000cat"]
)
numbers = st.sampled_from([0.1, 0.25, 0.3, None, float("nan")])
sides = st.sampled_from([None, 0, 100, 128, 200, 1000])
regions = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 14)).map(lambda ends: [*map(float, ends), *BOX]), max_size=3
)
ROW = {
    "key": st.sampled_from(["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", None, ""]),
    "name": st.sampled_from([*PICTURES, "gone", None, ""]),
    "caption": words, "clip_similarity_vitl14": numbers, "width": sides, "height": sides,
    "noun_chunks": regions | st.none(), "ref_exps": regions | st.none(),
    "split": st.sampled_from([None, "train", "test", ""]), "language": st.sampled_from(["en", "en-GB", "de", "", None]),
    "licence": st.sampled_from([None, "CC0"]),
}  # fmt: skip
KINDS = {
    "id": pa.string(), "url": pa.string(), "caption": pa.string(), "clip_similarity_vitl14": pa.float64(),
    "width": pa.int64(), "height": pa.float64(), "noun_chunks": pa.list_(pa.list_(pa.float64())),
    "ref_exps": pa.list_(pa.list_(pa.float64())), "split": pa.string(), "language": pa.string(),
    "licence": pa.string(),
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries(ROW), min_size=1, max_size=40),
    source=st.sampled_from(["grit", "coyo"]),
    splits=st.sampled_from([(), ("train",), ("heldout",)]),
    group_rows=st.integers(1, 12),
)
def test_candidates_then_pictures_is_both_at_once_row_for_row(
    rows: list[dict[str, Any]],
    source: str,
    splits: tuple[str, ...],
    group_rows: int,
    tmp_path_factory: pytest.TempPathFactory,
    mirror: Path,
) -> None:
    """On keys that name one URL each: of other keys the candidate is the first, whatever its picture will be."""
    folder = tmp_path_factory.mktemp("corpus")
    named: dict[str, str | None] = {}
    table: list[dict[str, Any]] = []
    for row in rows:
        name = named.setdefault(row["key"], row["name"]) if row["key"] else row["name"]
        table.append({**row, "id": row["key"], "url": url(name) if name != "" else ""})
    schema = pa.schema(list(KINDS.items()))
    for i, start in enumerate(range(0, len(table), 25)):
        pq.write_table(pa.Table.from_pylist(table[start : start + 25], schema=schema), folder / f"{i}.parquet",
                       row_group_size=group_rows)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD1B_HOME", str(folder))
        for room in ("ingest", "shortlist"):
            patch.setattr(f"ssd1b.corpus.{room}.write_sheet", lambda *_: None)
        direct, first, second = both_ways(recipe(source, folder, mirror, splits=splits))
    if direct and first and second:
        assert direct["rows_in"] == first["rows_in"]
        assert first["rows_kept"] == second["rows_in"]
        assert second["not_selected"] == 0
        assert second["splits"] == direct["splits"]
        told = Counter(first["rejected"]) + Counter(second["rejected"])
        by_metadata = {"caption_empty", "caption_too_short", "clip_score_low", "language_unwanted", "too_small"}
        for reason in by_metadata & {*told, *direct["rejected"]}:
            # of one URL only one row is fetched, so that a picture too small for its size is counted once
            assert told[reason] <= direct["rejected"].get(reason, 0)
        assert told.total() == sum(direct["rejected"].values())


@pytest.mark.parametrize("source", ["grit", "coyo", "laion", "datacomp"])
def test_both_ways_by_each_corpus_own_columns(source: str, tmp_path: Path, mirror: Path, home: Path) -> None:
    del home
    key = {"grit": "id", "coyo": "id", "laion": "hash", "datacomp": "uid"}[source]
    width, height = ("WIDTH", "HEIGHT") if source == "laion" else ("width", "height")
    keys = [0.5, None, 7.0, float("nan"), 3.0] if source == "laion" else ["a", None, "c", "", "a"]
    table = {
        key: keys, "URL": [url(name) for name in ("good", "other", "wide", "small", "good")],
        "text": ["a  cat", "a dog", "un café", "a cow", "a later cat"],
        width: [200.7, float("nan"), 200.0, None, 1e12], height: [150.2, 200.0, 130.9, 5.0, 1e12],
        "similarity": ["0.3", "none", None, "0.25", "0.9"],
    }  # fmt: skip
    if source == "datacomp":
        table["sha256"] = [None, "AB" * 32, None, None, None]
    folder = tmp_path / "corpus"
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "x.parquet")
    direct, first, second = both_ways(recipe(source, folder, mirror))
    assert direct is not None
    assert first is not None
    assert second is not None
    assert direct["rows_kept"] == second["rows_kept"] == (2 if source == "datacomp" else 3)


def test_of_one_address_each_hash_that_a_corpus_lists_is_a_candidate(tmp_path: Path, mirror: Path, home: Path) -> None:
    """DataComp's rows say what must lie there: a row with another hash is no twin."""
    del home
    true = hashlib.sha256(PICTURES["good"]).hexdigest()
    table = {"uid": [f"u{i}" for i in range(40)], "url": [url("good")] * 40, "text": ["a cat"] * 40,
             "sha256": [true if i % 2 else "0" * 64 for i in range(40)]}  # fmt: skip
    folder = tmp_path / "corpus"
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "x.parquet")
    direct, first, _ = both_ways(recipe("datacomp", folder, mirror))
    assert direct is not None
    assert first is not None
    assert (direct["rows_kept"], first["rows_kept"]) == (1, 2)


def test_regions_stand_for_the_words_of_the_stored_caption(tmp_path: Path, mirror: Path, home: Path) -> None:
    del home
    raw = " one \t cat\u3000beside  a dog "
    chunks = [[float(raw.index(word)), float(raw.index(word) + len(word) + 1), *BOX] for word in ("one", "a dog")]
    row = {"id": 1, "url": url("good"), "caption": raw, "noun_chunks": chunks, "ref_exps": [[0.0, 99.0, *BOX]]}
    folder = tmp_path / "corpus"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([row]), folder / "x.parquet")
    both_ways(recipe("grit", folder, mirror))
    (stored,) = manifest_rows()
    assert stored["captions"] == clean([raw])
    assert [stored["captions"][0][r.start : r.end] for r in unpack(stored["regions"])] == ["one", "a dog"]
    (candidate,) = pq.read_table(sources.candidates_folder("t")).to_pylist()
    assert candidate["caption"] == stored["captions"][0]
    assert candidate["regions"] == stored["regions"]
    assert candidate["sample_id"] == stored["sample_id"]


def test_what_is_not_selected_is_no_reject(corpus: Path, mirror: Path, home: Path) -> None:
    del home
    direct, first, second = both_ways(recipe("grit", corpus, mirror, splits=("heldout",), heldout_share=2))
    assert direct is not None
    assert first is not None
    assert second is not None
    assert first["not_selected"] == direct["not_selected"] > 0
    assert set(first["splits"]) == {"heldout"}


def damaged(corpus: Path, column: str) -> None:
    """Overwrite a page of a column in the second row group of a file, and cut another file."""
    path = corpus / "a.parquet"
    metadata = pq.read_metadata(path)
    group = metadata.row_group(1)
    place = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == column)
    start = place.dictionary_page_offset or place.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    path.write_bytes(data)
    (corpus / "c.parquet").write_bytes((corpus / "b.parquet").read_bytes()[:-30])


@pytest.mark.parametrize("column", ["caption", "url", "noun_chunks.list.element.list.element"])
def test_what_cannot_be_read_is_counted_and_named(column: str, corpus: Path, mirror: Path, home: Path) -> None:
    """The last of the columns is read only when candidates are written."""
    del home
    damaged(corpus, column)
    direct, first, second = both_ways(recipe("grit", corpus, mirror))
    assert direct is not None
    assert first is not None
    assert second is not None
    assert first["rejected"]["unreadable_shard"] == direct["rejected"]["unreadable_shard"] == 4 + 1
    assert sorted(line.partition(":")[0] for line in first["unreadable"]) == ["a.parquet", "c.parquet"]
    assert first["rows_in"] == direct["rows_in"] == 14
