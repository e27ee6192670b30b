"""Weights in files as a mapping of names to tensors that are read when they are asked for, and not before.

Names, shapes and dtypes come from the headers, so that a checkpoint of gigabytes can be recognised in milliseconds. A
tensor that is read is a view of the file, mapped privately: changing it does not change the file, and its pages cost
no memory of their own until then.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssd1b.command import show
from ssd1b.models.header import Header, Shape, once, read_header
from ssd1b.models.variants import choose

HALVES: dict[torch.dtype | None, str] = {torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass
class File:
    """One safetensors file, checked; opened at the first tensor."""

    path: Path
    header: Header = field(init=False)

    def __post_init__(self) -> None:
        self.header = read_header(self.path)

    @cached_property
    def opened(self) -> Any:
        return safe_open(self.path, framework="pt")

    def tensor(self, name: str) -> Tensor:
        """Return one tensor.

        Raises:
            ValueError: the file is no longer what its header said.
        """
        try:
            tensor: Tensor = self.opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.path} changed while it was read ({error}): leave it alone and try again"
            ) from error
        return tensor


@dataclass(frozen=True)
class Weights(Mapping[str, Tensor]):
    """Named tensors of one file or of several."""

    where: str
    """What messages call it."""
    places: Mapping[str, tuple[File, str]]
    """Name here -> the file and the name in it."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def open(path: Path, dtype: torch.dtype | None = None) -> "Weights":
        """Return the weights of a .safetensors file, an index of shards, or a component folder (`unet/`).

        In a folder the full precision is preferred, unless a half dtype is wanted and there is a variant of it.

        Raises:
            ValueError: a pickle, or a file, folder or index that is not whole; the message says what to do.
        """
        if path.is_dir():
            choice = choose((each.name for each in path.iterdir() if each.is_file()), dtype, str(path))
            if choice.variant and choice.variant != HALVES.get(dtype):
                show(f"{path} has no other weights than its {choice.variant} variant: reading that")
            path = path / choice.name
        if path.name.endswith(".json"):
            return sharded(path)
        file = File(path)
        return Weights(str(path), {name: (file, name) for name in file.header.shapes}, file.header.metadata)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return {name: file.header.shapes[inner] for name, (file, inner) in self.places.items()}

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        return {name: file.header.dtypes[inner] for name, (file, inner) in self.places.items()}

    def tensor(self, name: str) -> Tensor:
        """Return one tensor; KeyError if there is none of that name."""
        file, inner = self.places[name]
        return file.tensor(inner)

    def under(self, *prefixes: str) -> "Weights":
        """Return what lies under one of the prefixes, without it."""
        places = {n.removeprefix(p): place for n, place in self.places.items() for p in prefixes if n.startswith(p)}
        return replace(self, places=places)

    def without(self, names: re.Pattern[str]) -> "Weights":
        """Return what the pattern does not match from its beginning."""
        return replace(self, places={name: place for name, place in self.places.items() if not names.match(name)})

    __getitem__ = tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def sharded(index: Path) -> Weights:
    """Return the weights that an index of shards names.

    Raises:
        ValueError: the index cannot be read, a shard is missing, or the two do not agree about every tensor.
    """
    try:
        listed = json.loads(index.read_text(), object_pairs_hook=once)["weight_map"]
        shards = {name: Path(shard).name for name, shard in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no readable index of shards ({error}): fetch it again") from error
    if astray := sorted({shard for name, shard in listed.items() if shard != shards[name]}):
        raise ValueError(f"{index} names {astray[0]!r}, which is not a file beside it: fetch the folder again")
    if missing := sorted(name for name in set(shards.values()) if not (index.parent / name).is_file()):
        raise ValueError(f"{index.parent} lacks {len(missing)} of its shards ({', '.join(missing[:8])}): fetch them")
    files = {name: File(index.parent / name) for name in sorted(set(shards.values()))}
    holders = defaultdict(list)
    for shard, file in files.items():
        for name in file.header.shapes:
            holders[name].append(shard)
    wrong = {
        "the index names and the shard lacks": [n for n, shard in shards.items() if shard not in holders.get(n, [])],
        "two shards hold": [name for name, among in holders.items() if len(among) > 1],
        "a shard holds and the index does not name": [name for name in holders if name not in shards],
    }
    for what, names in wrong.items():
        if names:
            raise ValueError(f"{index}: {len(names)} tensors that {what} ({', '.join(sorted(names)[:8])}): "
                             f"index and shards are not of one model; fetch the folder again")  # fmt: skip
    metadata = {key: value for file in files.values() for key, value in file.header.metadata.items()}
    return Weights(str(index), {name: (files[shard], name) for name, shard in shards.items()}, metadata)
