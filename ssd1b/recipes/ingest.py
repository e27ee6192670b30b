"""Recipes of jobs.ingest: which corpus becomes which manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ssd1b.sizes import NANO_BUCKETS, SDXL_BUCKETS, Size

BUCKETS: dict[str, tuple[Size, ...]] = {"nano": NANO_BUCKETS, "sdxl": SDXL_BUCKETS}


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Where pairs come from, which of them are wanted, and what a usable one is."""

    name: str
    """The manifest's name: <home>/manifest/<name>."""
    source: Literal["shipped", "parquet", "folder", "webdataset", "emoji", "emoji_icons"]
    path: str = ""
    """parquet, webdataset: a file, a glob or a folder. folder: a folder with metadata.jsonl.

    A path that every node of the cluster can reach. Absolute, or relative to the current folder of the job: `ray job
    submit --working-dir .` makes that a copy without git-ignored files, so give an absolute path there.
    """
    packages: str = ""
    """emoji, emoji_icons: the node_modules folder with the drawings. The rules of `path` hold: it is git-ignored, so
    a submitted job needs its absolute path; `make corpus` gives it."""
    buckets: Literal["nano", "sdxl"] = "sdxl"
    """nano: 128x128. sdxl: the nine sizes of SSD-1B."""
    styles: tuple[str, ...] = ()
    """Take only these styles; empty takes all. What is not taken is reported as not_selected, not as rejected."""
    splits: tuple[str, ...] = ()
    """Take only these splits: train, heldout."""
    subgroups: tuple[str, ...] = ()
    """Take only concepts of these subgroups, for example animal-bird."""
    heldout_share: int = 8
    """One concept (or key, where the source names no concept) of so many is held out, where the source has no split."""
    max_pixels: int = 64_000_000
    """Larger pictures are not decoded."""
    max_crop: float = 2.0
    """Largest ratio of a picture's aspect to the nearest bucket's: at 2 up to half of it is cropped away."""
    embed: bool = True
    """False leaves the pictures of an image folder where they are and writes only their paths."""
    side_px: int = 128
    """emoji, emoji_icons: the side of the rasterised drawings."""
    icon_variants: int = 1
    """emoji_icons: in how many pairs of colours each icon is drawn."""
    part_rows: int = 1024
    """Rows of a manifest part: the unit that jobs.encode works on and resumes by."""
    rows_limit: int | None = None
    """Read so many rows of the first shard and nothing else."""


def nano() -> Ingest:
    """The shipped corpus: 4,013 drawings of things in six styles."""
    return Ingest(name="nano", source="shipped", buckets="nano")


def debug() -> Ingest:
    """64 rows of the shipped corpus."""
    return Ingest(name="debug", source="shipped", buckets="nano", rows_limit=64)


def emoji() -> Ingest:
    """All emoji drawings under permissive licences; --set packages=/absolute/path/to/node_modules."""
    return Ingest(name="emoji", source="emoji", buckets="nano")


def emoji_icons() -> Ingest:
    """The emoji and eight icon sets in exact colours; --set packages=/absolute/path/to/node_modules."""
    return Ingest(name="emoji_icons", source="emoji_icons", buckets="nano")


def parquet() -> Ingest:
    """Parquet files with a picture and captions in each row; --set path=..., --set name=..."""
    return Ingest(name="parquet", source="parquet")


def folder() -> Ingest:
    """A folder of pictures with metadata.jsonl (file_name, text); --set path=..., --set name=..."""
    return Ingest(name="folder", source="folder")


def webdataset() -> Ingest:
    """WebDataset tars (KEY.jpg, KEY.txt or KEY.json); --set path=..., --set name=..."""
    return Ingest(name="webdataset", source="webdataset")


RECIPES: dict[str, Callable[[], Ingest]] = {
    recipe.__name__: recipe for recipe in (nano, debug, emoji, emoji_icons, parquet, folder, webdataset)
}
