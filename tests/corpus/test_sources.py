"""Every source yields pairs, and names what it cannot read."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import png

from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.sources import read, shards
from ssd1b.recipes.ingest import Ingest


def all_of(config: Ingest) -> tuple[list[Pair], list[Reject]]:
    found = [item for shard in shards(config) for item in read(shard, config)]
    return [item for item in found if isinstance(item, Pair)], [item for item in found if isinstance(item, Reject)]


def write_parquet(path: Path, rows: int, row_group_rows: int = 4) -> None:
    table = pa.table({"image": [png(seed=i) for i in range(rows)], "caption": [f"thing {i}" for i in range(rows)]})
    pq.write_table(table, path, row_group_size=row_group_rows, compression="none")


def test_parquet_by_folder_file_and_glob(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 6)
    write_parquet(tmp_path / "b.parquet", 2)
    for path, expected in ((tmp_path, 8), (tmp_path / "a.parquet", 6), (tmp_path / "*.parquet", 8)):
        pairs, rejects = all_of(Ingest(name="t", source="parquet", path=str(path)))
        assert len({(pair.source, pair.key) for pair in pairs}) == expected
        assert not rejects


def test_a_truncated_shard_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 6)
    write_parquet(tmp_path / "b.parquet", 2)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    pairs, rejects = all_of(Ingest(name="t", source="parquet", path=str(tmp_path)))
    assert len(pairs) == 2
    assert [(reject.reason, reject.key, reject.rows) for reject in rejects] == [
        (Reason.UNREADABLE_SHARD, "a.parquet", 1)
    ]


def test_a_damaged_row_group_counts_the_rows_it_loses(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, 8)
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 64] = bytes(64)
    path.write_bytes(damaged)
    pairs, rejects = all_of(Ingest(name="t", source="parquet", path=str(path)))
    assert [pair.captions for pair in pairs] == [(f"thing {i}",) for i in range(4, 8)]
    assert [(reject.reason, reject.rows) for reject in rejects] == [(Reason.UNREADABLE_SHARD, 4)]


def test_a_table_without_pictures_is_the_users_mistake(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["x"], "caption": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column image.*url, caption"):
        shards(Ingest(name="t", source="parquet", path=str(tmp_path)))


@pytest.mark.parametrize(("path", "says"), [("", "--set path="), ("/no/such/folder", "absolute path")])
def test_a_path_that_is_not_there_says_what_to_give(path: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        shards(Ingest(name="t", source="parquet", path=path))


@pytest.mark.parametrize("embed", [True, False])
def test_an_image_folder(tmp_path: Path, embed: bool) -> None:
    (tmp_path / "a.png").write_bytes(png())
    lines = [
        json.dumps({"file_name": "a.png", "text": "a cat", "style": "photo"}),
        json.dumps({"file_name": "gone.png", "text": "a dog"}),
        json.dumps({"file_name": "../../etc/passwd", "text": "a secret"}),
        "{broken",
        json.dumps(["a list"]),
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")
    pairs, rejects = all_of(Ingest(name="t", source="folder", path=str(tmp_path), embed=embed))
    assert [(pair.key, pair.captions, pair.style) for pair in pairs] == [("a.png", ("a cat",), "photo")]
    assert (pairs[0].image is None) is not embed
    assert pairs[0].read() == png()
    counts = Counter(reject.reason for reject in rejects)
    assert counts == {Reason.IMAGE_MISSING: 1, Reason.PATH_OUTSIDE_FOLDER: 1, Reason.METADATA_UNREADABLE: 2}


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_webdataset_tars(tmp_path: Path) -> None:
    files = {
        "d/1.jpg": png(seed=1), "d/1.txt": b"a cat",
        "d/2.png": png(seed=2), "d/2.json": b'{"caption": "a dog", "licence": "MIT"}',
        "d/3.txt": b"no picture",
        "d/4.png": png(seed=4), "d/4.txt": b"\xff\xfe\xfa",
        "d/5.png": png(seed=5), "d/5.json": b"[1]",
    }  # fmt: skip
    write_tar(tmp_path / "0.tar", files)
    pairs, rejects = all_of(Ingest(name="t", source="webdataset", path=str(tmp_path)))
    assert [(pair.key, pair.captions, pair.licence) for pair in pairs] == [
        ("d/1", ("a cat",), None),
        ("d/2", ("a dog",), "MIT"),
    ]
    assert [reject.reason for reject in rejects] == [
        Reason.IMAGE_MISSING,
        Reason.CAPTION_NOT_UTF8,
        Reason.METADATA_UNREADABLE,
    ]


def test_a_cut_tar_keeps_what_came_before_the_cut(tmp_path: Path) -> None:
    files = {f"{i}.{kind}": png(seed=i) if kind == "png" else b"a cat" for i in range(20) for kind in ("png", "txt")}
    write_tar(tmp_path / "0.tar", files)
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) // 2])
    pairs, rejects = all_of(Ingest(name="t", source="webdataset", path=str(tmp_path / "0.tar")))
    assert 0 < len(pairs) < 20
    assert [(reject.reason, reject.key) for reject in rejects] == [(Reason.UNREADABLE_SHARD, "0.tar")]
