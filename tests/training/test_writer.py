"""Checkpoints beside the loop: one at a time, of the tensors as they were, whole or not there."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd1b.training import checkpoint
from ssd1b.training.newest import ReplacedError
from ssd1b.training.writer import Writer
from tests.training.killed import newest_after_a_kill


class Slow:
    """Writing that waits until it is let; counts how many write at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.now = self.most = 0
        write = checkpoint.write

        def slowly(*arguments: Any) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            self.begun.set()
            assert self.go.wait(10)
            write(*arguments)
            self.now -= 1

        monkeypatch.setattr(checkpoint, "write", slowly)


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"student": {"a": torch.full((3, 4), value), "b": torch.full((2,), value, dtype=torch.bfloat16)}}


def held(folder: Path) -> float:
    return float(checkpoint.load(folder)[0]["student"]["a"][0, 0])


def test_the_loop_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, model = Slow(monkeypatch), tensors(1.0)
    with Writer(keep=2) as writer:
        writer.save(tmp_path, 1, model, {"stage": "mid"})
        assert slow.begun.wait(10)
        model["student"]["a"].fill_(2.0)  # the loop's next step
        assert writer.finished() == []
        assert checkpoint.latest(tmp_path) is None, "it exists only once it is whole"
        slow.go.set()
        writer.flush()
        assert [checkpoint.step_of(folder) for folder in writer.finished()] == [1]
        assert writer.finished() == [], "each is told of once"
    assert held(tmp_path / "step-00000001") == 1.0, "it holds the tensors as they were"
    assert checkpoint.load(tmp_path / "step-00000001")[1] == {"stage": "mid"}


def test_never_two_at_a_time_and_only_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    threading.Timer(0.2, slow.go.set).start()
    with Writer(keep=2) as writer:
        for step in range(1, 6):
            writer.save(tmp_path, step, tensors(step), {})
    assert slow.most == 1
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["step-00000004", "step-00000005"]
    assert [held(tmp_path / name) for name in kept] == [4.0, 5.0]


def test_tensors_of_another_shape_get_another_place(tmp_path: Path) -> None:
    with Writer(keep=9) as writer:
        for step, shape in enumerate([(2, 3), (2, 3), (5,), (5,)], 1):
            writer.save(tmp_path, step, {"student": {"a": torch.full(shape, float(step))}}, {})
    for step, shape in enumerate([(2, 3), (2, 3), (5,), (5,)], 1):
        found = checkpoint.load(checkpoint.step_folder(tmp_path, step))[0]["student"]["a"]
        assert torch.equal(found, torch.full(shape, float(step)))


def test_what_cannot_be_written_ends_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    for ask in (Writer.flush, lambda writer: writer.save(tmp_path, 2, tensors(2), {})):
        writer = Writer(keep=2)
        writer.save(tmp_path, 1, tensors(1), {})
        with pytest.raises(OSError, match="no space left for checkpoint step-00000001: free some"):
            ask(writer)
    writer = Writer(keep=2)
    with pytest.raises(OSError, match="no space left"), writer:
        writer.save(tmp_path, 1, tensors(1), {})
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_loop_lets_the_writing_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    threading.Timer(0.2, slow.go.set).start()

    def loop() -> None:
        with Writer(keep=2) as writer:
            writer.save(tmp_path, 1, tensors(1), {})
            raise RuntimeError("the peer is gone")

    with pytest.raises(RuntimeError, match="the peer is gone"):
        loop()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000001"


def test_who_was_replaced_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    mine = [True]
    writer = Writer(keep=2, mine=lambda: mine[0])
    writer.save(tmp_path, 1, tensors(1), {})
    assert slow.begun.wait(10)
    mine[0] = False  # while it is being written
    slow.go.set()
    with pytest.raises(ReplacedError, match="started again elsewhere"):
        writer.flush()
    assert writer.finished() == []
    assert list(tmp_path.iterdir()) == []


def test_what_its_successor_cleared_away_is_no_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError would be noted as the end of the run, which is another's by now."""
    slow = Slow(monkeypatch)
    mine = [True]
    writer = Writer(keep=2, mine=lambda: mine[0])
    writer.save(tmp_path, 1, tensors(1), {})
    assert slow.begun.wait(10)
    mine[0] = False
    for orphan in tmp_path.glob("*.tmp-*"):
        orphan.rmdir()
    slow.go.set()
    with pytest.raises(ReplacedError):
        writer.flush()
    assert list(tmp_path.iterdir()) == []


SAVER = """
import sys, torch
from pathlib import Path
from ssd1b.training.writer import Writer
tensors = {"student": {"a": torch.zeros(4_000_000)}}
with Writer(keep=2) as writer:
    for step in range(1, 100_000):
        tensors["student"]["a"].fill_(step)
        writer.save(Path(sys.argv[1]), step, tensors, {"step": step})
        tensors["student"]["a"].fill_(-1)
        for folder in writer.finished():
            print(folder.name, flush=True)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.02])
def test_a_kill_while_it_is_written_leaves_the_older_one(tmp_path: Path, delay_s: float) -> None:
    state = newest_after_a_kill(SAVER, tmp_path, first_line=b"step-00000001\n", delay_s=delay_s)
    checkpoint.save(tmp_path, state["step"] + 1, tensors(1), {})
    assert not list(tmp_path.glob("*.tmp-*")), "the next save clears what the kill left"
