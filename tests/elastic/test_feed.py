"""Delivery: what is stored is what arrives, in the elastic order, through real Ray Data."""

import itertools
import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssd1b.elastic.feed import DATASET, Delivery, Latents, attempts, slots
from ssd1b.elastic.slices import slot_of, slots_per_step
from tests.training.synthetic import sample_id, write_latents

STEPS = 6


@pytest.fixture
def latents(tmp_path: Path) -> Latents:
    return Latents.open(write_latents(tmp_path / "latents"))


def test_rows_arrive_whole_and_held_out_ones_never(latents: Latents) -> None:
    assert [len(bucket.rows) for bucket in latents.buckets] == [40]
    rows = np.array([39, 0, 17, 5])
    table = latents.read(0, rows)
    assert table["sample_id"].to_pylist() == latents.buckets[0].sample_ids[rows].tolist()
    assert max(table["sample_id"].to_pylist()) >= 2**63 > min(table["sample_id"].to_pylist()), "ids keep all 64 bits"
    everything = latents.read(0, np.arange(40))["sample_id"].to_pylist()
    assert len(set(everything)) == 40
    assert not {sample_id(i) for i in (4, 13, 22)} & set(everything), "a held-out sample is trained on"


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


def test_nothing_to_train_on_names_the_folder_and_the_job(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no latents to train on under .*/absent: run `python -m jobs.encode`"):
        Latents.open(tmp_path / "absent")
    (tmp_path / "none" / "bucket=128x128").mkdir(parents=True)
    with pytest.raises(ValueError, match="no latents to train on"):
        Latents.open(tmp_path / "none")


def test_the_fingerprint_knows_another_corpus(tmp_path: Path, latents: Latents) -> None:
    shutil.copytree(tmp_path / "latents", tmp_path / "copy")
    assert Latents.open(tmp_path / "copy").fingerprint() == latents.fingerprint()
    assert Latents.open(write_latents(tmp_path / "more", rows=41)).fingerprint() != latents.fingerprint()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(600)
def test_ray_data_deals_the_same_global_batches_to_any_world_size(latents: Latents, tmp_path: Path) -> None:
    order = latents.order(global_batch=8, slices=4, seed=1)
    delivery = Delivery(root=tmp_path, steps=STEPS, order=order, latents=latents, task_cpus=0.5)
    for world_size, first in ((1, 0), (2, 0), (3, 2)):
        dealt: list[list[tuple[int, int, bool]]] = [[] for _ in range(world_size)]
        delivery.resume_step = lambda first=first: first  # type: ignore[method-assign,misc]
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
    assert [(start.world_size, start.first_step) for start in attempts(tmp_path)] == [(1, 0), (2, 0), (3, 2)]
