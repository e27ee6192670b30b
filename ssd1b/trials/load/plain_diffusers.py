"""Contestant (c): plain FastAPI and diffusers' own pipeline, one request at a time, adapters kept while there is room.

python -m ssd1b.trials.load.plain_diffusers --port 9003 --model FOLDER --adapters FOLDER
"""

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray

from ssd1b.trials.load.wire import Wanted, answer, listen, options

KEPT = 8
"""Adapters that stay loaded: as many as the bank of the other contestants has slots for."""


class Pipeline:
    """diffusers as its documentation says to use it with many adapters."""

    def __init__(self, model: Path, adapters: Path) -> None:
        self.pipe = StableDiffusionXLPipeline.from_pretrained(model, torch_dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.unet.to(memory_format=torch.channels_last)
        self.adapters = adapters
        self.kept: OrderedDict[str, None] = OrderedDict()  # least recently used first

    def wear(self, name: str | None) -> None:
        """Make an adapter the only active one; loading it first, and leaving the least recently used one if need be."""
        if name is None:
            if self.kept:
                self.pipe.disable_lora()
            return
        if name not in self.kept:
            if len(self.kept) == KEPT:
                self.pipe.delete_adapters([self.kept.popitem(last=False)[0]])
            folder = self.adapters / name
            self.pipe.load_lora_weights(folder, weight_name="adapter_model.safetensors", adapter_name=name)
        self.kept[name] = None
        self.kept.move_to_end(name)
        self.pipe.set_adapters(name)
        self.pipe.enable_lora()

    @torch.inference_mode()
    def draw(self, wanted: Wanted) -> NDArray[np.uint8]:
        """Return the picture, (H, W, 3)."""
        self.wear(wanted.lora)
        made = self.pipe(
            wanted.prompt,
            num_inference_steps=wanted.num_inference_steps,
            guidance_scale=wanted.guidance_scale,
            height=wanted.pixels.height,
            width=wanted.pixels.width,
            generator=torch.Generator("cpu").manual_seed(wanted.seed),
        )
        return np.asarray(made.images[0])


def app(pipeline: Pipeline) -> FastAPI:
    """Return the server. Who has hung up while waiting for his turn is not drawn for."""
    turn, routes = asyncio.Lock(), FastAPI()

    @routes.post("/v1/images/generations", response_model=None)
    async def generations(http: Request, wanted: Wanted) -> dict[str, Any] | Response:
        async with turn:
            if await http.is_disconnected():
                return Response(status_code=499)
            return await asyncio.to_thread(lambda: answer(pipeline.draw(wanted)))

    return routes


if __name__ == "__main__":
    given = options(__doc__)
    listen(app(Pipeline(given.model, given.adapters)), given.port)
