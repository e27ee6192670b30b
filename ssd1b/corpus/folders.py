"""The image folder source: pictures beside a metadata.jsonl with `file_name` and `text`, as diffusers' scripts read."""

import json
from collections.abc import Iterator
from pathlib import Path

from ssd1b.corpus.layouts import scores_of_entry
from ssd1b.corpus.pair import Pair, labels, texts
from ssd1b.corpus.reasons import Reason, Reject

METADATA = "metadata.jsonl"
LINES = 1024
"""Lines of a shard."""


def line_offsets(folder: Path) -> list[int]:
    """Return the byte offset of every 1024th line of the metadata: where the shards begin.

    Raises:
        ValueError: the folder has no metadata.jsonl.
    """
    path = folder / METADATA
    if not path.is_file():
        raise ValueError(f'{folder} has no {METADATA}: give each picture a line {{"file_name": "...", "text": "..."}}')
    offsets, position = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number % LINES == 0:
                offsets.append(position)
            position += len(line)
    return offsets


def read_lines(folder: Path, offset: int, *, embed: bool) -> Iterator[Pair | Reject]:
    """Yield the pairs of a shard; with embed the pictures are read, else only referred to. Blank lines are no rows."""
    with (folder / METADATA).open("rb") as file:
        file.seek(offset)
        for _, line in zip(range(LINES), file, strict=False):
            if line.strip():
                yield pair_of(folder, line, embed=embed)


def pair_of(folder: Path, line: bytes, *, embed: bool) -> Pair | Reject:
    source = folder.name
    try:
        entry = json.loads(line)
        key, text = str(entry["file_name"]), entry.get("text", entry.get("captions", ""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Reject(reason=Reason.METADATA_UNREADABLE, source=source, detail=f"{error!r} in {line[:200]!r}")
    path = (folder / key).resolve()
    if not path.is_relative_to(folder.resolve()):
        return Reject(reason=Reason.PATH_OUTSIDE_FOLDER, source=source, key=key)
    if not path.is_file():
        return Reject(reason=Reason.IMAGE_MISSING, source=source, key=key, detail=str(path))
    return Pair(
        source=source,
        key=key,
        captions=texts(text),
        image=path.read_bytes() if embed else None,
        path=None if embed else str(path),
        **scores_of_entry(entry),
        **labels(entry),
    )
