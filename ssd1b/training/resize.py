"""When a worker group gets another size, and on which nodes it starts: the only file that reaches into Ray Train.

Ray Train's own policy restarts the workers for more of them without a word, losing what they did since the last
checkpoint; it looks for room once in twenty seconds; and after a loss it asks for nodes that are dead or draining until
the cluster has noticed, which takes up to a start timeout each time. Here instead:

    grow    workers are asked to leave (notice.py); they keep a checkpoint and the next group is larger
    drain   the same, at once, when a node that holds a worker is draining or has said that it goes
    kill    nodes count only if they answer now, and the new group is pinned to those
    SIGTERM asks a worker to leave instead of ending it

All of it rests on names that Ray does not promise (Ray is pinned). Where one is missing, `trainer` warns and returns
Ray's own: everything still goes on from checkpoints, but slower, and a grow loses the steps since the last one.
"""

import os
import socket
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from ssd1b.training import notice
from ssd1b.training.notice import Notice

try:
    from ray._private.state import state as cluster_state
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision

    MISSING = ""
except ImportError as error:
    ElasticScalingPolicy = object
    MISSING = str(error)

LOOK_S = 1.0
"""How often room for more workers is looked for."""
SETTLE_S = 1.0
"""How long there must be room for more workers before they are asked to leave: nodes come in twos and threes."""
ANSWER_S = 1.0
"""How long a node's agent may take to accept a connection."""
GATHER_S = 5.0
"""How long the answer about reserved resources may take."""
UNANSWERED = (ray.exceptions.RayError, OSError)
"""How it shows that the cluster's head is busy, or away for a moment. A TimeoutError is an OSError."""
NODE_LABEL = "ray.io/node-id"
RESERVED_FOR = "reserved-for.txt"
"""In a run's folder: under which name its last job has asked the cluster for resources."""
RAY_TRAIN = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "180",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "3",
}
"""How soon Ray Train notices a dead worker, how long it waits for new ones and for the old to say goodbye: they are
ended anyway. Its watcher of drains would wait out the deadline. The environment may say otherwise."""


def trainer(root: Path, scaling: ScalingConfig, **arguments: Any) -> TorchTrainer:
    """Return a trainer whose workers are asked to leave, instead of ended, where that can be.

    root is the run's folder.
    """
    for name, value in RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    if MISSING or not hasattr(TorchTrainer, "_initialize_and_run_controller"):
        warnings.warn(
            f"this version of Ray has no {MISSING or 'controller hook'}: a grow loses the steps since the last "
            "checkpoint, and nodes that drain are left when they end",
            stacklevel=2,
        )
        return TorchTrainer(scaling_config=scaling, **arguments)
    return AskingTrainer(root=root, scaling_config=scaling, **arguments)


class AskingTrainer(TorchTrainer):  # type: ignore[misc]
    """Ray's, with the policy below."""

    def __init__(self, *, root: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.root = root

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            arguments["scaling_policy"] = Asking(self.scaling_config, self.root)
        return super()._initialize_and_run_controller(**arguments)


class Asking(ElasticScalingPolicy):  # type: ignore[misc]
    """Decides in Ray Train's controller, which asks it about twice a second."""

    def __init__(self, scaling_config: ScalingConfig, root: Path) -> None:
        super().__init__(scaling_config)
        self.root = root
        self.group: Any = None
        """The workers that are running, as Ray Train knows them."""
        self.asked = False
        """Have they been asked to leave?"""
        self.room, self.room_since_s, self.looked_s = 0, 0.0, 0.0
        self.taken = 0
        """Workers whose place is reserved on nodes that do not count."""
        self.usable: list[str] = []
        """The nodes that the next group may be on."""

    # ---- what Ray Train calls

    def after_controller_start(self, train_run_context: Any) -> None:
        for name, value in RAY_TRAIN.items():  # Ray Train hands on its own variables only, not those of torch
            os.environ.setdefault(name, value)
        super().after_controller_start(train_run_context)
        # a job that was killed could not give back what was reserved for it, and it would stay so for three minutes
        note = self.root / RESERVED_FOR
        if note.exists():
            self._autoscaling_coordinator.cancel_request.remote(note.read_text())
        note.write_text(str(self._requester_id))

    def make_decision_for_non_running_worker_group(self) -> Any:
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            time.sleep(LOOK_S / 2)  # Ray Train would ask again at once, and keep a core busy with it
        return decision

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        del worker_group_status
        self._maybe_send_resource_request()
        if self.group is not worker_group_state:
            self.group, self.asked, self.room = worker_group_state, False, 0
            for worker in worker_group_state.workers:
                worker.execute_async(notice.listen, self.root, worker.metadata.node_id)
        if not self.asked and (why := self.looked()):
            self.asked = True
            for worker in worker_group_state.workers:
                worker.execute_async(notice.tell, why)
        return NoopDecision()

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Give up workers on nodes that do not answer: Ray would wait for what they say until it misses the nodes."""
        del failure_decision
        if self.group is None:
            return
        dead = {worker.metadata.node_id for worker in self.group.workers} - answering(nodes())
        for worker in self.group.workers:
            if worker.metadata.node_id in dead:
                ray.kill(worker.actor)
        self.group = None

    def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> dict[str, str]:
        """Pin the group to the nodes that were counted."""
        del scaling_config, num_workers
        return {NODE_LABEL: f"in({','.join(self.usable)})"}

    def _get_num_workers_for_resource_request(self) -> int:
        """Ask for a replacement of what is going while it is still there."""
        return int(self.scaling_config.max_workers) + self.taken

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        """Return what is reserved for this run, now, on nodes that count; None if nobody answers now."""
        try:
            known = nodes()
            counting = (answering(known) if self.group is None else set(known)) - self.going()
        except UNANSWERED as error:
            warnings.warn(f"the cluster does not tell its nodes, the size stays for now: {error}", stacklevel=2)
            return None
        reserved = self.reserve()
        if reserved is None:
            return None
        taken = self._count(reserved, set(reserved) - counting)
        if taken != self.taken:
            self.taken = taken
            self._send_resource_request()
            reserved = self.reserve()
            if reserved is None:
                return None
        usable = {node: resources for node, resources in reserved.items() if node in counting}
        self.usable = sorted(usable)
        return usable

    # ---- our own

    def looked(self) -> Notice | None:
        """Return why the running workers should leave now, or None; also where the cluster does not answer now."""
        try:
            return self.reason()
        except UNANSWERED as error:
            warnings.warn(f"the cluster does not answer, the workers stay as they are for now: {error}", stacklevel=2)
            return None

    def reason(self) -> Notice | None:
        """Return why the running workers should leave now, or None."""
        held = {worker.metadata.node_id for worker in self.group.workers}
        if lost := held & self.going():
            return Notice(kind="drain", message=f"{len(lost)} of its nodes")
        now_s = time.monotonic()
        if now_s - self.looked_s < LOOK_S:
            return None
        self.looked_s = now_s
        resources = self._get_reserved_resources()
        room = 0 if resources is None else self._count_possible_workers(resources)
        if room != self.room:
            self.room, self.room_since_s = room, now_s
        settled = now_s - self.room_since_s >= SETTLE_S
        rested = now_s - self.group.start_time >= self.scaling_config.elastic_resize_monitor_interval_s
        if resources is None or room <= self.group.num_workers or not settled or not rested:
            return None
        there = answering(nodes())  # the cluster believes for a while in nodes that have just died
        room = self._count(resources, set(resources) & there)
        return (
            Notice(kind="grow", message=f"{self.group.num_workers} to {room}")
            if room > self.group.num_workers
            else None
        )

    def going(self) -> set[str]:
        """Return the nodes that are draining or have said that they go."""
        return set(cluster_state.get_draining_nodes()) | notice.gone_soon(self.root)

    def reserve(self) -> dict[str, dict[str, float]] | None:
        """Return what is reserved for this run by node, by a fresh view of the cluster; None if nobody answers now."""
        asked = self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True)
        try:
            return dict(ray.get(asked, timeout=GATHER_S))
        except UNANSWERED as error:
            warnings.warn(f"no answer about reserved resources, the size stays for now: {error}", stacklevel=2)
            return None

    def _count(self, reserved: Mapping[str, Mapping[str, float]], on: set[str]) -> int:
        return int(self._count_possible_workers({node: reserved[node] for node in on}))


def nodes() -> dict[str, tuple[str, int]]:
    """Return the nodes that the cluster believes alive, and where their agents listen."""
    return {
        node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"]) for node in ray.nodes() if node["Alive"]
    }


def answering(known: Mapping[str, tuple[str, int]]) -> set[str]:
    """Return those that accept a connection now; a cluster takes many seconds longer to know."""
    with ThreadPoolExecutor(min(64, len(known) or 1)) as threads:
        return {node for node, yes in zip(known, threads.map(answers, known.values()), strict=True) if yes}


def answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=ANSWER_S):
            return True
    except OSError:  # refused or late: that is what was asked
        return False
