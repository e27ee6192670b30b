"""Files and folders that appear whole or not at all: written aside, synced, then renamed.

What a killed save leaves behind is called `.NAME.tmp-PID` and is removed by the next save of the same name.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `final` when the block ends without an error.

    Raises:
        ValueError: something is there already; a folder cannot be replaced in one step, so it is not replaced.
    """
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise ValueError(f"{final} is already there: give a new name, or remove it first")
    with beside(final) as aside:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            if path.is_file():
                path.chmod(0o644)  # safetensors leaves 0600, which a shared file system's other users cannot read
            sync(path)
        if final.exists():
            final.rmdir()
        aside.rename(final)
        sync(final.parent)


@contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """Yield the name of a file to write, which becomes `final` when the block ends; a file of that name is replaced."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with beside(final) as aside:
        yield aside
        aside.chmod(0o644)
        sync(aside)
        aside.replace(final)
        sync(final.parent)


@contextmanager
def beside(final: Path) -> Iterator[Path]:
    """Yield a name beside `final` that nothing has, and leave nothing of that name after an error."""
    for orphan in final.parent.glob(f".{final.name}.tmp-*"):
        remove(orphan)
    aside = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    try:
        yield aside
    except BaseException:
        remove(aside)
        raise


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system write a file's or a folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
