"""The eye on the registry: now and then, at once when told, and an outage changes nothing."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from serve.rollout.target import Canary, Target
from serve.rollout.watch import Watch


class Registry:
    def __init__(self) -> None:
        self.target, self.looks, self.away = Target("1"), 0, False
        self.gate = threading.Event()
        self.gate.set()

    def look(self, _: Target | None) -> Target:
        self.looks += 1
        seen = self.target
        assert self.gate.wait(10)
        if self.away:
            raise OSError("connection refused")
        return seen


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def steered() -> list[Target]:
    return []


@pytest.fixture
def watch(registry: Registry, steered: list[Target]) -> Iterator[Watch]:
    watch = Watch(Target("1"), registry.look, steered.append, poll_s=60)
    yield watch
    watch.stop()


def test_it_looks_again_and_again(registry: Registry, steered: list[Target]) -> None:
    watch = Watch(Target("1"), registry.look, steered.append, poll_s=0.005)
    registry.target = Target("1", Canary("2", 0.25))
    until(lambda: registry.target in steered)
    looks = registry.looks
    until(lambda: registry.looks > looks + 3)
    watch.stop()
    watch._thread.join(10)
    assert not watch._thread.is_alive()


def test_it_looks_at_once_when_told(watch: Watch, registry: Registry, steered: list[Target]) -> None:
    registry.target = Target("2")
    time.sleep(0.05)
    assert not steered
    watch.now()
    until(lambda: steered == [Target("2")])


def test_what_moves_during_a_look_is_not_missed(watch: Watch, registry: Registry, steered: list[Target]) -> None:
    registry.gate.clear()
    watch.now()
    until(lambda: registry.looks == 1)
    registry.target = Target("2")
    watch.now()
    registry.gate.set()
    until(lambda: bool(steered) and steered[-1] == Target("2"))
    assert registry.looks == 2


def test_an_outage_changes_nothing_is_told_and_ends(watch: Watch, registry: Registry, steered: list[Target]) -> None:
    registry.away, registry.target = True, Target("2")
    watch.now()
    until(lambda: watch.trouble == "OSError: connection refused")
    until(lambda: steered == [Target("1")])
    registry.away = False
    watch.now()
    until(lambda: steered[-1] == Target("2"))
    assert watch.trouble == ""
