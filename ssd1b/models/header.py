"""What a safetensors file says it holds, read and checked before a byte of its weights is touched.

A checkpoint of the wild may be cut short, a pointer, a web page or a pickle under another name. Each of these is
refused here in words a person can act on, so that no reader below has to fear its input.

The format: eight bytes with the length N of the header (little endian), N bytes of JSON, then the tensors back to back.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

Shape = tuple[int, ...]

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
NO_PICKLE = (
    "pickles can run any code when they are read, so it is not opened: ask for a .safetensors file, or convert it with "
    "the safetensors package on a machine you trust"
)
AGAIN = "fetch it again"


@dataclass(frozen=True)
class Header:
    """The tensors of one file, by name, and its free-text metadata."""

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, torch.dtype]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Return what a file holds.

    Raises:
        ValueError: it is no whole safetensors file; the message names the file, what is wrong and the fix.
    """
    if path.suffix.lower() in PICKLES:
        raise ValueError(f"{path} is a {path.suffix} file: {NO_PICKLE}")
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        if start[8:9] != b"{" or length > LONGEST_HEADER:
            raise ValueError(f"{path} {guess(start, size)}")
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise ValueError(f"{path} is cut short: its header alone has {8 + length:,} bytes, the file {size:,}; {AGAIN}")
    try:
        entries = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a header that cannot be read ({error}): {AGAIN}") from error
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path} has metadata in no form the format knows: {AGAIN}")
    shapes, dtypes, end = tensors(entries, path)
    if size != 8 + length + end:
        kind = "is cut short" if size < 8 + length + end else "has bytes that belong to no tensor"
        raise ValueError(f"{path} {kind}: {8 + length + end:,} bytes expected, {size:,} found; {AGAIN}")
    return Header(shapes, dtypes, metadata)


def tensors(entries: Mapping[str, Any], path: Path) -> tuple[dict[str, Shape], dict[str, torch.dtype], int]:
    """Return (shapes, dtypes, bytes of all tensors) of a header's entries, which must lie back to back."""
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, torch.dtype] = {}
    spans = []
    for name, entry in entries.items():
        well_formed = isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys()
        if not well_formed or not whole_numbers(entry["shape"]) or not whole_numbers(entry["data_offsets"]):
            raise ValueError(f"{path} describes {name} in no way the format knows: {AGAIN}")
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{path} stores {name} as {entry['dtype']!r}, which is not read here: ask for float16 or float32"
            )
        shapes[name], dtypes[name] = tuple(entry["shape"]), DTYPES[entry["dtype"]]
        spans.append((*entry["data_offsets"], prod(shapes[name]) * dtypes[name].itemsize, name))
    end = 0
    for first, last, wanted, name in sorted(spans):
        if first != end or last - first != wanted:
            raise ValueError(f"{path} says {name} lies at bytes {first} to {last}: it should be {wanted:,} from {end}")
        end = last
    return shapes, dtypes, end


def whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a name that stands twice would otherwise silently win."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []:
        raise ValueError(f"{', '.join(twice[:8])} stands in it twice")
    return dict(pairs)


def guess(start: bytes, size: int) -> str:
    """Return what a file that is no safetensors file seems to be, and what to do."""
    text = start.lstrip().lower()
    if not size:
        return f"is empty: {AGAIN}"
    if start.startswith(b"PK"):
        return f"is a zip archive, as torch.save writes, whatever its name: {NO_PICKLE}"
    if start[:1] == b"\x80" and start[1:2] in b"\x01\x02\x03\x04\x05":
        return f"is a pickle, whatever its name: {NO_PICKLE}"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: run 'git lfs pull' in its repository"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, perhaps a login or error page of a download: open it in an editor, then fetch it again"
    return f"is no safetensors file ({size:,} bytes that begin {start[:12]!r}): {AGAIN}"
