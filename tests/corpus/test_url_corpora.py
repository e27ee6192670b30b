"""The adapters of corpora that list URLs: which column is what, and what a prompt of Midjourney says."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.corpus import sources
from ssd1b.corpus.midjourney import clean_prompt, kind_of
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.regions import CHUNK, EXPRESSION, FIELDS, MOST, pack, unpack
from ssd1b.corpus.sources import read_rows, shards
from ssd1b.recipes.ingest import RECIPES, Fetch, Ingest
from ssd1b.sizes import Size

FETCH = Fetch(contact="me@example.org")
URL = "https://pictures.test/1.jpg"
GRIT = {
    "key": "015520302000010", "clip_similarity_vitb32": 0.27, "clip_similarity_vitl14": 0.25, "id": 1795296605919,
    "url": URL, "caption": "a wire hanger with a paper cover", "width": 1000, "height": 800,
    "noun_chunks": [[19.0, 32.0, 0.02, 0.34, 0.99, 0.99, 0.93], [0.0, 13.0, 0.5, 0.1, 0.4, 0.9, 0.9]],
    "ref_exps": [[0.0, 32.0, 0.01, 0.0, 1.0, 1.0, 0.66], [0.0, 99.0, 0.1, 0.1, 0.2, 0.2, 0.5], [1.0]],
}  # fmt: skip
LAION = {
    "SAMPLE_ID": 1.0, "URL": URL, "TEXT": "a cat", "HEIGHT": 800.0, "WIDTH": 1000.0, "LICENSE": "?", "similarity": 0.31,
    "LANGUAGE": "en", "hash": -77, "pwatermark": 0.2, "punsafe": 0.01, "AESTHETIC_SCORE": 5.5,
}  # fmt: skip
COYO = {
    "id": 841814333321, "url": URL, "text": "a cat", "width": 1000, "height": 800, "image_phash": "35", "num_faces": 0,
    "clip_similarity_vitb32": 0.2, "clip_similarity_vitl14": 0.3, "nsfw_score_opennsfw2": 0.1,
    "nsfw_score_gantman": 0.4, "watermark_score": 0.2, "aesthetic_score_laion_v2": 5.5,
}  # fmt: skip
DATACOMP = {
    "uid": "f1a2", "url": URL, "text": "a cat", "original_width": 1000, "original_height": 800,
    "clip_b32_similarity_score": 0.2, "clip_l14_similarity_score": 0.3, "face_bboxes": [[0.1, 0.1, 0.2, 0.2]],
    "sha256": "ab" * 32,
}  # fmt: skip


def pairs_of(tmp_path: Path, source: str, rows: list[dict[str, Any]], name: str = "a", **changes: Any) -> list[Any]:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet", row_group_size=4)
    config = Ingest(**{"name": "t", "source": source, "path": str(tmp_path), "fetch": FETCH, **changes})
    return [item for shard in shards(config) for item in read_rows(shard, config)]


@pytest.mark.parametrize(
    ("source", "row", "key", "scores"),
    [
        ("grit", GRIT, "1795296605919", {"clip_score": 0.25}),
        ("laion", LAION, "-77", {"clip_score": 0.31, "watermark": 0.2, "unsafe": 0.01, "aesthetic": 5.5,
                                 "language": "en"}),
        ("coyo", COYO, "841814333321", {"clip_score": 0.3, "watermark": 0.2, "unsafe": 0.1, "aesthetic": 5.5}),
        ("datacomp", DATACOMP, "f1a2", {"clip_score": 0.3, "sha256": "ab" * 32}),
    ],
)  # fmt: skip
def test_each_corpus_by_its_own_columns(
    tmp_path: Path, source: str, row: dict[str, Any], key: str, scores: dict[str, Any]
) -> None:
    for rows in ([row], [{name.upper(): value for name, value in row.items()}]):
        (pair,) = pairs_of(tmp_path, source, rows)
        assert isinstance(pair, Pair)
        assert (pair.source, pair.key, pair.url, pair.image) == (source, key, URL, None)
        assert pair.captions in (("a cat",), (GRIT["caption"],))
        assert pair.declared_size == Size(800, 1000)
        for name in ("clip_score", "watermark", "unsafe", "aesthetic", "language", "sha256"):
            assert getattr(pair, name) == scores.get(name), name


def test_what_is_null_or_nan_is_not_there(tmp_path: Path) -> None:
    rows = [
        {**LAION, "similarity": float("nan"), "LANGUAGE": None, "WIDTH": None, "hash": None},
        {**LAION, "HEIGHT": 0.0, "punsafe": None, "TEXT": None, "hash": 5},
        {**LAION, "URL": None, "hash": 6},
    ]
    first, second, third = pairs_of(tmp_path, "laion", rows)
    assert (first.clip_score, first.language, first.declared_size, first.key) == (None, None, None, "a.parquet#0")
    assert (second.declared_size, second.unsafe, second.captions) == (None, None, ())
    assert isinstance(third, Reject)
    assert (third.reason, third.key) == (Reason.IMAGE_MISSING, "6")


@pytest.mark.parametrize("source", ["grit", "laion", "coyo", "datacomp", "midjourney"])
@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            {"url": [URL], "when": [1]},
            r"a\.parquet has no column .*(caption|content) or text.*: its columns are url, when",
        ),
        ({"caption": ["x"], "when": [1]}, r"a\.parquet has no column url .*: its columns are caption, when"),
    ],
)
def test_a_missing_column_is_named_with_the_file(
    tmp_path: Path, source: Any, table: dict[str, list[Any]], says: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=says):
        shards(Ingest(name="t", source=source, path=str(tmp_path), fetch=FETCH))


@pytest.mark.parametrize("shard_rows", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_shards_of_urls_hold_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_rows: int, rows: int
) -> None:
    monkeypatch.setattr(sources, "URL_ROWS", shard_rows)
    found = pairs_of(tmp_path, "coyo", [{**COYO, "id": i, "url": f"{URL}?{i}"} for i in range(rows)])
    assert [(pair.key, pair.url) for pair in found] == [(str(i), f"{URL}?{i}") for i in range(rows)]
    config = Ingest(name="t", source="coyo", path=str(tmp_path), fetch=FETCH)
    kept = [shard.kept for shard in shards(config)]
    assert len(set(kept)) == len(kept)


def test_pictures_in_the_table_are_not_fetched(tmp_path: Path) -> None:
    (pair,) = pairs_of(tmp_path, "coyo", [{**COYO, "jpg": png()}])
    assert pair.image == png()


def test_grits_regions_are_checked_and_packed(tmp_path: Path) -> None:
    (pair,) = pairs_of(tmp_path, "grit", [GRIT])
    chunk, expression = unpack(pair.regions)
    assert (chunk.kind, chunk.start, chunk.end) == (CHUNK, 19, 32)
    assert (expression.kind, expression.start, expression.end) == (EXPRESSION, 0, 32)
    assert chunk.box == pytest.approx((0.02, 0.34, 0.99, 0.99), abs=1 / MOST)
    assert chunk.confidence == pytest.approx(0.93, abs=1 / MOST)


ROW = st.lists(st.floats(allow_nan=True) | st.floats(0, 1) | st.integers(0, 20).map(float), max_size=9)


@given(st.lists(ROW, max_size=5) | st.none() | st.text(), st.lists(ROW, max_size=5) | st.none(), st.text(max_size=20))
def test_only_true_regions_are_packed(chunks: object, expressions: object, caption: str) -> None:
    packed = pack(chunks, expressions, caption)
    assert packed is None or (len(packed) % FIELDS == 0 and all(0 <= number <= MOST for number in packed))
    for region in unpack(packed or ()):
        assert 0 <= region.start < region.end <= len(caption)
        assert region.box[0] <= region.box[2]


@pytest.mark.parametrize(
    ("message", "prompt"),
    [
        ("**a fox in the snow --ar 16:9 --v 5** - <@123456> (fast)", "a fox in the snow"),
        ("**a fox, oil --ar 16:9 --s 750 --tile** - Upscaled by <@123> (relaxed)", "a fox, oil"),
        ("**a fox --v 5** - Image #2 <@!123>", "a fox"),
        ("**a fox** - Variations by @some user (fast)", "a fox"),
        ("**a fox** - @user (fast)", "a fox"),
        ("**a fox** - Upscaled (Beta) by <@12> (fast)", "a fox"),
        ("**<https://s.mj.run/abc> a fox --iw 2** - <@1> (fast)", "a fox"),
        ("**https://cdn.test/a.png, a fox :: sunset::2 --no people --q 2** - <@1> (fast)", "a fox sunset"),
        ("**a well-known fox - red — at dusk --niji 5** - <@1> (fast)", "a well-known fox - red — at dusk"),
        ("a fox —at dusk —ar 3:2 —v 5", "a fox —at dusk"),
        ("a fox --no people with hats, cars --v 5", "a fox"),
        ("a fox --no people with hats, cars", "a fox"),
        ("a fox --tile in the snow", "a fox in the snow"),
        ("a fox —ar 3:2", "a fox"),
        ("a fox", "a fox"),
        ("**https://cdn.test/a.png** - <@1>", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_prompt_is_the_words_that_were_asked_for(message: str, prompt: str) -> None:
    assert clean_prompt(message) == prompt


@given(st.text(max_size=200))
def test_any_message_can_be_cleaned(message: str) -> None:
    assert "**" not in clean_prompt(message)


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("data/ori_prompts_df.parquet", "x - Upscaled by <@1>", "sheet"),
        ("upscaled_prompts_df.parquet", "x", "single"),
        ("original.parquet", "x", "sheet"),
        ("authority.parquet", "x - Image #3 <@1>", "single"),
        ("messages.parquet", "x - Upscaled by <@1>", "single"),
        ("messages.parquet", "x - <@1> (fast)", "sheet"),
    ],
)
def test_sheets_are_told_from_pictures(name: str, message: str, kind: str) -> None:
    assert kind_of(name, message) == kind


def test_sheets_are_left_or_split(tmp_path: Path) -> None:
    row = {"id": "9", "content": "**a fox --v 5** - <@1> (fast)", "url": URL, "width": 2048, "height": 1024}
    (left,) = pairs_of(tmp_path, "midjourney", [row], name="ori_prompts_df")
    assert isinstance(left, Reject)
    assert left.reason is Reason.GRID_OF_FOUR
    split = pairs_of(tmp_path, "midjourney", [row], name="ori_prompts_df", grids="split")
    assert [(pair.key, pair.quadrant, pair.captions) for pair in split] == [(f"9/{i}", i, ("a fox",)) for i in range(4)]
    assert {pair.declared_size for pair in split} == {Size(512, 1024)}


def test_upscaled_pictures_are_taken_whole(tmp_path: Path) -> None:
    row = {"id": "9", "content": "**a fox** - Image #1 <@1>", "url": URL, "width": 1024, "height": 1024}
    (pair,) = pairs_of(tmp_path, "midjourney", [row], name="upscaled_prompts_df")
    assert (pair.key, pair.quadrant, pair.captions) == ("9", None, ("a fox",))


@pytest.mark.parametrize("name", ["grit", "laion", "coyo", "datacomp", "midjourney", "datasets"])
def test_every_corpus_has_a_recipe(name: str) -> None:
    assert RECIPES[name]().source == name
