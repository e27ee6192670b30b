"""The conductor: one look at the registry for all replicas, at once when nudged; an outage changes nothing."""

import asyncio
from typing import Any

from serve.rollout.conductor import Conductor
from serve.rollout.target import Canary, Target


class Registry:
    def __init__(self) -> None:
        self.target, self.looks, self.away = Target("1"), 0, False

    def look(self, _: Target | None) -> Target:
        self.looks += 1
        if self.away:
            raise OSError("connection refused")
        return self.target


def report(name: str) -> dict[str, Any]:
    return {"name": name, "queue": 0}


async def settled(conductor: Conductor) -> Target | None:
    await conductor.report(report("a"))
    if conductor._looking:
        await conductor._looking
    return await conductor.report(report("a"))


def test_many_replicas_ask_once() -> None:
    async def story() -> None:
        registry = Registry()
        conductor = Conductor("toy", registry.look, poll_s=60)
        assert await conductor.report(report("a")) is None
        assert await settled(conductor) == Target("1")
        for name in "abcdefgh":
            assert await conductor.report(report(name)) == Target("1")
        assert registry.looks == 1
        board = await conductor.board()
        assert [one["name"] for one in board["replicas"]] == list("abcdefgh")
        assert (board["model"], board["version"], board["canary"], board["registry"]) == ("toy", "1", None, "answers")

    asyncio.run(story())


def test_a_nudge_looks_at_once() -> None:
    async def story() -> None:
        registry = Registry()
        conductor = Conductor("toy", registry.look, poll_s=60)
        await settled(conductor)
        registry.target = Target("1", Canary("2", 0.25))
        assert await settled(conductor) == Target("1")
        await conductor.nudge()
        assert await settled(conductor) == registry.target
        assert (await conductor.board())["canary"] == {"version": "2", "share": 0.25}

    asyncio.run(story())


def test_a_nudge_during_a_look_is_not_lost() -> None:
    async def story() -> None:
        registry, gate = Registry(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(before: Target | None) -> Target:
            seen = registry.look(before)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
            return seen

        conductor = Conductor("toy", slow, poll_s=60)
        await conductor.report(report("a"))
        while not registry.looks:
            await asyncio.sleep(0.001)
        registry.target = Target("2")
        nudged = asyncio.create_task(conductor.nudge())
        await asyncio.sleep(0.01)
        gate.set()
        await nudged
        assert await settled(conductor) == Target("2")

    asyncio.run(story())


def test_an_outage_of_the_registry_changes_nothing_and_shows() -> None:
    async def story() -> None:
        registry = Registry()
        conductor = Conductor("toy", registry.look, poll_s=0)
        await settled(conductor)
        registry.away = True
        assert await settled(conductor) == Target("1")
        assert (await conductor.board())["registry"] == "OSError: connection refused"
        registry.away, registry.target = False, Target("2")
        await settled(conductor)
        assert await settled(conductor) == Target("2")
        assert (await conductor.board())["registry"] == "answers"

    asyncio.run(story())
