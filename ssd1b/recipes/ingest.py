"""Recipes of jobs.ingest: which corpus becomes which manifest."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ssd1b.recipes.filters import Filters, web
from ssd1b.recipes.pretrain import CONCEPTS, HELD_OUT, SCENES
from ssd1b.sizes import NANO_BUCKETS, SDXL_BUCKETS, Size

BUCKETS: dict[str, tuple[Size, ...]] = {"nano": NANO_BUCKETS, "sdxl": SDXL_BUCKETS}
TAKE_ALL = Filters()
PRIVATE_HOST = re.compile(r"(?P<host>[A-Za-z0-9_-][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:(?P<port>[1-9][0-9]{0,4}))?")
"""An entry of fetch.private_hosts; an IPv6 address stands in brackets, as in a URL."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """How pictures are fetched from their URLs. All limits hold per task: n tasks at once ask n times as much."""

    contact: str = ""
    """An e-mail address or page at which a site's owner finds you: part of the user agent. Without it nothing is
    fetched, and only pictures of the mirror are found."""
    mirror: str = ""
    """A folder that is looked in first, with pictures as MIRROR/HOST/PATH: what `wget --force-directories` makes."""
    kept: str = ""
    """Where fetched pictures are kept, so that a rerun asks only for what is missing; "" is <home>/fetched/<name>."""
    again: bool = False
    """Ask again for what failed for good in an earlier run."""
    concurrency: int = 64
    """Requests at the same time."""
    per_host: int = 4
    """Of them to one host."""
    host_gap_s: float = 0.05
    """Least time between the starts of two requests to one host."""
    connect_s: float = 10.0
    read_s: float = 20.0
    """Longest wait for the next bytes."""
    total_s: float = 60.0
    """Longest time for one request, to its last byte."""
    most_bytes: int = 32 * 2**20
    """Of one picture."""
    attempts: int = 3
    backoff_s: float = 1.0
    """Pause after the first failed attempt; it doubles with each further one."""
    longest_pause_s: float = 30.0
    """A host that asks for a longer wait is left alone for so long, and its rows are given up for this run."""
    dead_after: int = 8
    """After so many failures in a row a host is asked nothing for dead_for_s."""
    dead_for_s: float = 300.0
    private_hosts: tuple[str, ...] = ()
    """Picture servers inside your own network, as HOST or HOST:PORT, just as the URLs write them; HOST alone stands for
    ports 80 and 443. All other private addresses stay refused, also where one of these, or anyone else, redirects to
    them. Strangers write the URLs of a corpus: name no server here on which a GET can do harm."""
    opt_outs: tuple[str, ...] = ("noai", "noimageai", "none")
    """Directives of X-Robots-Tag under which a picture is not taken; noindex and noimageindex are stricter."""
    ahead: int = 1024
    """Rows whose pictures may be on the way before the first of them is needed: what a slow row can hold up."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "per_host", "attempts", "dead_after", "ahead", "most_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"fetch.{name}={getattr(self, name)}: give at least 1")
        if not self.contact.isprintable() or not self.contact.isascii():
            raise ValueError(f"fetch.contact={self.contact!r}: it goes into a header, so plain ASCII on one line")
        for host in self.private_hosts:
            if not PRIVATE_HOST.fullmatch(host):
                raise ValueError(f"fetch.private_hosts has {host!r}: give HOST or HOST:PORT, no scheme, no path")


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Where pairs come from, which of them are wanted, and what a usable one is."""

    name: str
    """The manifest's name: <home>/manifest/<name>; of candidates, <home>/candidates/<name>."""
    source: Literal[
        "shipped", "parquet", "folder", "webdataset", "datasets", "emoji", "emoji_icons",
        "grit", "laion", "coyo", "datacomp", "midjourney",
    ]  # fmt: skip
    path: str = ""
    """folder: a folder with metadata.jsonl. datasets: what save_to_disk wrote. Else a file, a glob or a folder; of
    corpora of URLs also candidates:NAME, what pictures=later chose before.

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
    filters: Filters = TAKE_ALL
    """What is wanted by metadata; of corpora of URLs, before anything is fetched."""
    pictures: Literal["fetch", "later"] = "fetch"
    """later: of grit, laion, coyo and datacomp judge all metadata now and fetch nothing. Filters and duplicates by key
    and URL, 15 million rows in minutes on one core; what is left are candidates, and path=candidates:NAME takes them.
    """
    fetch: Fetch = Fetch()
    """Corpora of URLs: how politely and patiently their pictures are fetched."""
    grids: Literal["leave", "split"] = "leave"
    """midjourney: sheets of four candidates (`ori` files) are rejected, or cut into four pictures KEY/0 to KEY/3."""
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
    scenes: int = 0
    """shipped, parquet: square drawings on white come again before so many backdrops each."""
    backdrops: tuple[str, ...] = ()
    """Names of ssd1b.corpus.backdrops that scenes are chosen from."""
    held_out: tuple[tuple[str, str], ...] = ()
    """Pairs of (style, backdrop) that no scene shows."""
    part_rows: int = 1024
    """Rows of a manifest part: the unit that jobs.encode works on and resumes by."""
    rows_limit: int | None = None
    """Read so many rows of the first shard and nothing else."""


def nano() -> Ingest:
    """The shipped corpus: 4,013 drawings of things in six styles."""
    return Ingest(name="nano", source="shipped", buckets="nano")


def nano_scenes() -> Ingest:
    """What the nano teachers know and the style that they do not: each drawing on white and before two backdrops."""
    return replace(nano(), name="nano_scenes", subgroups=CONCEPTS, scenes=2, backdrops=SCENES, held_out=HELD_OUT)


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


def datasets() -> Ingest:
    """A Hugging Face dataset as save_to_disk wrote it, all its splits; --set path=..., --set name=..."""
    return Ingest(name="datasets", source="datasets")


def grit() -> Ingest:
    """GRIT's Parquet files of URLs; --set path=..., --set fetch.contact=..."""
    return Ingest(name="grit", source="grit", filters=web())


def laion() -> Ingest:
    """LAION's Parquet files of URLs, any release; --set path=..., --set fetch.contact=..."""
    return Ingest(name="laion", source="laion", filters=web())


def coyo() -> Ingest:
    """COYO-700M's Parquet files of URLs; --set path=..., --set fetch.contact=..."""
    return Ingest(name="coyo", source="coyo", filters=web())


def datacomp() -> Ingest:
    """DataComp's metadata of URLs, whose pictures must have the listed SHA-256; --set path=..., fetch.contact=..."""
    return Ingest(name="datacomp", source="datacomp", filters=web())


def midjourney() -> Ingest:
    """A scrape of Midjourney's prompts. Its links have expired: --set fetch.mirror=/a/folder/with/the/pictures."""
    return Ingest(name="midjourney", source="midjourney")


RECIPES: dict[str, Callable[[], Ingest]] = {
    recipe.__name__: recipe
    for recipe in (
        nano, nano_scenes, debug, emoji, emoji_icons, parquet, folder, webdataset, datasets,
        grit, laion, coyo, datacomp, midjourney,
    )
}  # fmt: skip
