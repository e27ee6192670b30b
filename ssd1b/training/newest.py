"""Which checkpoint a run goes on from: the newest that verifies. What does not is skipped with a warning.

Apart from checkpoint.py, and without torch: the process that deals out the slices at every start of the workers asks
this, and the two cores that it would spend on importing torch are those on which the workers start.
"""

import hashlib
import json
import warnings
from pathlib import Path

MANIFEST = "manifest.json"


class ReplacedError(RuntimeError):
    """The run has been started again elsewhere: what this worker still does, nobody wants."""


def step_folder(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def newest_step(root: Path) -> int:
    """Return the step of the newest checkpoint, or 0: the first step that no checkpoint holds."""
    newest = latest(root)
    return step_of(newest) if newest else 0


def latest(root: Path) -> Path | None:
    """Return the newest checkpoint under root that verifies, or None. Those that do not are warned about."""
    for folder in sorted(root.glob("step-*"), reverse=True):
        if ".tmp-" in folder.name:
            continue
        found = problem(folder)
        if found is None:
            return folder
        warnings.warn(f"checkpoint {folder} skipped: {found}", stacklevel=2)
    return None


def problem(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
            if sha256(path) != expected["sha256"]:
                return f"{name} does not match its sha256"
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (json.JSONDecodeError, KeyError) as error:
        return f"its {MANIFEST} is unreadable ({error!r})"
    return None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
