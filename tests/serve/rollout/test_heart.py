"""The heartbeat: it steers by the conductor, and by the registry when the conductor is away."""

import threading
from typing import Any

from serve.rollout.heart import DEAF_BEATS, Heart
from serve.rollout.target import Target


class Body:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.steered: list[Target] = []
        self.looked = 0
        self.deaf = False
        self.enough = threading.Event()

    def report(self) -> dict[str, Any]:
        return {"name": "a"}

    def tell(self, report: dict[str, Any]) -> Target | None:
        self.told.append(report)
        if self.deaf:
            raise TimeoutError("nobody answers")
        return Target(str(len(self.told))) if len(self.told) > 1 else None

    def look(self) -> Target:
        self.looked += 1
        return Target("from the registry")

    def steer(self, target: Target) -> None:
        self.steered.append(target)
        if len(self.steered) == 3:
            self.enough.set()


def beat(body: Body) -> None:
    heart = Heart(body.report, body.tell, body.look, body.steer, beat_s=0.002)
    assert body.enough.wait(10)
    heart.stop()


def test_it_steers_by_what_the_conductor_says() -> None:
    body = Body()
    beat(body)
    assert body.steered[:3] == [Target("2"), Target("3"), Target("4")]
    assert body.looked == 0


def test_without_a_conductor_it_asks_the_registry_now_and_then() -> None:
    body = Body()
    body.deaf = True
    beat(body)
    assert body.steered[:3] == [Target("from the registry")] * 3
    assert len(body.told) >= 3 * DEAF_BEATS


def test_a_beat_that_fails_is_not_the_last() -> None:
    body = Body()
    plain, failed = body.steer, []

    def steer(target: Target) -> None:
        if not failed:
            failed.append(target)
            raise RuntimeError("steering failed")
        plain(target)

    body.steer = steer  # type: ignore[method-assign]
    beat(body)
    assert failed
