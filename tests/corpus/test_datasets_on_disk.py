"""Hugging Face datasets on disk, written here as save_to_disk lays them out; and Parquet with their Image feature."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png

from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.sources import read, shards
from ssd1b.recipes.ingest import Ingest
from ssd1b.sizes import Size

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(rows: int, image: str = "image", first: int = 0) -> pa.Table:
    """Pictures as the Image feature stores them, and the metadata that names the feature."""
    features = {"info": {"features": {image: {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}}}
    pictures = [{"bytes": png(seed=first + i), "path": f"{i}.png"} for i in range(rows)]
    columns = [pa.array(pictures, IMAGE), pa.array([f"thing {first + i}" for i in range(rows)])]
    schema = pa.schema([(image, IMAGE), ("text", pa.string())], metadata={"huggingface": json.dumps(features)})
    return pa.Table.from_arrays(columns, schema=schema)


def save(folder: Path, tables: list[pa.Table], split: str | None = None, **state: Any) -> None:
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, content in zip(names, tables, strict=True):
        with pa.ipc.new_stream(str(folder / name), content.schema) as stream:
            stream.write_table(content, max_chunksize=3)
    told = {"_data_files": [{"filename": name} for name in names], "_split": split, **state}
    (folder / "state.json").write_text(json.dumps(told))


def all_of(path: Path, source: Any = "datasets") -> tuple[list[Pair], list[Reject]]:
    config = Ingest(name="t", source=source, path=str(path))
    found = [item for shard in shards(config) for item in read(shard, config)]
    return [item for item in found if isinstance(item, Pair)], [item for item in found if isinstance(item, Reject)]


def test_a_dataset_of_several_files(tmp_path: Path) -> None:
    save(tmp_path / "pets", [table(7), table(4, first=7)])
    pairs, rejects = all_of(tmp_path / "pets")
    assert [(pair.image, pair.captions) for pair in pairs] == [(png(seed=i), (f"thing {i}",)) for i in range(11)]
    assert len({(pair.source, pair.key) for pair in pairs}) == 11
    assert not rejects


def test_splits_are_told_from_the_folders(tmp_path: Path) -> None:
    for split, rows in (("train", 3), ("test", 2)):
        save(tmp_path / "pets" / split, [table(rows)])
    (tmp_path / "pets/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    pairs, _ = all_of(tmp_path / "pets")
    assert [pair.split for pair in pairs] == ["train"] * 3 + ["test"] * 2


def test_an_image_feature_is_found_under_any_name(tmp_path: Path) -> None:
    save(tmp_path / "pets", [table(2, image="photo_of_pet")])
    pairs, _ = all_of(tmp_path / "pets")
    assert [pair.image for pair in pairs] == [png(seed=0), png(seed=1)]


def test_a_cut_file_keeps_what_came_before_the_cut(tmp_path: Path) -> None:
    save(tmp_path / "pets", [table(30), table(2)])
    path = tmp_path / "pets/data-00000-of-00002.arrow"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pairs, rejects = all_of(tmp_path / "pets")
    assert 2 < len(pairs) < 32
    assert [reject.reason for reject in rejects] == [Reason.UNREADABLE_SHARD]
    path.write_bytes(b"")
    pairs, rejects = all_of(tmp_path / "pets")
    assert (len(pairs), [reject.reason for reject in rejects]) == (2, [Reason.UNREADABLE_SHARD])


def test_a_missing_file_is_a_reject_and_a_missing_dataset_the_users_mistake(tmp_path: Path) -> None:
    save(tmp_path / "pets", [table(2), table(2)])
    (tmp_path / "pets/data-00001-of-00002.arrow").unlink()
    pairs, rejects = all_of(tmp_path / "pets")
    assert (len(pairs), [reject.reason for reject in rejects]) == (2, [Reason.UNREADABLE_SHARD])
    with pytest.raises(ValueError, match=r"no state\.json"):
        all_of(tmp_path)


def test_rows_picked_by_an_index_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "pets", [table(2)], _indices_files=[{"filename": "indices.arrow"}])
    with pytest.raises(ValueError, match="flatten_indices"):
        all_of(tmp_path / "pets")


def test_parquet_with_an_image_feature(tmp_path: Path) -> None:
    (tmp_path / "here.png").write_bytes(png(seed=9))
    rows = [
        {"Image": {"bytes": png(seed=1), "path": None}, "Caption": "one"},
        {"Image": {"bytes": None, "path": str(tmp_path / "here.png")}, "Caption": "two"},
        {"Image": {"bytes": None, "path": "somewhere.png"}, "Caption": "three"},
        {"Image": None, "Caption": "four"},
    ]
    schema = pa.schema([("Image", IMAGE), ("Caption", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "a.parquet")
    pairs, rejects = all_of(tmp_path / "a.parquet", "parquet")
    assert [(pair.captions, pair.read()) for pair in pairs] == [(("one",), png(seed=1)), (("two",), png(seed=9))]
    assert [reject.reason for reject in rejects] == [Reason.IMAGE_MISSING] * 2


def test_tars_with_many_suffixes_and_scores(tmp_path: Path) -> None:
    told = {
        "caption": "a dog",
        "SIMILARITY": 0.3,
        "punsafe": 0.1,
        "original_width": 300,
        "original_height": 200,
        "lang": "en",
    }
    files = {
        "1.image.JPG": png(seed=1), "1.txt": b"a cat",
        "2.seg.png": png(seed=20), "2.png": png(seed=2), "2.json": json.dumps(told).encode(),
        "3.png": png(seed=3), "3.seg.png": png(seed=30), "3.txt": b"a bird",
        "4.webp": png(seed=4), "4.txt": b"a bee",
    }  # fmt: skip
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    pairs, rejects = all_of(tmp_path, "webdataset")
    assert not rejects
    assert [pair.image for pair in pairs] == [png(seed=i) for i in (1, 2, 3, 4)]
    assert (pairs[1].clip_score, pairs[1].unsafe, pairs[1].declared_size) == (0.3, 0.1, Size(200, 300))
    assert pairs[1].language == "en"
