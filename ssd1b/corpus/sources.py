"""Where pairs come from: a recipe's source as shards, and a shard as pairs.

A shard is what one task reads: a row group, a tar, a thousand lines of metadata, one package of drawings, or as many
URLs as a task fetches in some minutes. It travels to the task as plain values and is read there, so that no picture
passes through the job itself.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from ssd1b.corpus import emoji, icons, shipped
from ssd1b.corpus.arrows import arrow_files, check_file, read_arrow
from ssd1b.corpus.colours import PAIRS
from ssd1b.corpus.drawings import package_folder
from ssd1b.corpus.fetch import step
from ssd1b.corpus.fetch.client import Network
from ssd1b.corpus.folders import line_offsets, read_lines
from ssd1b.corpus.layouts import LAYOUTS
from ssd1b.corpus.midjourney import read_messages
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.scenes import with_scenes
from ssd1b.corpus.tables import read_row_group, row_groups
from ssd1b.corpus.tars import read_tar
from ssd1b.home import home
from ssd1b.recipes.ingest import Ingest

URL_ROWS = 16_384
"""Rows of a shard of URLs."""
CANDIDATES = "candidates:"
"""A path that starts so names what `pictures=later` wrote: candidates:NAME is <home>/candidates/NAME."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One task's share of a source."""

    kind: str
    """parquet, urls, folder, webdataset, arrow, emoji, icons, or "broken" for a file that cannot be read at all."""
    path: str = ""
    """The file or folder; "" is the shipped corpus, which lies where the task finds this library."""
    name: str
    """What the file is called in keys and messages: its path below the folder that the recipe names."""
    part: int = 0
    """parquet, urls: the row group. folder: the byte offset. emoji, icons: the index of the set."""
    first: int = 0
    """urls: the first row within the row group."""
    rows: int = 0
    """parquet, urls: how many rows there were when the job began, so that all are counted if the file breaks later."""
    kept: str = ""
    """urls: the folder in which what was fetched is kept."""
    split: str | None = None
    """arrow: the split that the file is of."""
    problem: str = ""
    """broken: what is wrong with it."""


def shards(config: Ingest) -> list[Shard]:
    """Return the shards of a recipe's source, always in the same order.

    Raises:
        ValueError: nothing lies where the recipe says, or it has no column of pictures or captions.
    """
    match config.source:
        case "shipped":
            groups = row_groups(shipped.PATH)
            found = [Shard(kind="parquet", name="shipped", part=i, rows=rows) for i, rows in enumerate(groups)]
        case "parquet":
            found = [shard for path, name in files(config, ".parquet") for shard in parquet_shards(path, name)]
        case "grit" | "laion" | "coyo" | "datacomp" | "midjourney":
            step.check(config)
            found = [shard for path, name in files(config, ".parquet") for shard in url_shards(path, name, config)]
        case "datasets":
            found = arrow_shards(located(config.path, "path"))
        case "webdataset":
            found = [Shard(kind="webdataset", path=str(path), name=name) for path, name in files(config, ".tar")]
        case "folder":
            folder = located(config.path, "path")
            found = [
                Shard(kind="folder", path=str(folder), name=folder.name, part=offset) for offset in line_offsets(folder)
            ]
        case "emoji" | "emoji_icons":
            found = package_shards(config)
    return found[:1] if config.rows_limit is not None else found


def parquet_shards(path: Path, name: str) -> list[Shard]:
    try:
        groups = row_groups(path)
    except (OSError, pa.ArrowException) as error:
        return [Shard(kind="broken", path=str(path), name=name, problem=str(error).splitlines()[0])]
    return [Shard(kind="parquet", path=str(path), name=name, part=i, rows=rows) for i, rows in enumerate(groups)]


def url_shards(path: Path, name: str, config: Ingest) -> list[Shard]:
    try:
        groups = row_groups(path, LAYOUTS[config.source])
    except (OSError, pa.ArrowException) as error:
        return [Shard(kind="broken", path=str(path), name=name, problem=str(error).splitlines()[0])]
    kept = step.kept_folder(config)
    return [
        Shard(
            kind="urls", path=str(path), name=name, part=i, first=first, rows=min(URL_ROWS, rows - first),
            kept=str(kept / folder_name(f"{name}#{i}+{first}")),
        )
        for i, rows in enumerate(groups)
        for first in range(0, rows, URL_ROWS)
    ]  # fmt: skip


def arrow_shards(folder: Path) -> list[Shard]:
    found = []
    for file in arrow_files(folder):
        shard = Shard(kind="arrow", path=str(file.path), name=file.name, split=file.split)
        try:
            check_file(file)
        except (OSError, pa.ArrowException) as error:
            shard = Shard(kind="broken", path=shard.path, name=shard.name, problem=str(error).splitlines()[0])
        found.append(shard)
    return found


def package_shards(config: Ingest) -> list[Shard]:
    if not 1 <= config.icon_variants <= len(PAIRS):
        raise ValueError(f"icon_variants={config.icon_variants}: choose 1 to {len(PAIRS)}, the pairs of colours")
    path = str(located(config.packages, "packages"))
    sets = [("emoji", i, chosen.package) for i, chosen in enumerate(emoji.SETS)]
    if config.source == "emoji_icons":
        sets += [("icons", i, chosen.package) for i, chosen in enumerate(icons.SETS)]
    for _, _, package in sets:
        package_folder(Path(path), package)
    return [Shard(kind=kind, path=path, name=package, part=i) for kind, i, package in sets]


def files(config: Ingest, suffix: str) -> list[tuple[Path, str]]:
    """Return (path, name) of the files that the recipe's path means: a file, a glob, or all below a folder."""
    if config.path.startswith(CANDIDATES):
        root = chosen(config.path.removeprefix(CANDIDATES))
        return [(file, str(file.relative_to(root))) for file in sorted(root.rglob(f"*{suffix}"))]
    fixed = config.path.partition("*")[0]
    if fixed != config.path:
        root = located(fixed.rpartition("/")[0] or ".", "path")
        found = sorted(root.glob(config.path[len(fixed.rpartition("/")[0]) :].lstrip("/")))
    else:
        root = located(config.path, "path")
        found = sorted(root.rglob(f"*{suffix}")) if root.is_dir() else [root]
    if not found:
        raise ValueError(f"no {suffix} files at path={config.path}: give a file, a glob or a folder that holds some")
    return [(file, str(file.relative_to(root)) if file != root else file.name) for file in found]


def candidates_folder(name: str) -> Path:
    """Return where the candidates of a name lie, or will."""
    return home() / "candidates" / name


def chosen(name: str) -> Path:
    """Return the folder of candidates that were chosen before.

    Raises:
        ValueError: there are none of that name.
    """
    folder = candidates_folder(name)
    if not name or not folder.is_dir():
        known = sorted(path.name for path in folder.parent.glob("[!.]*"))
        raise ValueError(
            f"no candidates {name!r} under {folder.parent} (there: {known}): run jobs.ingest with "
            f"--set pictures=later first"
        )
    return folder


def located(path: str, field: str) -> Path:
    """Return an existing path, absolute.

    Raises:
        ValueError: the recipe gives none, or nothing lies there.
    """
    if not path:
        raise ValueError(f"this recipe reads a folder of yours: give --set {field}=/an/absolute/path")
    found = Path(path).absolute()
    if not found.exists():
        raise ValueError(
            f"nothing at {field}={path} (looked at {found}). A submitted job runs in a copy of the folder without "
            f"git-ignored files: give an absolute path that every node can reach"
        )
    return found


def read(shard: Shard, config: Ingest, network: Network | None = None) -> Iterator[Pair | Reject]:
    """Yield the pairs of a shard, and a Reject for each row that is none.

    Pictures of a corpus of URLs are fetched here, unless a row's metadata is enough to leave it out; `network` is what
    they are fetched by, and only tests give one.
    """
    found = read_rows(shard, config)
    if shard.kind != "urls":
        return found
    return step.with_pictures(islice(found, config.rows_limit), config, Path(shard.kept), network)


def folder_name(which: str) -> str:
    """Return a name for a folder of what was fetched for a shard: the same in every run, wherever the corpus lies."""
    legible = re.sub(r"[^A-Za-z0-9._-]+", "-", which)[-80:].strip(".-")
    return f"{legible}-{hashlib.sha256(which.encode()).hexdigest()[:8]}"


def read_rows(shard: Shard, config: Ingest) -> Iterator[Pair | Reject]:
    """Yield the rows of a shard as they are written there."""
    path = Path(shard.path) if shard.path else shipped.PATH
    match shard.kind:
        case "broken":
            yield Reject(reason=Reason.UNREADABLE_SHARD, source=config.name, key=shard.name, detail=shard.problem)
        case "parquet":
            found = read_row_group(path, shard.part, shard.name, rows=shard.rows)
            yield from with_scenes(found, config) if config.scenes else found
        case "urls" if config.source == "midjourney":
            yield from read_messages(path, shard.part, shard.name, shard.first, shard.rows, grids=config.grids)
        case "urls":
            yield from read_row_group(path, shard.part, shard.name, LAYOUTS[config.source], shard.first, shard.rows)
        case "webdataset":
            yield from read_tar(path, shard.name)
        case "arrow":
            yield from read_arrow(path, shard.name, shard.split)
        case "folder":
            yield from read_lines(path, shard.part, embed=config.embed)
        case "emoji":
            for drawing in emoji.read_emoji(path, emoji.SETS[shard.part], config.side_px):
                yield drawing if isinstance(drawing, Reject) else drawing.pair
        case "icons":
            yield from icons.read_icons(path, icons.SETS[shard.part], config.side_px, config.icon_variants)
        case _:
            raise AssertionError(f"no reader for {shard}")
