"""What workers write down about the samples they took, and whether it is what the elastic order holds."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.elastic.feed import Attempt, note
from ssd1b.elastic.rows import Bucket, Latents
from ssd1b.training.journal import Audit, audit, held_by, taken

SLICES, ROWS = 3, 2


def test_ids_on_both_sides_of_2_63_keep_every_bit_and_null_rows_are_left_out() -> None:
    ids = [2**64 - 3, 5, 2**63 + 1]
    assert taken({"real": [True, True, False], "epoch": [0, 0, 0], "sample_id": ids}) == {
        "epoch": [0, 0],
        "sample_id": ids[:2],
    }


def corpus(rows: int = 7) -> Latents:
    none = np.zeros(0, np.int32)
    ids = np.arange(rows, dtype=np.uint64) + np.uint64(2**63)
    return Latents((Bucket("128x128", (), none, none, none.astype(np.int64), np.arange(rows), ids),))


def write_run(root: Path, latents: Latents, starts: list[tuple[int, int, int]]) -> None:
    """Write what a run leaves whose attempts (first step, workers, steps taken) went on from one another."""
    order = latents.order(global_batch=SLICES * ROWS, slices=SLICES, seed=0)
    (root / "consumed").mkdir(parents=True)
    for attempt, (first, world, count) in enumerate(starts):
        note(root, Attempt(first_step=first, world_size=world, time_s=0.0))
        for rank in range(world):
            lines = []
            for step in range(first, first + count):
                for k in range(rank, SLICES, world):
                    one = order.slice_at(step, k)
                    ids = latents.buckets[0].sample_ids[one.row_R].tolist()
                    lines.append(json.dumps({"step": step, "epoch": one.epoch_R.tolist(), "sample_id": ids}))
            (root / "consumed" / f"{attempt}-{rank}.jsonl").write_text("\n" + "\n".join(lines) + "\n")


def audited(root: Path, latents: Latents, steps: int) -> Audit:
    return audit(root, latents.order(global_batch=SLICES * ROWS, slices=SLICES, seed=0), latents, steps)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_of_losses_and_resizes_audits_clean(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Attempts begin anywhere that the ones before have reached, with any number of workers; the last gets through."""
    root, latents, steps = tmp_path_factory.mktemp("run"), corpus(), 12
    starts, reached, checkpointed = [], 0, 0
    for _ in range(data.draw(st.integers(0, 4))):
        checkpointed = data.draw(st.integers(checkpointed, reached))
        count = data.draw(st.integers(0, steps - checkpointed - 1))
        starts.append((checkpointed, data.draw(st.integers(1, 3)), count))
        reached = max(checkpointed, checkpointed + count)
    checkpointed = data.draw(st.integers(checkpointed, reached))
    starts.append((checkpointed, data.draw(st.integers(1, 3)), steps - checkpointed))
    write_run(root, latents, starts)
    lost = sum(
        max(0, first + count - max(first, min(later for later, _, _ in starts[i + 1 :])))
        for i, (first, _, count) in enumerate(starts[:-1])
    )
    assert audited(root, latents, steps) == Audit(
        steps=steps, samples=steps * SLICES * ROWS, repeated=0, missed=0, redone_steps=lost
    )


def test_a_slice_that_nobody_took_is_missed_and_one_taken_twice_is_repeated(tmp_path: Path) -> None:
    latents = corpus()
    write_run(tmp_path, latents, [(0, 2, 5), (3, 1, 3)])
    path = tmp_path / "consumed" / "1-0.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:], lines[-1]]) + "\n" + lines[-1][:20])
    found = audited(tmp_path, latents, 6)
    assert (found.repeated, found.missed, found.samples, found.redone_steps) == (ROWS, ROWS, 36, 2)


def test_steps_without_a_line_are_missed_whole(tmp_path: Path) -> None:
    latents = corpus()
    write_run(tmp_path, latents, [(0, 1, 4)])
    assert audited(tmp_path, latents, 6).missed == 2 * SLICES * ROWS
    order = latents.order(global_batch=SLICES * ROWS, slices=SLICES, seed=0)
    assert len(set(held_by(order, latents, 0))) == SLICES * ROWS
