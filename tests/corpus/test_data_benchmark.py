"""The data benchmark: pictures like photographs, the same work for all, and what is not installed named."""

import dataclasses
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd1b.corpus import rivals
from ssd1b.corpus.benchmark import BUCKETS, OURS, jpegs, ours, picture_contenders
from ssd1b.corpus.contest import Others, Turn, left_out, standing, take_turns
from ssd1b.corpus.photographs import write_tars
from ssd1b.corpus.pixels import fit
from ssd1b.elastic.ceiling import write_part, write_tar
from ssd1b.elastic.data_path import data_path
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.benchmark import data
from ssd1b.sizes import SDXL_BUCKETS, Size, nearest_bucket

STUB = '''
import tarfile

from torch.utils.data import IterableDataset


class WebDataset(IterableDataset):
    """As much of the library as the benchmark asks for."""

    def __init__(self, url, **told):
        self.url, self.steps = url, []

    def map(self, step):
        self.steps.append(step)
        return self

    def decode(self, how):
        from io import BytesIO
        from PIL import Image
        return self.map(lambda row: row | {"jpg": Image.open(BytesIO(row["jpg"]))})

    def shuffle(self, rows):
        return self

    def __iter__(self):
        with tarfile.open(self.url) as tar:
            row = {}
            for member in tar:
                row[member.name.partition(".")[2]] = tar.extractfile(member).read()
                if len(row) == 2:
                    found = row
                    for step in self.steps:
                        found = step(found)
                    yield found
                    row = {}
'''


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_tars(tmp_path_factory.mktemp("tars"), pictures=6, tars=2, megapixels=1.2)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Others:
    """This very Python, with a stand-in for one of the libraries."""
    stubs = tmp_path / "stubs"
    (stubs / "webdataset-1.0.dist-info").mkdir(parents=True)
    (stubs / "webdataset-1.0.dist-info" / "METADATA").write_text("Name: webdataset\nVersion: 1.0\n")
    (stubs / "webdataset.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(stubs))
    return Others(sys.executable, tmp_path)


def test_pictures_have_the_size_and_the_weight_of_photographs(tars: list[Path]) -> None:
    found = [data for tar in tars for data in jpegs(tar)]
    assert len(found) == 6
    for one in found:
        image = Image.open(io.BytesIO(one))
        size = Size(image.height, image.width)
        bucket = nearest_bucket(size, SDXL_BUCKETS)
        assert image.width * image.height == pytest.approx(1.2e6, rel=0.01)
        assert size.height >= bucket.height
        assert size.width >= bucket.width
    assert 150_000 < np.mean([len(one) for one in found]) < 450_000


def test_a_seed_gives_the_same_pictures(tars: list[Path], tmp_path: Path) -> None:
    again = write_tars(tmp_path, pictures=6, tars=2, megapixels=1.2)
    assert [tar.read_bytes() for tar in again] == [tar.read_bytes() for tar in tars]


def test_the_others_cut_the_same_pixels(tars: list[Path]) -> None:
    """With our kernels bit for bit; with Pillow's within two levels."""
    (one, *_) = jpegs(tars[0])
    image = Image.open(io.BytesIO(one))
    expected = fit(image.convert("RGB"), nearest_bucket(Size(image.height, image.width), SDXL_BUCKETS)).pixels_HWC
    np.testing.assert_array_equal(rivals.cut(rivals.opened(one), BUCKETS, "torch"), expected)
    apart = rivals.cut(rivals.opened(one), BUCKETS, "pillow").astype(int) - expected
    assert np.abs(apart).max() <= 2


def test_all_do_the_same_work_in_turns(tars: list[Path], others: Others) -> None:
    with others:
        contenders = picture_contenders(tars, [others])
        turns = take_turns(contenders, 2)
    libraries = [name for name in contenders if name.startswith("webdataset")]
    assert len(libraries) == 4
    for name in (OURS, "limit: decoding and Lanczos alone", *libraries):
        assert [turn.bytes for turn in turns[name]] == [ours(tar)[1] for tar in tars], name
    table = standing("t", "images", turns, OURS)
    assert table[OURS]["ratio"] == 1
    assert table["limit: sequential read alone"]["ratio"] < table["limit: Pillow's JPEG decoding alone"]["ratio"] < 1


def test_ratios_are_of_the_same_round() -> None:
    ours, theirs = (
        [Turn(items=8, cpu_s=cpu_s, wall_s=9.0) for cpu_s in seconds] for seconds in ((1, 2, 8), (2, 4, 16))
    )
    assert standing("t", "rows", {"a": ours, "b": theirs}, "a")["b"] == {"per_core": 2.0, "wall": 0.889, "ratio": 2.0}


def test_unlike_amounts_of_work_are_refused() -> None:
    contenders = {name: lambda _, n=n: Turn(items=n, cpu_s=1, wall_s=1) for name, n in (("a", 1), ("b", 2))}
    with pytest.raises(AssertionError, match="unlike numbers"):
        take_turns(contenders, 1)


def test_what_is_not_installed_is_named_with_how_to_get_it(others: Others, capsys: pytest.CaptureFixture[str]) -> None:
    with others:
        missing = left_out([others])
        assert others.found == {"webdataset": "1.0"}
    assert set(missing) == {"datasets", "mosaicml-streaming", "simplejpeg"}
    assert "No module named 'streaming'" in missing["mosaicml-streaming"]
    assert "left out: mosaicml-streaming" in capsys.readouterr().out
    assert "pip install webdataset in an environment of its own" in left_out([])["webdataset"]


def test_no_such_python_and_a_failing_library_say_so(others: Others, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="others='/no/python' cannot be run"):
        Others("/no/python", tmp_path)
    with others, pytest.raises(ValueError, match=r"streaming_latents has failed: .*No module named 'streaming'"):
        others.turn({"pass": "streaming_latents", "shard": "x"})


def test_the_latents_are_read_in_the_order_of_a_large_corpus(tmp_path: Path) -> None:
    part = write_part(tmp_path, 64)
    bucket = Latents.open(tmp_path / "latents").buckets[0]
    assert len(bucket.rows) > 1 << 16
    assert set(bucket.sample_ids.tolist()) == set(range(64))
    write_tar(part, tmp_path / "t.tar")
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert [tar.next().name for _ in range(2)] == ["00000000.mean.bin", "00000000.std.bin"]  # type: ignore[union-attr]


def test_the_whole_run(tmp_path: Path, others: Others) -> None:
    """All but Ray."""
    del others
    small = {"pictures": 2, "rounds": 1, "rows": 64, "rows_per_slice": ()}
    config = dataclasses.replace(data(), others=sys.executable, scratch=str(tmp_path), **small)
    result = data_path(config)
    assert set(result["latents"]) == {"ssd1b", "webdataset"}
    assert result["libraries"] == {"webdataset": "1.0"}
    assert 0 < result["share_of_decoding_alone"] < result["share_of_decoding_and_lanczos_alone"]
    assert result["feed"] == {}
    assert not list(tmp_path.glob("tmp*")), "what was written for the run is gone"
