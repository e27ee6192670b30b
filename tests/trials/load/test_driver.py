"""The client of the load tests, against small servers over real HTTP: its moments, its patience, its own cost."""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Response

from ssd1b.trials.load import null_server
from ssd1b.trials.load.contestants import free_port
from ssd1b.trials.load.driver import NOT_IN_TIME, Crowd, busy, in_turn, picture, psnr, replay, require
from ssd1b.trials.load.report import report
from ssd1b.trials.load.trace import Mix, at_once, endless, poisson
from ssd1b.trials.load.wire import Wanted, answer

MIX = Mix(prompts=("a red apple",))
DRAW_S = 0.05


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=free_port(), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.config.port}"
    server.should_exit = True
    thread.join()


def one_by_one() -> FastAPI:
    """A server that takes a while for each picture, and refuses those of seed 3 modulo 10."""
    app, turn = FastAPI(), asyncio.Lock()

    @app.post("/v1/images/generations", response_model=None)
    async def generations(wanted: Wanted) -> dict[str, object] | Response:
        if wanted.seed % 10 == 3:
            return Response("slow down", 429)
        async with turn:
            await asyncio.sleep(DRAW_S)
        return answer(np.full((8, 8, 3), wanted.seed % 256, np.uint8))

    return app


@pytest.fixture
def slow() -> Iterator[str]:
    with listening(one_by_one()) as url:
        yield url


def test_requests_go_when_they_are_planned_whatever_the_server_does(slow: str) -> None:
    """Twice as many as it can draw: an open loop sends them all, and they wait longer and longer."""
    asks = poisson(MIX, 2 / DRAW_S, 1.0, seed=0)
    answers = replay(slow, asks, patience_s=30)
    told = report(answers, 1.0, slo_s=4 * DRAW_S)
    assert [each.planned_s for each in answers] == [ask.at_s for ask in asks]
    assert told.sent == 40
    assert told.failed == 4
    assert told.late_p99_ms < 100
    assert 0.8 / DRAW_S < told.throughput_per_s < 1 / DRAW_S
    assert told.p90_s
    assert told.p90_s > 0.5
    assert 0 < told.goodput_per_s < told.throughput_per_s


def test_what_is_not_answered_in_time_is_given_up(slow: str) -> None:
    answers = replay(slow, at_once(MIX, 30, seed=1), patience_s=10 * DRAW_S)
    late = [each for each in answers if each.error == NOT_IN_TIME]
    assert 5 <= sum(each.ok for each in answers) <= 10
    assert len(late) + 3 + sum(each.ok for each in answers) == 30
    assert all(each.answered_s is None for each in late)


def test_callers_who_ask_again_at_once_keep_a_server_busy(slow: str) -> None:
    quiet = iter(at_once(MIX, 1, seed=8))
    answers, once = busy(slow, 1.0, Crowd(endless(MIX, seed=2), 3), Crowd(quiet, 1))
    pictures = [each for each in answers if each.ok]
    assert 0.6 / DRAW_S < len(pictures) <= 1 / DRAW_S
    assert all(each.answered_s and each.answered_s < 1.1 for each in answers)
    assert [each.ok for each in once] == [True]


def test_in_turn_each_waits_for_the_one_before(slow: str) -> None:
    answers = in_turn(slow, at_once(MIX, 3, seed=3))
    assert [each.status for each in answers] == [200, 200, 200]
    for before, after in pairwise(answers):
        assert before.answered_s
        assert after.planned_s >= before.answered_s
        assert after.latency_s < 5 * DRAW_S


def test_refusals_and_dead_servers_are_told(slow: str) -> None:
    (refused,) = in_turn(slow, at_once(MIX, 4, seed=4)[3:])
    assert (refused.status, refused.error, refused.ok) == (429, "slow down", False)
    (dead,) = in_turn(f"http://127.0.0.1:{free_port()}", at_once(MIX, 1, seed=5))
    assert dead.status is None
    assert "ConnectError" in dead.error
    with pytest.raises(RuntimeError, match=r"1 of 1 requests failed, the first with: slow down"):
        require([refused])


def test_the_client_itself_costs_little() -> None:
    """A server that does nothing: what is left is the client, and HTTP."""
    with listening(null_server.app()) as url:
        in_turn(url, at_once(MIX, 5, seed=6))
        answers = replay(url, poisson(MIX, 20, 2.0, seed=6), patience_s=5)
    assert all(each.ok and each.bytes > 128 * 128 * 3 for each in answers)
    assert statistics.median(each.latency_s for each in answers) < 0.05
    assert report(answers, 2.0, slo_s=1).late_p99_ms < 50


def test_pictures_are_compared(slow: str) -> None:
    one, other = (picture(slow, ask) for ask in at_once(MIX, 2, seed=7))
    assert one.shape == (8, 8, 3)
    assert psnr(one, one) is None
    assert psnr(one, other) == pytest.approx(48.1)
