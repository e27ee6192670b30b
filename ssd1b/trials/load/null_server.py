"""Answers every request at once with the same picture: what is measured against it is the client, not a server.

python -m ssd1b.trials.load.null_server --port 9000
"""

from typing import Any

import numpy as np
from fastapi import FastAPI

from ssd1b.trials.load.wire import Wanted, answer, listen, options

PIXELS = 128


def app() -> FastAPI:
    """Return the server. Its picture is noise, which no PNG makes smaller, so no real one is larger."""
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
    drawn, routes = answer(noise_HW3), FastAPI()

    @routes.post("/v1/images/generations")
    async def generations(wanted: Wanted) -> dict[str, Any]:
        assert wanted.prompt
        return drawn

    return routes


if __name__ == "__main__":
    listen(app(), options(__doc__).port)
