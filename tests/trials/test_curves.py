"""Runs that are laid over one another: planted differences are found and counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssd1b.elastic.feed import Attempt, note, slots
from ssd1b.elastic.rows import Latents
from ssd1b.training import checkpoint, journal
from ssd1b.trials.curves import plot, samples, weights_differ
from tests.training.synthetic import write_latents

SLICES, ROWS, STEPS = 4, 8, 6


def run(root: Path, latents: Latents, worlds: tuple[tuple[int, int], ...], weight: float = 1.0, seed: int = 3) -> Path:
    """A run of starts (first step, workers), each up to two steps past where the next one begins."""
    root.mkdir()
    order = latents.order(global_batch=ROWS, slices=SLICES, seed=seed)
    for attempt, (first, world) in enumerate(worlds):
        note(root, Attempt(first_step=first, world_size=world, time_s=float(attempt)))
        last = min(STEPS, worlds[attempt + 1][0] + 2) if attempt + 1 < len(worlds) else STEPS
        for rank in range(world):
            taken = journal.Lines(root / "consumed" / f"{attempt}-{rank}.jsonl")
            for step in range(first, last):
                for k in range(rank, SLICES, world):
                    rows = slots(order, latents, np.array([step * SLICES + k]), 0, 1).to_pydict()
                    taken.add(step=step, **journal.taken(rows))
    weights = {"a": torch.full((3,), weight), "b": torch.ones(2, 2)}
    checkpoint.save(root, STEPS, {"student": weights}, {})
    return root


@pytest.fixture
def latents(tmp_path: Path) -> Latents:
    return Latents.open(write_latents(tmp_path / "latents"))


def test_the_same_samples_whatever_the_workers(latents: Latents, tmp_path: Path) -> None:
    alone = samples(run(tmp_path / "alone", latents, ((0, 1),)), STEPS)
    assert all(step.total() == ROWS for step in alone)
    assert samples(run(tmp_path / "two", latents, ((0, 2),)), STEPS) == alone
    assert samples(run(tmp_path / "hurt", latents, ((0, 4), (2, 2), (4, 1))), STEPS) == alone
    assert samples(run(tmp_path / "other", latents, ((0, 1),), seed=4), STEPS) != alone


def test_weights_that_differ_are_told_by_how_much(latents: Latents, tmp_path: Path) -> None:
    one, same = (run(tmp_path / name, latents, ((0, 1),)) for name in ("one", "same"))
    other = run(tmp_path / "other", latents, ((0, 1),), weight=1.1)
    assert weights_differ(same, one, STEPS) == 0
    assert weights_differ(other, one, STEPS) == pytest.approx((3 * 0.01 / 7) ** 0.5, rel=1e-5)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    plot(
        {"1 worker": [3.0, 2.0, 1.0], "2 workers": [3.0, 2.0, 1.0], "worker killed": [3.0, 2.1, 1.0]},
        tmp_path / "x.png",
    )
    assert (tmp_path / "x.png").stat().st_size > 10_000
