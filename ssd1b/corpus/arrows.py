"""Hugging Face datasets on disk, as save_to_disk wrote them, read with pyarrow alone.

    FOLDER/state.json, data-00000-of-00002.arrow, ...        a dataset
    FOLDER/dataset_dict.json, train/state.json, ...          one with splits: a pair's split is its folder's name

The Arrow files are streams: readable from the start only, so that one file is one shard. They are mapped, not loaded.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from ssd1b.corpus.layouts import PICTURES, Layout, found_columns
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.tables import READ_ROWS, pair_of

STATE, SPLITS = "state.json", "dataset_dict.json"


@dataclass(frozen=True, kw_only=True)
class ArrowFile:
    """One file of a dataset."""

    path: Path
    name: str
    """Below the dataset's folder, with the folder: pets/train/data-00000-of-00001.arrow."""
    split: str | None


def arrow_files(folder: Path) -> list[ArrowFile]:
    """Return the files of a dataset in the order of its rows.

    Raises:
        ValueError: the folder holds no such dataset, or one whose rows are picked by an index apart from its files.
    """
    if (folder / SPLITS).is_file():
        splits = json.loads((folder / SPLITS).read_text())["splits"]
        return [file for split in splits for file in split_files(folder / split, f"{folder.name}/{split}", split)]
    return split_files(folder, folder.name, None)


def split_files(folder: Path, name: str, split: str | None) -> list[ArrowFile]:
    state = folder / STATE
    if not state.is_file():
        raise ValueError(f"{folder} has no {STATE}: give a folder that save_to_disk wrote, or its folder of splits")
    told = json.loads(state.read_text())
    if told.get("_indices_files"):
        raise ValueError(f"{folder} picks its rows by index: save it again after dataset.flatten_indices()")
    named = [entry["filename"] for entry in told["_data_files"]]
    return [ArrowFile(path=folder / file, name=f"{name}/{file}", split=told.get("_split") or split) for file in named]


def layout_of(schema: pa.Schema) -> Layout:
    """Return the layout of a dataset: the usual one, in which its own Image feature is a picture too."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = told.get("info", {}).get("features", {}) if isinstance(told, dict) else {}
    images = tuple(
        name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "Image"
    )
    return replace(PICTURES, columns={**PICTURES.columns, "image": (*PICTURES.columns["image"], *images)})


def check_file(file: ArrowFile) -> None:
    """Raise ValueError if a file has no column of pictures or captions; OSError or ArrowInvalid if it has no start."""
    with pa.memory_map(str(file.path)) as source, pa.ipc.open_stream(source) as stream:
        found_columns(layout_of(stream.schema), stream.schema.names, file.path)


def read_arrow(path: Path, name: str, split: str | None) -> Iterator[Pair | Reject]:
    """Yield the pairs of a file; one that breaks off yields those before the break, then one Reject of unknown size."""
    number = 0
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            layout = layout_of(stream.schema)
            columns = found_columns(layout, stream.schema.names, path)
            for batch in stream:
                wanted = batch.select(sorted(set(columns.values())))
                for start in range(0, len(wanted), READ_ROWS):
                    for row in wanted.slice(start, READ_ROWS).to_pylist():
                        ours = {field: row[column] for field, column in columns.items()}
                        yield pair_of({**ours, "split": ours.get("split") or split}, name, number, layout)
                        number += 1
    except (OSError, pa.ArrowException) as error:
        detail = str(error).splitlines()[0]
        yield Reject(reason=Reason.UNREADABLE_SHARD, source=name, key=name, detail=detail)
