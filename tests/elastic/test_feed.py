"""Delivery: what is stored is what arrives, in the elastic order, through real Ray Data."""

import itertools
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssd1b.elastic.feed import DATASET, Attempt, Delivery, attempts, note, slots
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import slot_of, slots_per_step
from tests.training.synthetic import write_latents

STEPS = 6


@pytest.fixture
def latents(tmp_path: Path) -> Latents:
    return Latents.open(write_latents(tmp_path / "latents"))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 7])
def test_slots_hold_the_global_batch_and_null_slots_are_not_real(latents: Latents, world_size: int) -> None:
    order = latents.order(global_batch=8, slices=4, seed=1)
    per_step = slots_per_step(4, world_size)
    table = slots(order, latents, np.arange(per_step), 3, world_size).to_pydict()
    assert table["slot"] == [slot for slot in range(3 * per_step, 4 * per_step) for _ in range(2)]
    assert sum(table["real"]) == 8
    real = [sample for sample, real in zip(table["sample_id"], table["real"], strict=True) if real]
    expected = [latents.buckets[0].sample_ids[order.slice_at(3, k).row_R].tolist() for k in range(4)]
    assert real == list(itertools.chain(*expected))


@pytest.mark.parametrize("world_size", [1, 3, 4])
@pytest.mark.parametrize("first_step", [0, 1, 5])
def test_slots_after_a_restart_are_those_that_would_have_come(
    latents: Latents, world_size: int, first_step: int
) -> None:
    order = latents.order(global_batch=8, slices=4, seed=1)
    per_step = slots_per_step(4, world_size)
    without = slots(order, latents, np.arange(8 * per_step), 0, world_size)
    resumed = slots(order, latents, np.arange((8 - first_step) * per_step), first_step, world_size)
    assert resumed.equals(without.slice(first_step * per_step * 2))


def test_a_start_that_was_killed_while_it_was_noted_is_no_start(tmp_path: Path) -> None:
    first, second = (Attempt(first_step=step, world_size=2, time_s=1.5) for step in (0, 4))
    note(tmp_path, first)
    path = tmp_path / "attempts.jsonl"
    whole = path.read_text()
    note(tmp_path, second)
    torn = path.read_text()[: len(whole) + 20]
    assert '"first_step": 4' in torn
    path.write_text(torn)
    assert attempts(tmp_path) == [first]
    note(tmp_path, second)
    assert attempts(tmp_path) == [first, second]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(600)
def test_ray_data_deals_the_same_global_batches_to_any_world_size(latents: Latents, tmp_path: Path) -> None:
    order = latents.order(global_batch=8, slices=4, seed=1)
    resume_at = [0]
    delivery = Delivery(
        root=tmp_path, steps=STEPS, order=order, latents=latents, task_cpus=0.5, resume_step=lambda: resume_at[0]
    )
    for world_size, first in ((1, 0), (2, 0), (3, 2), (2, STEPS)):
        dealt: list[list[tuple[int, int, bool]]] = [[] for _ in range(world_size)]
        resume_at[0] = first
        splits = delivery.configure({}, world_size)

        def consume(rank: int, split: object, into: list[list[tuple[int, int, bool]]]) -> None:
            for table in split.iter_batches(batch_size=2, batch_format="pyarrow"):  # type: ignore[attr-defined]
                into[rank] += zip(*(table[name].to_pylist() for name in ("slot", "sample_id", "real")), strict=True)

        threads = [
            threading.Thread(target=consume, args=(rank, split[DATASET], dealt)) for rank, split in enumerate(splits)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        per_step = slots_per_step(4, world_size)
        for rank, rows in enumerate(dealt):
            turns = per_step // world_size
            wanted = [slot_of(s, t, rank, 4, world_size) for s in range(first, STEPS) for t in range(turns)]
            assert [slot for slot, _, _ in rows][::2] == wanted
        for step in range(first, STEPS):
            met = Counter(i for rows in dealt for slot, i, real in rows if real and slot // per_step == step)
            ids = [latents.buckets[0].sample_ids[order.slice_at(step, k).row_R].tolist() for k in range(4)]
            assert met == Counter(itertools.chain(*ids))
    assert [(start.world_size, start.first_step) for start in attempts(tmp_path)] == [
        (1, 0),
        (2, 0),
        (3, 2),
        (2, STEPS),
    ]
