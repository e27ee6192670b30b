"""A folder that is written aside and takes its name at the end, so that a rerun replaces it or leaves it as it was.

Weak point: between the two renames of a replacement, microseconds apart, a kill leaves the old folder under
`.<name>.old`, and the next run starts from nothing, as it does anyway.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(final: Path) -> Iterator[Path]:
    """Give a path beside `final`; what was made there takes its place, unless there was an exception.

    What earlier runs left aside when they were killed goes first.
    """
    aside = final.with_name(f".{final.name}.{os.getpid()}")
    for orphan in final.parent.glob(f".{final.name}.*"):
        shutil.rmtree(orphan)
    try:
        yield aside
        old = final.with_name(f".{final.name}.old")
        if final.exists():
            final.rename(old)
        aside.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
