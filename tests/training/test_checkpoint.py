"""Checkpoints: atomic, verified, and clear about what is wrong."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ssd1b.training import checkpoint
from tests.training.killed import newest_after_a_kill

TENSORS = {"student": {"a": torch.arange(6.0).reshape(2, 3)}, "moments": {"a/step": torch.tensor(3.0)}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 7, TENSORS, {"stage": "mid"})
    tensors, state = checkpoint.load(folder)
    assert checkpoint.step_of(folder) == 7
    assert state == {"stage": "mid"}
    assert torch.equal(tensors["student"]["a"], TENSORS["student"]["a"])
    assert tensors["moments"]["a/step"].item() == 3.0
    assert checkpoint.latest(tmp_path) == folder
    assert (folder / "student.safetensors").stat().st_mode & 0o044, "other users of a shared disk must be able to read"


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("hurt", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "unreadable"),
        (lambda folder: (folder / "student.safetensors").unlink(), "student.safetensors is missing"),
        (lambda folder: os.truncate(folder / "student.safetensors", 40), "has 40 bytes"),
        (lambda folder: flip(folder / "student.safetensors"), "does not match its sha256"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path, hurt, says: str) -> None:  # type: ignore[no-untyped-def]
    whole = checkpoint.save(tmp_path, 1, TENSORS, {})
    damaged = checkpoint.save(tmp_path, 2, TENSORS, {})
    hurt(damaged)
    with pytest.warns(UserWarning, match=says):
        assert checkpoint.latest(tmp_path) == whole
    with pytest.raises(ValueError, match="so that the one before is used"):
        checkpoint.load(damaged)
    assert checkpoint.problem(checkpoint.save(tmp_path, 2, TENSORS, {})) is None, "saving again mends it"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, step, TENSORS, {})
    removed = checkpoint.retain(tmp_path, 2)
    assert [checkpoint.step_of(folder) for folder in removed] == [10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = checkpoint.save(tmp_path, 1, TENSORS, {})

    def full(_tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="no space left for checkpoint step-00000002: free some") as caught:
        checkpoint.save(tmp_path, 2, TENSORS, {})
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == [before]


SAVER = """
import sys, torch
from pathlib import Path
from ssd1b.training import checkpoint
root = Path(sys.argv[1])
tensors = {"student": {"a": torch.zeros(4_000_000)}}
for step in range(1, 100_000):
    tensors["student"]["a"].fill_(step)
    checkpoint.save(root, step, tensors, {"step": step})
    checkpoint.retain(root, 2)
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.03])
def test_a_kill_in_the_middle_of_a_save_leaves_a_loadable_latest(tmp_path: Path, delay_s: float) -> None:
    state = newest_after_a_kill(SAVER, tmp_path, first_line=b"1\n", delay_s=delay_s)
    checkpoint.save(tmp_path, state["step"] + 1, TENSORS, {})
    assert not list(tmp_path.glob("*.tmp-*")), "the next save clears what the kill left"


def test_who_deals_out_the_slices_need_not_import_torch() -> None:
    """It is started anew with every group of workers, on the cores that they start on."""
    modules = "ssd1b.training.newest, ssd1b.training.task, ssd1b.training.notice, ssd1b.elastic.feed"
    program = (
        f"import sys, {modules}; print([name for name in ('torch', 'diffusers', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]
