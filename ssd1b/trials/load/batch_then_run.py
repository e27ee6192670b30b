"""Contestant (b): our engine under Ray Serve's own batching, `@serve.batch` with `@serve.multiplexed`.

A batch is whoever waits when the one before is done, of one adapter each, since Serve parts a batch by its adapters. It
is drawn to the end of its longest request, then all of it is answered.

python -m ssd1b.trials.load.batch_then_run --port 9002 --model BUNDLE --adapters FOLDER --rows 8 --wait 0.05
"""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from ssd1b.trials.load.our_engine import OurEngine
from ssd1b.trials.load.wire import Wanted, answer, options

MODELS = 8
"""Adapters that a replica keeps: the slots of its bank, without slot 0."""
ONGOING = 500

routes = FastAPI()


class Slot:
    """An adapter in a slot of the bank. Serve throws it away, twice, when another is to have its place."""

    def __init__(self, number: int, free: set[int]) -> None:
        self.number, self._free = number, free

    def __del__(self) -> None:
        self._free.add(self.number)


@serve.deployment(max_ongoing_requests=ONGOING)
class Batches:
    """The engine. Slots are filled inside a batch and batches run one by one, so none is taken from under one."""

    def __init__(self, model: str, adapters: str, rows: int, wait_s: float) -> None:
        self.engine = OurEngine(Path(model), Path(adapters))
        self.free = set(range(1, self.engine.engine.slots))
        self.draw.set_max_batch_size(rows)  # type: ignore[attr-defined]
        self.draw.set_batch_wait_timeout_s(wait_s)  # type: ignore[attr-defined]

    @serve.multiplexed(max_num_models_per_replica=MODELS)  # type: ignore[untyped-decorator]
    async def adapter(self, name: str) -> Slot:
        number = self.free.pop()
        await asyncio.to_thread(self.engine.load, number, name)
        return Slot(number, self.free)

    @serve.batch  # type: ignore[untyped-decorator]
    async def draw(self, wanted: list[Wanted]) -> list[dict[str, Any]]:
        (name,) = {one.lora for one in wanted}
        slot = (await self.adapter(name)).number if name else 0
        pictures = await asyncio.to_thread(self.engine.draw, wanted, slot)
        return [answer(picture_HW3) for picture_HW3 in pictures]

    async def generate(self, wanted: Wanted) -> dict[str, Any]:
        drawn: dict[str, Any] = await self.draw(wanted)  # type: ignore[arg-type, misc, assignment]
        return drawn


@serve.deployment(max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0})
@serve.ingress(routes)
class Front:
    """The HTTP side. Serve learns from the handle which adapter a request is for."""

    def __init__(self, batches: DeploymentHandle[Any]) -> None:
        self.batches = batches

    @routes.post("/v1/images/generations")
    async def generations(self, wanted: Wanted) -> dict[str, Any]:
        handle = self.batches.options(multiplexed_model_id=wanted.lora) if wanted.lora else self.batches
        drawn: dict[str, Any] = await handle.generate.remote(wanted)
        return drawn


def main() -> None:
    given = options(__doc__)
    ray.init(
        address="local", num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": given.port})
    batches = Batches.bind(str(given.model), str(given.adapters), given.rows, given.wait)  # type: ignore[attr-defined]
    serve.run(Front.bind(batches))  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
