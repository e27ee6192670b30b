"""The manifest: one row per image-caption pair that passed the filters, in Parquet, one partition per bucket.

    <home>/manifest/<name>/bucket=<W>x<H>/part-<shard>-<n>.parquet
    <home>/manifest/<name>/_summary.json      what jobs.ingest returned; it exists once the manifest is whole
    <home>/manifest/<name>/_rejects.jsonl     a sample of the rows that were left out, with the reason of each
    <home>/manifest/<name>/_report.png        the same for the eye: funnel, sizes, samples of kept and lost

A part's Parquet metadata carries a digest of its rows, so that what is derived from it knows whether it is stale.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssd1b.home import home

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.uint64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("style", pa.string()),
        pa.field("concept", pa.string()),
        pa.field("group", pa.string()),
        pa.field("subgroup", pa.string()),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),  # see hashes.py
        pa.field("clip_score", pa.float32()),
        pa.field("aesthetic", pa.float32()),
        pa.field("watermark", pa.float32()),
        pa.field("unsafe", pa.float32()),
        pa.field("language", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("regions", pa.list_(pa.uint16())),  # see regions.py
        pa.field("url", pa.string()),
        pa.field("image", pa.binary()),
        pa.field("path", pa.string()),
    ]
)
DIGEST = b"ssd1b.digest"
SUMMARY = "_summary.json"
REJECTS = "_rejects.jsonl"
SHEET = "_report.png"


def sample_id(source: str, key: str) -> int:
    """Return the stable identity of a pair: the first 8 bytes of SHA-256 of source, NUL, key, unsigned."""
    return int.from_bytes(hashlib.sha256(f"{source}\0{key}".encode()).digest()[:8], "big")


def split_of(concept: str, share: int = 8) -> str:
    """Return "train" or, for about one concept in `share`, "heldout": the same on every machine and for every style."""
    return "heldout" if hashlib.sha256(concept.encode()).digest()[0] % share == 0 else "train"


def folder_of(name: str) -> Path:
    return home() / "manifest" / name


def write_part(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as one part, with the digest of all but their pictures, whose sha256 is a column."""
    told = [[row[field.name] for field in SCHEMA if field.name != "image"] for row in rows]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata({DIGEST: digest}))
    write_table(table, path, row_group_rows=256)


def write_table(table: pa.Table, path: Path, row_group_rows: int) -> None:
    """Write a Parquet file aside and rename it, so that a kill or a full disk leaves no half file under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    # Pictures are compressed already and latents are noise: packing them again makes reading them ten times as slow.
    large = {field.name for field in table.schema if pa.types.is_binary(field.type)}
    small = [path for path in leaf_paths(table.schema) if path not in large]
    told = {
        "compression": dict.fromkeys(small, "zstd") | dict.fromkeys(large, "none"),
        "use_dictionary": small,
        "write_statistics": small,
        "write_page_checksum": True,
    }
    try:
        pq.write_table(table, aside, row_group_size=row_group_rows, **told)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def leaf_paths(schema: pa.Schema) -> list[str]:
    """Return the names under which Parquet stores the columns of a flat schema with lists."""
    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]


def digest_of(part: Path) -> str:
    """Return the digest that `write_part` left in a part."""
    found: bytes = pq.read_schema(part).metadata[DIGEST]
    return found.decode()


def part_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("bucket=*/part-*.parquet"))


def parts(name: str) -> list[Path]:
    """Return the parts of a whole manifest.

    Raises:
        ValueError: there is no such manifest, or its ingestion has not ended.
    """
    folder = folder_of(name)
    if not (folder / SUMMARY).exists():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{SUMMARY}"))
        raise ValueError(f"no manifest {name!r} under {folder.parent} (there: {known}): run jobs.ingest first")
    return part_files(folder)
