"""What an ingestion tells: near duplicates by name, a sample that no order changes, a sheet, a run in MLflow."""

import dataclasses
import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import encoded, png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ssd1b import tracking
from ssd1b.corpus import ingest as room
from ssd1b.corpus import manifest
from ssd1b.corpus.charts import Box, fitted, funnel, reach, share
from ssd1b.corpus.hashes import perceptual_hash
from ssd1b.corpus.ingest import ingest
from ssd1b.corpus.legible import glyphs, legible
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.record import EXPERIMENT, metrics, recorded
from ssd1b.corpus.report import gather
from ssd1b.corpus.report_sheet import WIDTH, Report, Shown, draw
from ssd1b.corpus.samples import PER_REASON, PICTURES, THUMBNAIL_PX, Samples, shown
from ssd1b.corpus.shipped import PATH
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import Ingest


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_process(work: list[Any], make: Callable[[], Callable[[Any], Any]], **_: Any) -> Iterator[Any]:
        function = make()
        for item in random.Random(0).sample(work, len(work)):
            yield json.loads(json.dumps(function(item)))

    monkeypatch.setattr(room, "each", in_this_process)


def drawings(count: int) -> list[Image.Image]:
    """Drawings of which no two look alike."""
    found: dict[int, Image.Image] = {}
    for data in pq.read_table(PATH, columns=["image"], filters=[("style", "=", "3d render")])["image"].to_pylist():
        image = Image.open(io.BytesIO(data)).convert("RGB")
        own = perceptual_hash(image)
        if all((own ^ other).bit_count() > 12 for other in found):
            found[own] = image
        if len(found) == count:
            break
    return list(found.values())


@pytest.fixture
def corpus(tmp_path: Path) -> Ingest:
    """20 drawings, 5 again in worse quality, 2 again as they are; one each of junk, blank, without words, marked."""
    rows = []
    for i, image in enumerate(drawings(20)):
        rows.append({"key": f"d{i}", "image": encoded(image), "watermark": 0.1})
        if i < 5:
            smaller = image.resize((128, 128)).resize((140, 140))
            rows.append({"key": f"again{i}", "image": encoded(smaller, "JPEG", quality=70)})
        if i < 2:
            rows.append({**rows[-2], "key": f"twin{i}"})
    rows += [
        {"key": "junk", "image": b"junk"},
        {"key": "blank", "image": encoded(Image.new("RGB", (128, 128), "teal"))},
        {"key": "mute", "image": png(), "caption": "?"},
        {"key": "marked", "image": png(seed=3), "watermark": 0.99},
    ]
    folder = tmp_path / "corpus"
    folder.mkdir()
    table = pa.Table.from_pylist([{"caption": f"a drawing {i}", "source": "s", "watermark": None, **row}
                                  for i, row in enumerate(rows)])  # fmt: skip
    pq.write_table(table, folder / "a.parquet", row_group_size=6)
    filters = Filters(max_watermark=0.9, near_duplicate_bits=4)
    return Ingest(name="t", source="parquet", path=str(folder), buckets="nano", filters=filters)


PLANTED = {
    "image_corrupt": 1,
    "image_blank": 1,
    "caption_empty": 1,
    "watermark": 1,
    "duplicate": 2,
    "near_duplicate": 5,
}


@pytest.mark.usefixtures("home")
def test_near_duplicates_go_and_name_the_row_that_stays(corpus: Ingest) -> None:
    result = ingest(corpus)
    assert Counter(result["rejected"]) == Counter(PLANTED)
    assert result["rows_kept"] == 20
    rows = [row for part in manifest.parts("t") for row in pq.read_table(part, partitioning=None).to_pylist()]
    kept = {row["sample_id"]: row for row in rows}
    assert len(kept) == 20
    rejects = [json.loads(line) for line in Path(result["rejects_file"]).read_text().splitlines()]
    near = [reject for reject in rejects if reject["reason"] == "near_duplicate"]
    assert len(near) == 5
    for reject in near:
        stays = kept[int(reject["detail"].split()[1])]
        assert stays["sample_id"] < manifest.sample_id("s", reject["key"])
        assert stays["key"].lstrip("adgintw") == reject["key"].lstrip("adgintw"), "the same drawing"
    assert not any({"picture", "rank"} & set(reject) for reject in rejects)


@pytest.mark.usefixtures("home")
def test_without_a_distance_none_is_looked_for(corpus: Ingest) -> None:
    result = ingest(dataclasses.replace(corpus, filters=Filters(max_watermark=0.9)))
    assert result["rows_kept"] == 25
    assert "near_duplicate" not in result["rejected"]


def test_the_sheet_lies_beside_the_manifest_and_a_rerun_draws_the_same(corpus: Ingest, home: Path) -> None:
    result = ingest(corpus)
    first = (home / "manifest" / "t" / manifest.SHEET).read_bytes()
    picture = Image.open(io.BytesIO(first))
    assert result["report"] == str(home / "manifest" / "t" / manifest.SHEET)
    assert picture.width == WIDTH
    assert picture.height > 1000
    ingest(corpus)
    assert (home / "manifest" / "t" / manifest.SHEET).read_bytes() == first


def test_the_sheet_tells_what_the_result_tells(corpus: Ingest, home: Path) -> None:
    result = ingest(corpus)
    samples = Samples()
    samples.add(Reject(reason=Reason.WATERMARK, source="s", key="marked"), png(), max_pixels=10**6)
    report = gather(home / "manifest" / "t", corpus, result, samples)
    assert report.left_out == PLANTED
    assert list(report.left_out.values()) == sorted(PLANTED.values(), reverse=True)
    assert len(report.height_N) == len(report.width_N) == result["rows_kept"]
    assert len(report.kept) == 20
    assert all(example.picture is not None and example.text.startswith("a drawing") for example in report.kept)
    assert [example.name for example in report.lost["watermark"]] == ["marked"]
    assert sum(report.left_out.values()) + sum(report.buckets.values()) == report.rows_in


@pytest.mark.usefixtures("home")
def test_a_picture_that_was_taken_away_since_does_not_spoil_the_sheet(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = []
    for i, image in enumerate(drawings(3)):
        image.save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a drawing {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    config = Ingest(name="f", source="folder", path=str(folder), embed=False, buckets="nano")
    result = ingest(config)
    shutil.rmtree(folder)
    report = gather(Path(result["folder"]), config, result, Samples())
    assert [example.picture for example in report.kept] == [None] * 3
    assert draw(report).width == WIDTH


def test_a_run_in_mlflow_holds_recipe_figures_and_files(corpus: Ingest, home: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, home / "mlflow.db")
    result = recorded(corpus)
    client = tracking.connect()
    run = client.get_run(result["run_id"])
    assert client.get_experiment(run.info.experiment_id).name == EXPERIMENT
    assert (run.info.status, run.info.run_name) == ("FINISHED", "t")
    assert run.data.params["filters.max_watermark"] == "0.9"
    assert {name: run.data.metrics[f"rejected.{name}"] for name in PLANTED} == PLANTED
    assert run.data.metrics["rows_in"] == result["rows_in"]
    assert run.data.metrics["share_kept"] == pytest.approx(20 / result["rows_in"])
    files = {file.path for file in client.list_artifacts(result["run_id"])}
    assert files == {manifest.SUMMARY, manifest.REJECTS, manifest.SHEET}
    told = json.loads((Path(result["folder"]) / manifest.SUMMARY).read_text())
    assert {name: result[name] for name in told} == told
    assert metrics(told)["buckets.128x128"] == 20


def test_a_run_that_fails_is_there_as_failed(corpus: Ingest, home: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, home / "mlflow.db")
    with pytest.raises(ValueError, match="nothing is left"):
        recorded(dataclasses.replace(corpus, buckets="sdxl"))
    client = tracking.connect()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]


def rejects(count: int) -> list[Reject]:
    return [Reject(reason=Reason.TOO_SMALL, source="s", key=f"k{i}", detail=f"row {i}") for i in range(count)]


def test_the_sample_is_the_same_whatever_the_order_and_however_it_was_split() -> None:
    everything = rejects(1000)
    one = Samples()
    for reject in everything:
        one.add(reject, png(16, 16), max_pixels=10**6)
    several = Samples()
    for start in (600, 0, 300):
        part = Samples()
        for reject in reversed(everything[start : start + (400 if start == 600 else 300)]):
            part.add(reject, png(16, 16), max_pixels=10**6)
        several.merge(json.loads(json.dumps(part.rows())))
    assert several.told() == one.told()
    assert [row["picture"] is None for row in several.rows()] == [False] * PICTURES + [True] * (PER_REASON - PICTURES)
    numbers = [int(row["key"][1:]) for row in one.rows()]
    assert len(numbers) == PER_REASON
    assert 400 < np.mean(numbers) < 600, "an even sample, not the first rows"


def test_every_unreadable_file_is_named() -> None:
    samples = Samples()
    for i in range(3 * PER_REASON):
        samples.add(Reject(reason=Reason.UNREADABLE_SHARD, source="s", key=f"{i}.tar"), max_pixels=1)
    assert len(samples.told()) == 3 * PER_REASON


def test_a_sample_picture_is_small_and_none_where_there_is_none() -> None:
    samples = Samples()
    for reject, data in zip(rejects(3), (png(800, 400), b"junk", None), strict=True):
        samples.add(reject, data, max_pixels=10**6)
    pictures = {row["key"]: shown(row["picture"]) for row in samples.rows()}
    assert pictures["k1"] is pictures["k2"] is None
    assert pictures["k0"] is not None
    assert pictures["k0"].size == (THUMBNAIL_PX, THUMBNAIL_PX // 2)


def test_the_funnel_shows_even_one_row_of_many() -> None:
    """Its red cell is three pixels at least, and bars end where the next begins."""
    sheet = Image.new("RGB", (900, 200), "white")
    funnel(ImageDraw.Draw(sheet), Box(0, 0, 900, 160), 10**6, {"too_small": 400_000, "image_blank": 1})
    pixels = np.asarray(sheet).astype(int)
    red_HW = np.abs(pixels - (228, 87, 46)).sum(axis=-1) < 30
    columns = [np.flatnonzero(red_HW[line].any(axis=0)) for line in (slice(40, 60), slice(80, 100))]
    assert len(columns[1]) >= 3
    assert abs(columns[1].max() - columns[0].min()) <= 3
    assert len(columns[0]) == pytest.approx(0.4 * (900 - 190 - 150), abs=3)


def test_text_is_cut_to_its_room() -> None:
    for text in ("", "word", "several words that need room", "x" * 300, "中文字" * 40):
        lines = fitted(text, 12, 100, 2)
        assert len(lines) <= 2
        assert all(reach(line, 12) <= 100 for line in lines)
    assert fitted("two lines", 12, 500, 2) == ["two lines"]
    assert (share(1, 10**6), share(0, 5), share(1, 8)) == ("< 0.1 %", "0.0 %", "12.5 %")


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("a cat", "a cat"),
        ("un café, Москва,  قطة", "un café, Москва,  قطة"),
        ("a 中文字 cat", "a (3 characters of Han) cat"),
        ("東京タワーの夜景", "(8 characters of Han, Katakana and Hiragana)"),
        ("한국어 문장 입니다 by night", "(8 characters of Hangul) by night"),
        ("中", "(1 character of Han)"),
        ("中文。", "(3 characters of Han and symbols)"),
        ("🍎 an apple 👩‍🚀️", "(1 symbol) an apple (2 symbols)"),
        ("󠿿", "(1 symbol)"),
        ("", ""),
    ],
)
def test_what_the_font_lacks_is_told_in_words(text: str, drawn: str) -> None:
    assert legible(text) == drawn


@given(st.text(max_size=40))
def test_no_box_is_ever_drawn(text: str) -> None:
    told = legible(text)
    assert all(ord(letter) in glyphs() or letter.isspace() for letter in told)
    assert bool(told.strip()) == bool(text.strip()), "and nothing is passed over"


def test_a_sheet_without_pictures_is_lines_of_text() -> None:
    """Candidates: their captions and URLs, and sizes of which some are not known."""
    shown = Shown(picture=None, text="中文", name="https://a.test/1")
    sizes = {"height_N": np.full(3, 900), "width_N": np.full(3, 900)}
    report = Report(title="t", subtitle="s", rows_in=20, left_out={"too_small": 8}, buckets={"unknown": 12},
                    kept=[shown] * 24, lost={"too_small": [shown] * 100}, **sizes)  # fmt: skip
    sheet = draw(report)
    tiles = draw(dataclasses.replace(report, kept=[dataclasses.replace(shown, picture=drawings(1)[0])] * 24))
    assert sheet.height < tiles.height
    assert (np.asarray(sheet)[-30:] == 255).all(), "a margin is left below"
    none = {"height_N": np.zeros(0, int), "width_N": np.zeros(0, int)}
    assert draw(dataclasses.replace(report, **none)).size == sheet.size


def test_a_sheet_of_many_reasons_and_buckets_holds_them_all() -> None:
    report = Report(
        title="t",
        subtitle="s",
        rows_in=1000,
        left_out={reason.value: 10 for reason in list(Reason)[:40]},
        buckets={f"{i}x{i}": i for i in range(1, 10)},
        height_N=np.full(600, 900),
        width_N=np.full(600, 5000),
        kept=[Shown(picture=None, text="a caption")] * 24,
        lost={reason.value: [Shown(picture=drawings(1)[0], text="why", name="key")] for reason in list(Reason)[:40]},
    )
    sheet = np.asarray(draw(report))
    assert (sheet[-60:] == 255).all(), "a margin is left below"
    assert not (sheet[-260:-60] == 255).all(), "and the last examples stand right above it"
