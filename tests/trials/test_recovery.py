"""What an interruption cost is read rightly: planted losses, repeats and gaps are found and counted."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ssd1b.elastic.feed import Attempt, note, slots
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order
from ssd1b.training import journal
from ssd1b.trials.recovery import Recovery, steps_lost, table, twice_and_never
from tests.training.synthetic import write_latents

SLICES, ROWS = 4, 8


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Order, Latents]:
    """Two starts on one worker: steps 0 to 6, then from step 4 to 9."""
    latents = Latents.open(write_latents(tmp_path / "latents"))
    order = latents.order(global_batch=ROWS, slices=SLICES, seed=3)
    for attempt, steps in enumerate((range(7), range(4, 10))):
        note(tmp_path, Attempt(first_step=steps.start, world_size=1, time_s=float(attempt)))
        taken = journal.Lines(tmp_path / "consumed" / f"{attempt}-0.jsonl")
        for step in steps:
            for k in range(SLICES):
                rows = slots(order, latents, np.array([step * SLICES + k]), 0, 1).to_pydict()
                taken.add(step=step, **journal.taken(rows))
    return tmp_path, order, latents


def test_an_honest_run_has_lost_steps_but_no_samples(run: tuple[Path, Order, Latents]) -> None:
    root, order, latents = run
    assert steps_lost(root, 1) == 3
    assert steps_lost(root, 0) == 0
    for steps in (range(4), range(4, 10), range(10), range(2, 6)):
        assert twice_and_never(root, order, latents, steps) == (0, 0)


def test_a_planted_repeat_and_a_planted_gap_are_found_where_they_are(run: tuple[Path, Order, Latents]) -> None:
    root, order, latents = run
    path = root / "consumed" / "1-0.jsonl"
    lines = path.read_text().splitlines()
    of_step_6 = [line for line in lines if line.startswith('{"step": 6')]
    assert len(of_step_6) == SLICES
    lines.remove(of_step_6[1])
    lines.insert(lines.index(of_step_6[2]), of_step_6[0])
    path.write_text("\n".join(lines) + "\n")
    rows = ROWS // SLICES
    assert twice_and_never(root, order, latents, range(4, 10)) == (rows, rows)
    assert twice_and_never(root, order, latents, range(6, 7)) == (rows, rows)
    assert twice_and_never(root, order, latents, range(6)) == (0, 0)


def test_a_table_has_a_line_for_each_event() -> None:
    one = Recovery(
        event="grow", workers=(1, 2), steps_lost=0, seconds=12.5, noticed_s=4.0, phases={}, starts=1, first_step=9
    )
    fields = {name: str(value) for name, value in asdict(one).items()}
    lines = table([fields, {**fields, "event": "a longer name"}])
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("event        ")
    assert lines[2].startswith("a longer name")
