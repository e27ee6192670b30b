"""Checkpoints: a folder that exists only once its manifest does.

A save writes every file into `<name>.tmp-<pid>/`, syncs it, writes `manifest.json` (sizes and sha256 of the others)
last and renames the folder. A kill at any moment leaves the older checkpoints whole and at most a `.tmp-` folder,
which the next save of the same root removes. What fails verification is skipped with a warning.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssd1b.models.aside import sync
from ssd1b.training.newest import MANIFEST, ReplacedError, latest, problem, sha256, step_folder, step_of

__all__ = [
    "MANIFEST",
    "ReplacedError",
    "latest",
    "load",
    "problem",
    "retain",
    "save",
    "sha256",
    "step_folder",
    "step_of",
]


def save(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    mine: Callable[[], bool] = lambda: True,
) -> Path:
    """Write `<root>/step-<step>` and return it. A checkpoint of that step that is already there is kept.

    tensors maps a file stem to named tensors; state is JSON and goes into the manifest. mine is asked last of all
    whether the run is still the caller's to write to.

    Raises:
        OSError: the disk is full or not writable; nothing half-written stays behind.
        ReplacedError: the run is no longer the caller's; nothing stays behind.
    """
    final = step_folder(root, step)
    if final.exists() and problem(final) is None:
        return final
    root.mkdir(parents=True, exist_ok=True)
    for orphan in root.glob("*.tmp-*"):
        shutil.rmtree(orphan)
    aside = root / f"{final.name}.tmp-{os.getpid()}"
    try:
        aside.mkdir()
        write(aside, step, tensors, state)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        # safetensors wraps the system's error in its own, so the errno is only in its text
        code = error.errno if isinstance(error, OSError) else None
        if code == errno.ENOSPC or "os error 28" in str(error):
            raise OSError(
                errno.ENOSPC,
                f"no space left for checkpoint {final.name}: free some and start the run again, it goes on from there",
                str(root),
            ) from error
        raise OSError(code or errno.EIO, f"checkpoint {final.name} cannot be written: {error}", str(root)) from error
    if not mine():
        shutil.rmtree(aside)
        raise ReplacedError(f"{final.name} is left unwritten: the run has been started again elsewhere")
    if final.exists():  # it failed verification above
        shutil.rmtree(final)
    aside.rename(final)
    sync(root)
    return final


def write(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Fill a folder, manifest last, and sync it."""
    files = {}
    for stem, named in tensors.items():
        path = folder / f"{stem}.safetensors"
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in named.items()}, path)
        path.chmod(0o644)  # safetensors leaves 0600, which a shared file system's other users cannot read
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"step": step, "state": dict(state), "files": files}, indent=1))
    sync(manifest)
    sync(folder)


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return what `save` was given: tensors by file stem, and the state.

    Raises:
        ValueError: the folder does not verify; the message names the first problem.
    """
    if found := problem(folder):
        raise ValueError(f"checkpoint {folder}: {found}; remove it, so that the one before is used")
    manifest = json.loads((folder / MANIFEST).read_text())
    return {Path(name).stem: load_file(folder / name) for name in manifest["files"]}, manifest["state"]


def retain(root: Path, keep: int) -> list[Path]:
    """Remove all but the `keep` newest checkpoints and return what was removed."""
    removed = [folder for folder in sorted(root.glob("step-*"), reverse=True) if ".tmp-" not in folder.name][keep:]
    for folder in removed:
        shutil.rmtree(folder)
    return removed
