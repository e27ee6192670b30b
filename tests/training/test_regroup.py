"""On a real cluster nodes come, drain and die under a run; its workers leave in order where they are told in time.

No model: the workers count steps, so that the test is of leaving and coming back, and of Ray's part in it.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ssd1b.elastic.feed import DATASET, Delivery, attempts
from ssd1b.elastic.rows import Latents
from ssd1b.training import journal, resize
from ssd1b.trials.recovery import steps_lost, twice_and_never
from tests.elastic.test_rows import write_ids

STEP_S = 0.2
EVERY = 1000
"""Checkpoints come too seldom to be of use: what is not lost was kept because somebody asked."""
NODE = {"num_cpus": 1, "resources": {"member": 1}}
"""It holds one worker, and the head none."""


def newest(root: Path) -> int:
    return max((int(path.name.removeprefix("done-")) for path in root.glob("done-*")), default=0)


def work(told: dict[str, Any]) -> None:
    """Take what is dealt, step by step with the others; keep a mark where the run may go on, and leave when asked."""
    import ray.train
    import torch

    from ssd1b.elastic.slices import slots_per_step
    from ssd1b.training import notice
    from ssd1b.training.notice import LeftError
    from ssd1b.training.together import Together

    root, order = told["root"], told["order"]
    tables = iter(
        ray.train.get_dataset_shard(DATASET).iter_batches(batch_size=order.rows_per_slice, batch_format="pyarrow")
    )
    starts = attempts(root)
    rank, world = ray.train.get_context().get_world_rank(), starts[-1].world_size
    assert world == ray.train.get_context().get_world_size()
    taken = journal.Lines(root / "consumed" / f"{len(starts) - 1}-{rank}.jsonl")
    together = Together(world, torch.device("cpu"))
    step = starts[-1].first_step
    while not (root / "enough").exists() or step < told["least"]:
        for _ in range(slots_per_step(order.slices, world) // world):
            taken.add(step=step, **journal.taken(next(tables).to_pydict()))
        time.sleep(STEP_S)
        sums, why = together.sum({"workers": torch.tensor(1.0)}, notice.told())
        assert int(sums["workers"]) == world
        step += 1
        if why or step % EVERY == 0:
            if rank == 0:
                (root / f"done-{step}").touch()
            if world > 1:
                torch.distributed.barrier()
        if why:
            raise LeftError(f"asked to leave ({why})")


class Running:
    """The run, and waiting for what becomes of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ended: list[object] = []

    def begun(self) -> int:
        """How many steps the newest group has begun; 0 as long as it has not."""
        path = self.root / "consumed" / f"{len(attempts(self.root)) - 1}-0.jsonl"
        steps = {line["step"] for line in journal.lines(path.read_text().splitlines())} if path.exists() else set()
        return len(steps)

    def wait(self, found: Callable[[], bool]) -> None:
        end = time.monotonic() + 90
        while not found():
            assert not self.ended, f"the run ended: {self.ended}"
            assert time.monotonic() < end, f"it did not happen in time: {attempts(self.root)}"
            time.sleep(0.05)

    def wait_for(self, starts: int, workers: int) -> None:
        """Wait until so many groups have been started, and the last, of so many workers, has begun some steps."""
        self.wait(lambda: len(attempts(self.root)) >= starts and self.begun() >= 3)
        assert [start.world_size for start in attempts(self.root)][starts - 1 :] == [workers]


@contextmanager
def run_on(cluster: Any, folder: Path, nodes: list[Any]) -> Iterator[tuple[Running, Any, Latents]]:
    """Within it a run of up to three workers goes on; after it the run has ended well."""
    import ray
    from ray import cloudpickle
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    latents = Latents.open(write_ids(folder / "ids", {"a": 300}, file_rows=100, group_rows=16))
    order = latents.order(global_batch=12, slices=6, seed=5)
    running = Running(folder / "run")
    running.root.mkdir()
    trainer = resize.trainer(
        running.root,
        ScalingConfig(
            num_workers=(1, 3), resources_per_worker={"CPU": 0.5, "member": 1}, elastic_resize_monitor_interval_s=1
        ),
        train_loop_per_worker=work,
        train_loop_config={"root": running.root, "order": order, "least": 5},
        run_config=RunConfig(
            name="regroup",
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=-1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
        datasets={DATASET: ray.data.range(1)},
        dataset_config=Delivery(
            root=running.root, steps=EVERY, order=order, latents=latents, task_cpus=0.5,
            resume_step=partial(newest, running.root),
        ),
    )  # fmt: skip

    def fit() -> None:
        try:
            running.ended.append(trainer.fit().error)
        except BaseException as error:
            running.ended.append(error)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import what is no package
    thread = threading.Thread(target=fit)
    thread.start()
    try:
        yield running, order, latents
        (running.root / "enough").touch()
        thread.join(60)
        assert running.ended == [None], "the run hangs or failed"
    finally:
        (running.root / "enough").touch()
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        for node in nodes:
            cluster.remove_node(node)
        thread.join(30)


def drain(cluster: Any, node: Any) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=cluster.address).drain_node(
        node.node_id, reason, "taken back", int((time.time() + 120) * 1000)
    )
    assert accepted, why


@pytest.mark.slow  # a minute each, and a busy machine starts a group twice
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_node_that_comes_and_one_that_drains_cost_no_step(ray_cluster: Any, tmp_path: Path) -> None:
    nodes = [ray_cluster.add_node(**NODE)]
    with run_on(ray_cluster, tmp_path, nodes) as (running, order, latents):
        running.wait_for(1, workers=1)
        nodes.append(ray_cluster.add_node(**NODE))
        running.wait_for(2, workers=2)
        drain(ray_cluster, nodes[1])
        running.wait_for(3, workers=1)
    starts = attempts(running.root)
    assert [start.world_size for start in starts] == [1, 2, 1], "one restart for each event"
    assert [steps_lost(running.root, number) for number in range(3)] == [0, 0, 0]
    assert 0 < starts[1].first_step < starts[2].first_step
    assert twice_and_never(running.root, order, latents, range(starts[2].first_step + 2)) == (0, 0)


@pytest.mark.slow  # a minute each, and a busy machine starts a group twice
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_node_that_dies_is_not_waited_for(ray_cluster: Any, tmp_path: Path) -> None:
    nodes = [ray_cluster.add_node(**NODE) for _ in range(2)]
    with run_on(ray_cluster, tmp_path, nodes) as (running, order, latents):
        running.wait_for(1, workers=2)
        killed_s = time.time()
        ray_cluster.remove_node(nodes.pop(), allow_graceful=False)
        running.wait_for(2, workers=1)
    starts = attempts(running.root)
    assert [start.world_size for start in starts] == [2, 1], "no start was wasted on the dead node"
    assert steps_lost(running.root, 1) >= 3, "nobody was told, so all since the last checkpoint is lost"
    assert twice_and_never(running.root, order, latents, range(3)) == (0, 0)
    assert starts[1].time_s - killed_s < 60
