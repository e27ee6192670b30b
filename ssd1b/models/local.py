"""Any source as a folder in diffusers layout on this machine, for those who need more of a model than its UNet."""

import hashlib
from pathlib import Path

import torch

from ssd1b.command import show
from ssd1b.home import home
from ssd1b.models.files import load_pipeline, save_folder
from ssd1b.models.hub import fetch
from ssd1b.models.places import PREFIXES
from ssd1b.models.sources import resolve


def folder_of(source: str) -> Path:
    """Return the folder of a source; an expert's delta is not merged into it.

    A single file is converted once, into <home>/converted; a hub id is fetched whole.

    Raises:
        ValueError: no such source, or a file that is not a whole model.
    """
    where, _ = resolve(source)
    path = Path(where)
    if path.is_dir():
        return path
    if not path.is_file():
        return fetch(where, PREFIXES, torch.float32)
    stat = path.stat()
    mark = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = home() / "converted" / f"{path.stem}-{mark}"
    if not folder.exists():
        show(f"converting {path} to a folder, once: {folder}")
        save_folder(load_pipeline(source), folder)
    return folder
