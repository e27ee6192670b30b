"""Versions side by side: what draws is never closed, what is not wanted never stays."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from serve.request import GenerationRequest
from serve.rollout.editions import Editions
from serve.rollout.target import Canary, Target

REQUEST = GenerationRequest(prompt="a red apple", seed=1)


class Shop:
    def __init__(self, version: str) -> None:
        self.version, self.closed, self.drawing = version, threading.Event(), 0

    def close(self) -> None:
        assert self.drawing == 0, f"{self.version} was closed while it drew"
        self.closed.set()


class Opener:
    """Opens shops when it may; records how many were open or opening at once."""

    def __init__(self) -> None:
        self.shops: list[Shop] = []
        self.go, self.broken = threading.Event(), set[str]()
        self.go.set()
        self.at_once = self.most_at_once = 0

    def __call__(self, version: str) -> Shop:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.go.wait(10)
        self.at_once -= 1
        if version in self.broken:
            raise ValueError(f"version {version} is no model")
        self.shops.append(Shop(version))
        return self.shops[-1]

    def of(self, version: str) -> Shop:
        return next(shop for shop in self.shops if shop.version == version)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def editions(opener: Opener) -> Editions[Shop]:
    return Editions(Target("1"), opener, retry_s=0.05)


def test_the_old_version_draws_until_the_new_one_is_open(editions: Editions[Shop], opener: Opener) -> None:
    opener.go.clear()
    editions.steer(Target("2"))
    with editions.lend(REQUEST) as shop:
        assert shop.version == "1"
    assert editions.report() == {
        "version": "1", "canary": None, "open": {"1": 0}, "opening": "2", "failed": {}
    }  # fmt: skip
    opener.go.set()
    until(lambda: editions.now.version == "2")
    with editions.lend(REQUEST) as shop:
        assert shop.version == "2"
    assert opener.of("1").closed.wait(10)
    assert editions.report() == {
        "version": "2", "canary": None, "open": {"2": 0}, "opening": None, "failed": {}
    }  # fmt: skip


def test_a_picture_is_ended_by_the_version_that_began_it(editions: Editions[Shop]) -> None:
    with ExitStack() as first:
        shop = first.enter_context(editions.lend(REQUEST))
        editions.steer(Target("2"))
        until(lambda: editions.now.version == "2")
        time.sleep(0.02)
        assert not shop.closed.is_set()
        assert editions.report()["open"] == {"1": 1, "2": 0}
    assert shop.closed.wait(10)


def test_a_version_that_does_not_open_leaves_the_old_one_and_says_why(editions: Editions[Shop], opener: Opener) -> None:
    opener.broken.add("2")
    editions.steer(Target("2"))
    until(lambda: bool(editions.report()["failed"]))
    assert editions.report()["failed"] == {"2": "ValueError: version 2 is no model"}
    with editions.lend(REQUEST) as shop:
        assert shop.version == "1"
    opener.broken.clear()
    time.sleep(0.06)  # it is tried again
    editions.steer(Target("2"))
    until(lambda: editions.now.version == "2")
    assert editions.report()["failed"] == {}


def test_a_move_back_before_the_new_one_is_open(editions: Editions[Shop], opener: Opener) -> None:
    opener.go.clear()
    editions.steer(Target("2"))
    editions.steer(Target("1"))
    opener.go.set()
    until(lambda: any(shop.version == "2" for shop in opener.shops))
    assert opener.of("2").closed.wait(10)
    assert editions.now.version == "1"
    assert not opener.of("1").closed.is_set()


def test_a_canary_takes_its_share_and_becomes_champion_without_being_opened_again(
    editions: Editions[Shop], opener: Opener
) -> None:
    editions.steer(Target("1", Canary("2", 1.0)))
    until(lambda: "2" in editions.report()["open"])
    with editions.lend(REQUEST) as shop:
        assert shop.version == "2"
    assert editions.now.version == "1"
    editions.steer(Target("2"))
    assert editions.now is opener.of("2")
    assert opener.of("1").closed.wait(10)
    assert len(opener.shops) == 2


def test_close_closes_all(editions: Editions[Shop], opener: Opener) -> None:
    editions.steer(Target("1", Canary("2", 0.5)))
    until(lambda: "2" in editions.report()["open"])
    opener.go.clear()
    editions.steer(Target("3", Canary("2", 0.5)))
    editions.close()
    assert all(shop.closed.is_set() for shop in opener.shops)
    opener.go.set()
    until(lambda: any(shop.version == "3" for shop in opener.shops))
    assert opener.of("3").closed.wait(10)


def test_moves_at_random_under_load(opener: Opener) -> None:
    """Sixty moves among five versions, four threads that draw: nothing is closed while it draws or left open."""
    editions = Editions(Target("0"), opener, retry_s=0.01)
    draw, over, drawn, lock = random.Random(0), threading.Event(), [0], threading.Lock()

    def load() -> None:
        while not over.is_set():
            with editions.lend(REQUEST) as shop:
                with lock:
                    shop.drawing += 1
                assert not shop.closed.is_set()
                time.sleep(0.002)
                assert not shop.closed.is_set()
                with lock:
                    shop.drawing -= 1
                    drawn[0] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        canary = Canary(str(draw.randrange(5)), draw.random()) if draw.random() < 0.5 else None
        editions.steer(Target(str(draw.randrange(5)), canary))
        time.sleep(draw.random() * 0.01)
    editions.steer(Target("7"))
    until(lambda: editions.report()["open"].keys() == {"7"})
    over.set()
    for thread in threads:
        thread.join()
    until(lambda: sum(not shop.closed.is_set() for shop in opener.shops) == 1)
    assert drawn[0] > 100
    assert opener.most_at_once == 1
