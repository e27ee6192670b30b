"""When workers are asked to leave and on which nodes the next ones start: the policy, its answers given by the test."""

import socket
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision

from ssd1b.training import notice, resize
from ssd1b.training.resize import Asking, AskingTrainer


@dataclass
class FakeWorker:
    """A worker that notes what it is asked."""

    node: str
    asked: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def metadata(self) -> Any:
        return SimpleNamespace(node_id=self.node)

    @property
    def actor(self) -> str:
        return f"actor on {self.node}"

    def execute_async(self, function: Any, *arguments: Any) -> None:
        self.asked.append((function.__name__, arguments))

    @property
    def told(self) -> list[Any]:
        return [arguments[0].kind for name, arguments in self.asked if name == "tell"]


class Told(Asking):
    """The policy in a cluster of the test's making: nodes of one place each."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, nodes: list[str], workers: tuple[int, int]) -> None:
        super().__init__(
            ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}, elastic_resize_monitor_interval_s=10.0),
            root,
        )
        self.alive, self.silent, self.draining, self.requests = nodes, set[str](), set[str](), list[int]()
        self.now_s = 1000.0
        self.killed: list[str] = []
        monkeypatch.setattr(resize.time, "sleep", lambda _: None)
        monkeypatch.setattr(resize, "nodes", lambda: {node: (node, 1) for node in self.alive})
        monkeypatch.setattr(resize, "answering", lambda known: set(known) - self.silent)
        monkeypatch.setattr(resize.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(resize.ray, "kill", self.killed.append)
        monkeypatch.setattr(resize, "cluster_state", SimpleNamespace(get_draining_nodes=lambda: self.draining))

    def _maybe_send_resource_request(self) -> None:
        pass

    def _send_resource_request(self) -> None:
        self.requests.append(self._get_num_workers_for_resource_request())

    def reserve(self) -> dict[str, dict[str, float]]:
        wanted = self._get_num_workers_for_resource_request()
        return {node: {"CPU": 1.0} for node in self.alive[:wanted]}

    def group_on(self, *nodes: str) -> Any:
        return SimpleNamespace(
            workers=[FakeWorker(node) for node in nodes], num_workers=len(nodes), start_time=self.now_s
        )

    def running(self, group: Any, seconds: float = 0.0) -> list[Any]:
        """Let so many seconds pass, being asked twice in each; return what the first worker was told."""
        for _ in range(int(2 * seconds) + 1):
            assert isinstance(self.make_decision_for_running_worker_group(group, None), NoopDecision)
            self.now_s += 0.5
        told = [worker.told for worker in group.workers]
        assert all(each == told[0] for each in told), "all are told alike"
        return list(told[0])

    def next_group(self) -> tuple[int, set[str]]:
        decision = self.make_decision_for_non_running_worker_group()
        assert isinstance(decision, ResizeDecision), decision
        pinned = self.on_controller_start_worker_group(scaling_config=None, num_workers=decision.num_workers)
        assert set(pinned) == {"ray.io/node-id"}
        assert pinned["ray.io/node-id"].startswith("in(")
        return decision.num_workers, set(pinned["ray.io/node-id"][3:-1].split(","))


def test_workers_are_asked_to_grow_once_there_is_room_and_they_have_rested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Told(tmp_path, monkeypatch, ["a", "b"], (1, 3))
    group = policy.group_on("a", "b")
    assert policy.running(group, 30) == []
    assert [name for name, _ in group.workers[0].asked] == ["listen"], "SIGTERM is heard from the first moment on"
    policy.alive.append("c")
    assert policy.running(group, resize.SETTLE_S / 2) == [], "more nodes may be coming"
    assert policy.running(group, 3) == ["grow"]
    assert policy.running(group, 30) == ["grow"], "once is enough"
    assert policy.next_group() == (3, {"a", "b", "c"})
    younger = policy.group_on("a", "b")
    assert policy.running(younger, 8) == []
    assert policy.running(younger, 4) == ["grow"]


def test_nodes_that_come_and_go_ask_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Told(tmp_path, monkeypatch, ["a"], (1, 3))
    group = policy.group_on("a")
    for _ in range(20):
        policy.alive.append("b")
        assert policy.running(group, resize.SETTLE_S / 2) == []
        policy.alive.remove("b")
        assert policy.running(group, resize.SETTLE_S / 2) == []


@pytest.mark.parametrize("how", ["draining", "said so"])
def test_a_node_that_goes_is_left_at_once_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    policy = Told(tmp_path, monkeypatch, ["a", "b", "c"], (1, 2))
    group = policy.group_on("a", "b")
    assert policy.running(group, 3) == []
    if how == "draining":
        policy.draining = {"b"}
    else:
        notice.going(tmp_path, "b", "spot")
    assert policy.running(group) == ["drain"]
    assert policy.next_group() == (2, {"a", "c"}), "the spare node is taken at once"
    assert policy.requests[-1] == 3, "and one more asked of the autoscaler"


def test_a_drain_of_others_concerns_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Told(tmp_path, monkeypatch, ["a", "b", "c"], (1, 2))
    group = policy.group_on("a", "b")
    policy.draining = {"c"}
    assert policy.running(group, 30) == []


def test_a_dead_node_does_not_count_though_the_cluster_believes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Told(tmp_path, monkeypatch, ["a", "b", "c"], (1, 3))
    group = policy.group_on("a", "b", "c")
    assert policy.running(group, 3) == []
    policy.silent = {"b"}
    policy.before_controller_execute_failure_decision(None)
    assert policy.killed == ["actor on b"], "or Ray would wait for its last words"
    assert policy.next_group() == (2, {"a", "c"})
    survivors = policy.group_on("a", "c")
    assert policy.running(survivors, 30) == [], "nobody makes room for a dead node"
    policy.alive.remove("b")
    policy.before_controller_execute_failure_decision(None)  # the new group could not be started
    assert policy.next_group() == (2, {"a", "c"})


def test_too_few_nodes_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Told(tmp_path, monkeypatch, ["a", "b"], (2, 3))
    policy.silent = {"a"}
    assert isinstance(policy.make_decision_for_non_running_worker_group(), NoopDecision)
    policy.silent = set()
    assert policy.next_group() == (2, {"a", "b"})


def test_what_was_reserved_for_a_killed_job_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[str] = []

    class Coordinated(Told):
        _autoscaling_coordinator = SimpleNamespace(cancel_request=SimpleNamespace(remote=given_back.append))

    def begin(policy: Asking, context: Any) -> None:
        policy._requester_id = f"train-{context}"

    monkeypatch.setattr(resize.ElasticScalingPolicy, "after_controller_start", begin)
    for job in ("first", "second", "third"):
        Coordinated(tmp_path, monkeypatch, ["a"], (1, 2)).after_controller_start(job)
    assert given_back == ["train-first", "train-second"]


def test_a_listening_agent_answers_and_a_dead_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as alive, socket.create_server(("127.0.0.1", 0)) as dying:
        known = {"alive": ("127.0.0.1", alive.getsockname()[1]), "dead": ("127.0.0.1", dying.getsockname()[1])}
        assert resize.answering(known) == {"alive", "dead"}
        dying.close()
        assert resize.answering(known) == {"alive"}
    assert resize.answering({}) == set()


def test_the_hook_is_there_in_this_ray_and_its_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not resize.MISSING
    scaling = ScalingConfig(num_workers=(1, 2))
    assert isinstance(resize.trainer(tmp_path, scaling, train_loop_per_worker=print), AskingTrainer)
    monkeypatch.setattr(resize, "MISSING", "No module named 'ray.train.v2'")
    with pytest.warns(UserWarning, match="a grow loses the steps since the last checkpoint"):
        plain = resize.trainer(tmp_path, scaling, train_loop_per_worker=print)
    assert type(plain) is TorchTrainer
