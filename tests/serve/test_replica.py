"""The replica over a toy model: events on the way, cancelling, previews, decoding together, what it reports."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy_painter import POISON, WIDE, ToyAdapters, ToyPainter

from serve.answer import Event, Generation, Preview, Progress
from serve.errors import RequestError
from serve.meters import Meters
from serve.model import Fixed
from serve.previews import Pacer, preview_steps
from serve.replica import Replica
from serve.request import GenerationRequest, LoraChoice, Start
from serve.workshop import Workshop


def asked(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**({"prompt": "x", "seed": 1, "steps": 8} | fields))


@pytest.fixture
def painter() -> ToyPainter:
    return ToyPainter(step_s=0.005)


@pytest.fixture
def replica(painter: ToyPainter) -> Iterator[Replica]:
    replica = Replica(Fixed(lambda: (painter, ToyAdapters())), 4)
    yield replica
    painter.gate.set()
    replica.close()


async def events(replica: Replica, request: GenerationRequest) -> list[Event]:
    return [event async for event in replica.draw(request)]


def test_the_events_in_order(replica: Replica, painter: ToyPainter) -> None:
    painter.step_s = 0.05
    told = asyncio.run(events(replica, asked(n=2, previews=3, size=WIDE)))
    assert isinstance(told[-1], Generation)
    assert [picture.seed for picture in told[-1].pictures] == [1, 2]
    assert not any(isinstance(event, Generation | RequestError) for event in told[:-1])
    progress = [event for event in told if isinstance(event, Progress)]
    assert [event.made for event in progress] == sorted({event.made for event in progress})
    assert {event.of for event in progress} == {16}
    assert progress[-1].made == 16
    assert 3 <= len(progress) <= 6  # a few a second
    previews = [event for event in told if isinstance(event, Preview)]
    assert sorted((event.picture, event.index) for event in previews) == [(i, k) for i in range(2) for k in range(3)]
    with Image.open(io.BytesIO(previews[0].data)) as picture:
        assert (picture.size, picture.format) == ((192, 64), "PNG")
    shown = [np.asarray(Image.open(io.BytesIO(event.data)))[0, 0, 0] for event in previews if event.picture == 0]
    assert shown == [2, 4, 6]  # evenly over the eight steps


@given(st.integers(1, 200), st.integers(0, 10))
def test_previews_are_evenly_spread(steps: int, previews: int) -> None:
    after = preview_steps(steps, previews)
    assert list(after) == sorted(set(after))
    assert all(1 <= step < steps for step in after)
    assert len(after) == min(previews, steps - 1) or previews >= steps
    gaps = np.diff((0, *after, steps))
    if previews < steps:
        assert gaps.max() - gaps.min() <= 1
        assert len(after) == previews


def test_reports_of_progress_keep_their_distance() -> None:
    now = [0.0]
    pacer = Pacer(0.25, lambda: now[0])
    due = []
    for tick in range(100):
        now[0] = tick / 100
        if pacer.due():
            due.append(now[0])
    assert due == [0.0, 0.25, 0.5, 0.75]


def test_drawing_and_generating_give_the_same(replica: Replica) -> None:
    request = asked(n=3, previews=2)

    async def scene() -> None:
        assert (await events(replica, request))[-1] == await replica.generate(request)

    asyncio.run(scene())


@pytest.mark.parametrize("way", ["close", "cancel the events", "cancel the answer"])
def test_who_goes_is_out_before_the_next_step(replica: Replica, painter: ToyPainter, way: str) -> None:
    async def scene() -> None:
        request = asked(steps=1000, n=2, loras=(LoraChoice(name="ink"),))
        if way == "close":
            async with aclosing(replica.draw(request)) as telling:
                async for _ in telling:
                    break
        else:
            call = events(replica, request) if way == "cancel the events" else replica.generate(request)
            task = asyncio.create_task(call)
            while not painter.batches:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        steps = len(painter.batches)
        await asyncio.sleep(0.1)
        assert len(painter.batches) <= steps + 1
        # nothing is held any more: room for rows, slots of the bank
        for name in ("ink", "chalk", "clay"):
            assert isinstance(await replica.generate(asked(loras=(LoraChoice(name=name),))), Generation)
        report = await replica.report()
        assert (report["queue"], report["rows"], report["row_steps_left"]) == (0, 0, 0)

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_who_goes_while_waiting_for_room_leaves_no_trace(replica: Replica, painter: ToyPainter) -> None:
    async def scene() -> None:
        painter.gate.clear()
        drawing = [asyncio.create_task(replica.generate(asked(n=8))) for _ in range(2)]
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(replica.generate(asked(n=4))) for _ in range(9)]
        await asyncio.sleep(0.05)
        assert (await replica.report())["queue"] == 9
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await replica.report())["queue"] == 0
        painter.gate.set()
        await asyncio.gather(*drawing)

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_pictures_that_finish_together_are_decoded_together_within_bounds(
    replica: Replica, painter: ToyPainter
) -> None:
    painter.decode_s = 0.05

    async def scene() -> None:
        await asyncio.gather(*(replica.generate(asked(seed=seed, n=4, steps=2)) for seed in (10, 20, 30)))

    asyncio.run(scene())
    assert sorted(seed for call in painter.decoded for seed in call) == [*range(10, 14), *range(20, 24), *range(30, 34)]
    assert max(map(len, painter.decoded)) == 4
    assert len(painter.decoded) <= 6


def test_steps_go_on_while_pictures_are_decoded(replica: Replica, painter: ToyPainter) -> None:
    painter.decode_s = 0.3

    async def scene() -> None:
        short = asyncio.create_task(replica.generate(asked(steps=1)))
        long = asyncio.create_task(replica.generate(asked(steps=30)))
        while not short.done():
            await asyncio.sleep(0.01)
        assert len(painter.batches) >= 25
        await long

    asyncio.run(scene())


def test_refusals_are_answers(replica: Replica) -> None:
    async def scene() -> None:
        for fields, says in (
            ({"prompt": "one two three four five six"}, "at most 5"),
            ({"loras": (LoraChoice(name="inc"),)}, "is not offered"),
            ({"loras": (LoraChoice(name="unfit"),)}, "does not fit"),
            ({"start": Start(picture=b"no picture")}, "image cannot be read"),
            ({"size": WIDE, "start": Start(picture=b"no picture")}, "image cannot be read"),
        ):
            refusal = await replica.generate(asked(**fields))
            assert isinstance(refusal, RequestError)
            assert says in refusal.message
            assert str((await events(replica, asked(**fields)))[-1]) == refusal.message

    asyncio.run(scene())


def test_a_request_that_breaks_the_engine_fails_and_its_neighbours_do_not(replica: Replica) -> None:
    async def scene() -> None:
        good, bad = await asyncio.gather(
            replica.generate(asked()), replica.generate(asked(seed=POISON)), return_exceptions=True
        )
        assert isinstance(good, Generation)
        assert isinstance(bad, RuntimeError)
        await replica.check_health()

    asyncio.run(scene())


def test_health_does_not_wait_for_a_step(replica: Replica, painter: ToyPainter) -> None:
    async def scene() -> None:
        painter.gate.clear()
        task = asyncio.create_task(replica.generate(asked()))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await replica.check_health()
        await replica.report()
        assert time.monotonic() - began < 0.05
        painter.gate.set()
        await task

    asyncio.run(scene())


def test_what_it_tells_the_router_and_the_autoscaler(replica: Replica, painter: ToyPainter) -> None:
    async def scene() -> None:
        assert await replica.record_autoscaling_stats() == {"work": 0, "batch_work": 0, "rate": 0.0}
        await replica.generate(asked(n=4, loras=(LoraChoice(name="ink", scale=0.5),)))
        painter.gate.clear()
        drawing = [
            asyncio.create_task(replica.generate(asked(steps=5, n=2))),
            asyncio.create_task(replica.generate(asked(steps=4, size=WIDE, priority="batch"))),
            *(asyncio.create_task(replica.generate(asked(n=10))) for _ in range(2)),  # these have no room yet
        ]
        await asyncio.sleep(0.1)
        stats = await replica.record_autoscaling_stats()
        assert stats["work"] == 10 + 160
        assert stats["batch_work"] == 4 * 192 / 256
        assert stats["rate"] > 100
        assert (await replica.record_routing_stats())["resident"] == ["ink"]
        report = await replica.report()
        assert set(report) >= {"name", "queue", "rows", "row_steps_left", "row_steps_per_s", "resident", "version",
                               "batch_fill"}  # fmt: skip
        assert (report["version"], report["rows"], report["queue"]) == ("1", 13, 1)
        painter.gate.set()
        await asyncio.gather(*drawing)

    asyncio.run(scene())


class Recorded(Meters):
    """Keeps what it is told, and tells Ray as well."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Counter[str] = Counter()

    def step(self, seconds: float, rows: int, fill: float) -> None:
        super().step(seconds, rows, fill)
        self.told.update(steps=1, row_steps=rows)

    def hit(self) -> None:
        super().hit()
        self.told["hits"] += 1

    def miss(self, evicted: bool) -> None:
        super().miss(evicted)
        self.told.update(misses=1, evictions=int(evicted))

    def swap(self, seconds: float) -> None:
        super().swap(seconds)
        self.told["swaps"] += 1

    def encode(self, seconds: float) -> None:
        super().encode(seconds)
        self.told["encodes"] += 1

    def decode(self, seconds: float) -> None:
        super().decode(seconds)
        self.told["decodes"] += 1


def test_what_is_metered(painter: ToyPainter) -> None:
    meters = Recorded()
    workshop = Workshop(painter, ToyAdapters(), 4, meters=meters)

    async def scene() -> None:
        for name in ("ink", "ink", "chalk", "clay", "unfit"):  # two slots
            await workshop.generate(asked(loras=(LoraChoice(name=name),)))
        await workshop.generate(asked(n=2))

    asyncio.run(scene())
    workshop.close()
    assert meters.told == Counter(
        steps=5 * 8, row_steps=6 * 8, hits=1, misses=4, evictions=2, swaps=3, encodes=5, decodes=meters.told["decodes"]
    )
    assert meters.told["decodes"] in (5, 6)  # the last two pictures perhaps together


def test_a_closed_workshop_ends_its_threads_and_what_it_draws(painter: ToyPainter) -> None:
    workshop = Workshop(painter, ToyAdapters(), 4)

    async def scene() -> None:
        drawing = asyncio.create_task(workshop.generate(asked(steps=10_000)))
        while not painter.batches:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(workshop.close)
        with pytest.raises((CancelledError, asyncio.CancelledError)):
            await drawing

    asyncio.run(scene())
    with pytest.raises(RuntimeError, match="has ended"):
        workshop.check()
