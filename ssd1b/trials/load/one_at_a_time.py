"""Contestant (a): our engine behind plain FastAPI. One request at a time, adapters loaded as they are asked for.

python -m ssd1b.trials.load.one_at_a_time --port 9001 --model BUNDLE --adapters FOLDER
"""

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response

from ssd1b.trials.load.our_engine import OurEngine
from ssd1b.trials.load.wire import Wanted, answer, listen, options


def app(engine: OurEngine) -> FastAPI:
    """Return the server. Who has hung up while waiting for his turn is not drawn for."""
    turn, routes = asyncio.Lock(), FastAPI()

    @routes.post("/v1/images/generations", response_model=None)
    async def generations(http: Request, wanted: Wanted) -> dict[str, Any] | Response:
        async with turn:
            if await http.is_disconnected():
                return Response(status_code=499)
            return await asyncio.to_thread(draw, wanted)

    def draw(wanted: Wanted) -> dict[str, Any]:
        return answer(engine.draw([wanted], engine.slot_of(wanted.lora))[0])

    return routes


if __name__ == "__main__":
    given = options(__doc__)
    listen(app(OurEngine(given.model, given.adapters)), given.port)
