"""The engine deployment: the versions of a model that are served now, behind the hooks that Ray Serve calls."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from serve.answer import Event, Generation
from serve.errors import RequestError
from serve.meters import Meters
from serve.model import Model
from serve.offer import Offer
from serve.pictures import Finishing, finished
from serve.request import GenerationRequest
from serve.rollout.editions import Editions
from serve.rollout.watch import POLL_S, Watch
from serve.workshop import Workshop


class Replica:
    """Wrapped as a Serve deployment by serve/app.py. What blocks runs on threads, so that health checks answer."""

    def __init__(
        self, model: Model, batch_rows: int, finishing: Finishing | None = None, poll_s: float = POLL_S
    ) -> None:
        """Open the champion, and follow it from then on."""
        meters, how = Meters(), finishing or Finishing()

        def opened(version: str) -> Workshop:
            painter, adapters = model.open(version)
            how.check(painter.offer)
            return Workshop(painter, adapters, batch_rows, partial(finished, how=how), meters)

        target = model.look(None)
        self._editions = Editions(target, opened)
        self._watch = Watch(target, model.look, self._editions.steer, poll_s)

    async def generate(self, request: GenerationRequest) -> Generation | RequestError:
        """Return the pictures, or the refusal."""
        with self._editions.lend(request) as workshop:
            return await workshop.generate(request)

    async def draw(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield what happens on the way to the pictures, at last a Generation or a RequestError."""
        with self._editions.lend(request) as workshop:
            async with aclosing(workshop.draw(request)) as events:
                async for event in events:
                    yield event

    async def offer(self) -> Offer:
        """Return what this replica offers now, with the adapters there are."""
        return await self._editions.now.offer()

    async def look(self) -> None:
        """Look at the registry now: somebody says it has changed."""
        self._watch.now()

    async def report(self) -> dict[str, Any]:
        """Return what the status page shows of this replica: its champion's workshop, and how the versions stand."""
        work = sum(workshop.work() for workshop in self._editions.shops)
        return {
            **self._editions.now.report(),
            "row_steps_left": round(work, 1),
            **self._editions.report(),
            "registry": self._watch.trouble or "answers",
        }

    async def record_routing_stats(self) -> dict[str, Any]:
        """Tell the routers (serve/routing.py) what is resident here and how much is to do; Serve asks every second."""
        return await self.report()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell the autoscaler (serve/autoscale.py) how much is to do and how fast this replica is."""
        shops = self._editions.shops
        return {
            "work": sum(shop.work("interactive") for shop in shops),
            "batch_work": sum(shop.work("batch") for shop in shops),
            "rate": self._editions.now.rate or 0.0,
        }

    async def check_health(self) -> None:
        """Serve calls this on the event loop, which no step blocks."""
        for workshop in self._editions.shops:
            workshop.check()

    def close(self) -> None:
        """End its threads; requests that are drawing are cancelled."""
        self._watch.stop()
        self._editions.close()

    def __del__(self) -> None:
        if hasattr(self, "_watch"):  # it has not where the model did not open
            self.close()
