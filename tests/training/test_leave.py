"""Workers that are asked to leave lose nothing: they keep a checkpoint of their last step, and the next ones go on."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssd1b.elastic.feed import Attempt, note, slots
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.training import checkpoint, journal
from ssd1b.training.loop import Task, Worker, distill
from ssd1b.training.newest import ReplacedError
from ssd1b.training.notice import LeftError, Notice
from ssd1b.training.report import Report
from tests.training.synthetic import write_latents, write_model

STEPS = 4


class Run:
    """One worker; checkpoints come too seldom to be of use."""

    def __init__(self, folder: Path) -> None:
        self.latents = Latents.open(write_latents(folder / "latents"))
        base = write_model(folder / "base", seed=1)
        stages = tuple(
            Stage(name=name, teacher=base, carve=(name,), steps=STEPS // 2, lr=2e-4, warmup_steps=2)
            for name in ("mid", "down")
        )
        self.config = Distillation(
            run="asked", base=base, latents="-", stages=stages, registered_name="-", global_batch=2, slices=1,
            seed=3, checkpoint_steps=100, log_steps=2,
        )  # fmt: skip
        self.order = self.latents.order(global_batch=2, slices=1, seed=3)

    def go_on(
        self, root: Path, *, told: Callable[[int], Notice | None] = lambda _: None, each: Callable[[int], None] = print
    ) -> None:
        """Train from the newest checkpoint; told says, of a step, what this worker hears; each is called before one."""
        newest = checkpoint.latest(root)
        first = checkpoint.step_of(newest) if newest else 0
        note(root, Attempt(first_step=first, world_size=1, time_s=0.0))
        from ssd1b.elastic.feed import attempts

        now = [first]

        def rows() -> Iterator[dict[str, Any]]:
            for step in range(first, STEPS):
                now[0] = step
                each(step)
                yield slots(self.order, self.latents, np.array([step - first]), first, 1).to_pydict()

        worker = Worker(
            rank=0, device=torch.device("cpu"), starts=attempts(root), wrap=lambda model: model,
            told=lambda: told(now[0]),
        )  # fmt: skip
        distill(Task(config=self.config, root=root, order=self.order, launched_s=0.0), worker, rows())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def result(root: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(checkpoint.step_folder(root, STEPS))[0]["student"]


@pytest.mark.timeout(300)
def test_who_is_asked_to_leave_loses_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "stage_end", lambda *_: None)  # its pictures and folders are test_loop's
    whole, asked = tmp_path / "whole", tmp_path / "asked"
    whole.mkdir()
    asked.mkdir()
    run.go_on(whole)
    with pytest.raises(LeftError, match=r"asked to leave \(drain\) after step 1"):
        run.go_on(asked, told=lambda _: Notice(kind="drain"))
    assert checkpoint.latest(asked) == checkpoint.step_folder(asked, 1)
    with pytest.raises(LeftError, match=r"asked to leave \(grow\) after step 2"):
        run.go_on(asked, told=lambda step: Notice(kind="grow") if step >= 1 else None)
    run.go_on(asked, told=lambda step: Notice(kind="spot") if step == STEPS - 1 else None)  # at the end, nobody leaves
    events = journal.events(asked)
    assert [(one["step"], one["why"]) for one in events if one["kind"] == "leave"] == [(1, "drain"), (2, "grow")], (
        "the second where a stage ends"
    )
    assert [one["step"] for one in events if one["kind"] == "start"] == [0, 1, 2]
    assert [one["step"] for one in events if one["kind"] == "ready"] == [1, 2, 3]
    phases = next(one["phases"] for one in events if one["kind"] == "ready")
    assert list(phases) == ["models", "first slice", "first step"]
    audit = journal.audit(asked, run.order, run.latents, STEPS)
    assert dataclasses.astuple(audit) == (STEPS, 2 * STEPS, 0, 0, 0)
    ours, theirs = result(asked), result(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.timeout(300)
def test_who_was_replaced_writes_no_more_and_leaves(run: Run, tmp_path: Path) -> None:
    def replaced(step: int) -> None:
        if step == 1:
            note(tmp_path, Attempt(first_step=0, world_size=2, time_s=1.0))

    with pytest.raises(ReplacedError, match="start 1 of run asked is no longer its last"):
        run.go_on(tmp_path, each=replaced)
    assert checkpoint.latest(tmp_path) is None
    assert not list(tmp_path.glob("stage-*"))
