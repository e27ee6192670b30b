"""The engine deployment: one model, one stepper thread, one LoRA bank. Requests meet in its batch."""

import asyncio
import io
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.answer import Generation, Picture
from serve.bank import Adapters, Bank
from serve.errors import RequestError
from serve.offer import Offer
from serve.painter import Painter
from serve.request import GenerationRequest
from serve.stepper import Stepper

logger = logging.getLogger("ray.serve")

Open = Callable[[], tuple[Painter[Any], Adapters]]
"""Opens a model and the place its adapters come from; runs in the replica's process."""


class Replica:
    """Wrapped as a Serve deployment by serve/app.py. What blocks runs on threads, so that health checks answer."""

    def __init__(self, open_model: Open, batch_rows: int) -> None:
        self._painter, self._adapters = open_model()
        self._bank = Bank(self._painter.slots, self._adapters, self._painter.load_adapter)
        self._stepper = Stepper(self._painter.advance, batch_rows)
        self._name = f"pid {os.getpid()}"

    async def generate(self, request: GenerationRequest) -> Generation | RequestError:
        """Return the pictures, or the refusal: a refusal is an answer, not a failure of the replica."""
        try:
            return await self._generate(request)
        except RequestError as refusal:
            return refusal

    async def _generate(self, request: GenerationRequest) -> Generation:
        painter = self._painter
        prompt = await asyncio.to_thread(self._count, "prompt", request.prompt)
        negative = await asyncio.to_thread(self._count, "negative_prompt", request.negative_prompt)
        size = painter.offer.admit(request, prompt, negative)
        async with self._bank.slot(request.loras[0].name if request.loras else None) as slot:
            try:
                rows = await asyncio.to_thread(painter.begin, request, size, slot)
            except ValueError as error:
                raise RequestError(str(error), code="invalid_value") from error
            promises = [self._stepper.add(row, painter.group(row), painter.calls(row)) for row in rows]
            try:
                rows = await asyncio.gather(*map(asyncio.wrap_future, promises))
            finally:
                for promise in promises:  # a caller who goes, or one row that fails, takes the others out
                    promise.cancel()
        files = await asyncio.to_thread(self._files, rows, request)
        latent = size.latent.height * size.latent.width
        return Generation(
            pictures=tuple(Picture(data=data, seed=seed) for data, seed in zip(files, request.seeds, strict=True)),
            size=size,
            prompt_tokens=prompt + negative,
            latent_tokens=latent * request.n,
            replica=self._name,
        )

    def _count(self, param: str, text: str) -> int:
        try:
            return self._painter.count(text)
        except ValueError as error:
            raise RequestError(f"{param}: {error}", param, "invalid_value") from error

    def _files(self, rows: Sequence[Any], request: GenerationRequest) -> list[bytes]:
        return [encode(pixels_HW3, request) for pixels_HW3 in self._painter.decode(rows)]

    async def offer(self) -> Offer:
        """Return what this replica offers now, with the adapters the registry holds."""
        loras = await asyncio.to_thread(self._adapters.names)
        return self._painter.offer.with_loras(loras)

    async def check_health(self) -> None:
        """Serve calls this on the event loop, which no step blocks."""
        self._stepper.check()

    def __del__(self) -> None:
        if stepper := getattr(self, "_stepper", None):  # absent when the model did not open
            stepper.close()


def encode(pixels_HW3: NDArray[np.uint8], request: GenerationRequest) -> bytes:
    """Return the bytes of a picture file in the format asked for."""
    buffer = io.BytesIO()
    options = {} if request.output_format == "png" else {"quality": request.output_compression}
    Image.fromarray(pixels_HW3).save(buffer, format=request.output_format, **options)
    return buffer.getvalue()
