"""Nodes of a real cluster are lost and come back in mid-epoch, under Ray Train: nothing twice, nothing missing.

No model: the workers only note what they are dealt, so that the test is of the feed, and of Ray's part in it.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ssd1b.elastic.feed import DATASET, Delivery, attempts
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order
from ssd1b.training import journal
from tests.elastic.test_rows import write_ids

STEPS = 120
CHECKPOINT_STEPS = 4
STEP_S = 0.25


def checkpoints(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("done-")) for path in root.glob("done-*"))


def resume_step(root: Path) -> int:
    return max(checkpoints(root), default=0)


def work(told: dict[str, Any]) -> None:
    """Take what is dealt, note it, step by step with the others; rank 0 leaves a mark as a checkpoint would."""
    import ray.train
    import torch.distributed

    from ssd1b.elastic.slices import slot_of, slots_per_step

    root, order = told["root"], told["order"]
    shard = ray.train.get_dataset_shard(DATASET)
    starts = attempts(root)
    rank, world = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    assert world == starts[-1].world_size
    taken = journal.Lines(root / "consumed" / f"{len(starts) - 1}-{rank}.jsonl")
    tables = iter(shard.iter_batches(batch_size=order.rows_per_slice, batch_format="pyarrow", prefetch_batches=2))
    for step in range(starts[-1].first_step, told["steps"]):
        for turn in range(slots_per_step(order.slices, world) // world):
            rows = next(tables).to_pydict()
            assert set(rows["slot"]) == {slot_of(step, turn, rank, order.slices, world)}, "a slice is out of order"
            taken.add(step=step, **journal.taken(rows))
        time.sleep(told["step_s"])
        torch.distributed.barrier()
        if rank == 0 and (step + 1) % told["checkpoint_steps"] == 0:
            (root / f"done-{step + 1}").touch()


def met_by_step(root: Path) -> dict[int, Counter[tuple[int, int]]]:
    """(epoch, sample_id) of each step, of the attempts whose work was kept."""
    starts = attempts(root)
    met: dict[int, Counter[tuple[int, int]]] = {step: Counter() for step in range(STEPS)}
    for path in (root / "consumed").glob("*.jsonl"):
        attempt = int(path.stem.partition("-")[0])
        end = min((later.first_step for later in starts[attempt + 1 :]), default=STEPS)
        for line in journal.lines(path.read_text().splitlines()):
            if line["step"] < end:
                met[line["step"]].update(zip(line["epoch"], line["sample_id"], strict=True))
    return met


def due_by_step(order: Order, latents: Latents) -> dict[int, Counter[tuple[int, int]]]:
    due: dict[int, Counter[tuple[int, int]]] = {step: Counter() for step in range(STEPS)}
    for step, counter in due.items():
        for k in range(order.slices):
            one = order.slice_at(step, k)
            ids = latents.buckets[one.bucket].sample_ids[one.row_R].tolist()
            counter.update(zip(one.epoch_R.tolist(), ids, strict=True))
    return due


@pytest.mark.slow  # Ray takes half a minute to see that a node is gone
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_node_that_is_killed_in_mid_epoch_loses_and_repeats_nothing(ray_cluster: Any, tmp_path: Path) -> None:
    import ray
    from ray import cloudpickle
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    few = Latents.open(write_ids(tmp_path / "few", {"a": 300}, file_rows=100, group_rows=16))
    many = Latents.open(write_ids(tmp_path / "many", {"a": 500, "b": 211}, file_rows=100, group_rows=16, first=10_000))
    latents = Latents.mix([(few, 1), (many, 2)])
    order = latents.order(global_batch=24, slices=8, seed=5)
    root = tmp_path / "run"
    root.mkdir()
    members = [ray_cluster.add_node(num_cpus=1, resources={"member": 1}) for _ in range(3)]
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "root": root,
            "order": order,
            "steps": STEPS,
            "step_s": STEP_S,
            "checkpoint_steps": CHECKPOINT_STEPS,
        },
        scaling_config=ScalingConfig(
            num_workers=(1, 3), resources_per_worker={"CPU": 0.5, "member": 1}, elastic_resize_monitor_interval_s=1
        ),
        run_config=RunConfig(
            name="lost-node",
            storage_path=str(tmp_path / "ray"),
            failure_config=FailureConfig(max_failures=-1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
        datasets={DATASET: ray.data.range(1)},
        dataset_config=Delivery(
            root=root, steps=STEPS, order=order, latents=latents, task_cpus=0.5, resume_step=partial(resume_step, root)
        ),
    )
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(trainer.fit().error)
        except BaseException as error:
            ended.append(error)

    def wait_for(found: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not found():
            assert not ended, f"the run ended before it was hurt: {ended}"
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.05)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import what is no package
    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for(lambda: resume_step(root) >= 8 and attempts(root)[-1].world_size == 3)
        lost_at = resume_step(root)
        ray_cluster.remove_node(members.pop(), allow_graceful=False)
        wait_for(lambda: attempts(root)[-1].world_size < 3)
        wait_for(lambda: resume_step(root) > attempts(root)[-1].first_step)
        members.append(ray_cluster.add_node(num_cpus=1, resources={"member": 1}))
        thread.join(120)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        for node in members:
            ray_cluster.remove_node(node)
    assert ended == [None], "the run hangs or failed"

    starts = attempts(root)
    sizes = [start.world_size for start in starts]
    print(f"starts: {[(start.first_step, start.world_size) for start in starts]}")
    full = sizes.index(3)
    lost = sizes.index(2, full)  # it fails where the node was not lost
    assert STEPS > starts[lost].first_step >= lost_at > 0, "it was not in the middle"
    assert 3 in sizes[lost:], "the node that came was not used"
    assert starts[-1].first_step > starts[lost].first_step
    assert met_by_step(root) == due_by_step(order, latents), "a step met other samples than the order says"
    audit = journal.audit(root, order, latents, STEPS)
    assert (audit.samples, audit.repeated, audit.missed) == (STEPS * 24, 0, 0)
    print(f"{audit.samples} samples, none twice, none missing, {audit.redone_steps} steps taken again")
    per_pass = sum(met_by_step(root).values(), Counter())
    assert set(per_pass.values()) == {1}
    assert {epoch for epoch, _ in per_pass} >= {0, 1}, "the run has not reached a second pass"
