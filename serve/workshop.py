"""One model at work: requests come in, their rows meet in batches, pictures go out. No Ray in here.

A request passes these stations, each with a thread of its own where it computes: counted, admitted (rows, slot of the
bank), text encoded, denoised step by step, decoded, made a file. Steps go on while others' text is encoded, pictures
are decoded and adapters are uploaded.
"""

import asyncio
import io
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry import trace
from PIL import Image

from serve.adapters.bank import Bank, Place
from serve.adapters.catalogue import Adapters, Catalogue, read_whole
from serve.adapters.shelf import Shelf
from serve.answer import Event, Generation, Picture, Preview, Progress
from serve.errors import RequestError
from serve.fitting import nearest_size
from serve.meters import Meters
from serve.offer import Offer
from serve.painter import Painter
from serve.previews import Pacer, enlarged, preview_steps
from serve.request import GenerationRequest, Priority
from serve.steps.lane import Lane
from serve.steps.scheduler import Limits, Need
from serve.steps.stepper import Stepper
from ssd1b.sizes import Size

# H W height and width in pixels, 3 red green blue

tracer = trace.get_tracer("ssd1b.serve")

Finish = Callable[[NDArray[np.uint8], GenerationRequest, int, Offer], bytes]
"""Makes the file of one picture (pixels_HW3, request, seed, offer); raises RequestError where it may not be shown."""

BATCHES_AHEAD = 4
"""Requests begin while their rows, with those that draw, are so many full batches at most: the scheduler can choose."""
DECODED_AT_ONCE = 4
"""Pictures of the first size in one call of the decoder: its activations are what takes most memory of all."""


def plain_file(pixels_HW3: NDArray[np.uint8], request: GenerationRequest, _seed: int, _offer: Offer) -> bytes:
    """Return the bytes of a picture file in the format asked for, and nothing else in it."""
    buffer = io.BytesIO()
    options = {} if request.output_format == "png" else {"quality": request.output_compression}
    Image.fromarray(pixels_HW3).save(buffer, format=request.output_format, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Told:
    """What the threads tell the event loop of one row."""

    picture: int
    made: int = 0
    sketch: Callable[[], NDArray[np.uint8]] | None = None
    finished: bool = False


class Workshop:
    """A painter with its bank, its stepper and its lanes. Its coroutines are for one event loop."""

    def __init__(
        self,
        painter: Painter[Any],
        adapters: Adapters,
        batch_rows: int,
        finish: Finish = plain_file,
        meters: Meters | None = None,
    ) -> None:
        """Open it for batches of so many pictures of the model's first size; larger ones make smaller batches."""
        self.painter, self._finish = painter, finish
        self._meters = meters or Meters()
        self._cells = cells_of(painter.offer.sizes[0])
        limits = Limits(rows=batch_rows, cells=batch_rows * self._cells)
        decoded = Limits(rows=DECODED_AT_ONCE, cells=DECODED_AT_ONCE * self._cells)
        self._stepper: Stepper[Any] = Stepper(painter.advance, limits, self._meters)
        self._text: Lane[Callable[[], list[Any]], list[Any], None] = Lane(
            "text", lambda calls: [call() for call in calls], observe=self._meters.encode
        )
        self._decoder: Lane[Any, NDArray[np.uint8], Size] = Lane(
            "decoder", painter.decode, lambda size: decoded.fit(cells_of(size)), self._meters.decode
        )
        self._catalogue = Catalogue(adapters)
        # the name in messages is what the key says, without the way to it
        self._shelf = Shelf(lambda key: read_whole(adapters, key, lambda path: painter.read_adapter(path, key)))
        rows = BATCHES_AHEAD * batch_rows
        self._bank = Bank(painter.slots, rows, self._catalogue, self._shelf, painter.load_adapter, self._meters)
        self._before_steps: dict[int, tuple[Priority, float]] = {}  # work of requests whose rows are not there yet
        self._numbers = 0
        self._name = f"pid {os.getpid()}"

    async def draw(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield what happens on the way to the pictures, at last a Generation or a RequestError.

        Closing the generator, or cancelling who waits for it, takes the rows out before the next step.
        """
        try:
            async with aclosing(self._draw(request, tell=True)) as events:
                async for event in events:
                    yield event
        except RequestError as refusal:
            yield refusal

    async def generate(self, request: GenerationRequest) -> Generation | RequestError:
        """Return the pictures, or the refusal: a refusal is an answer, not a failure of the replica."""
        try:
            async with aclosing(self._draw(replace(request, previews=0), tell=False)) as events:
                async for event in events:
                    if isinstance(event, Generation):
                        return event
        except RequestError as refusal:
            return refusal
        raise AssertionError("drawing ends with pictures or a refusal")

    async def _draw(self, request: GenerationRequest, tell: bool) -> AsyncGenerator[Event, None]:
        request, size, tokens = await self._admitted(request)
        self._numbers += 1
        number = self._numbers
        self._before_steps[number] = (request.priority, request.n * request.steps * cells_of(size) / self._cells)
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Told] = asyncio.Queue()
        promises: list[Future[Any]] = []
        decoded: dict[int, asyncio.Future[NDArray[np.uint8]]] = {}
        span = tracer.start_span("draw", attributes={"steps": request.steps, "pictures": request.n, "size": str(size)})
        try:
            async with self._bank.place(request.loras, request.n, request.priority) as place:
                rows = await self._begin(request, size, place)
                needs = [self.painter.need(row) for row in rows]
                watches = [self._watch(i, need, request, tell, loop, told) for i, need in enumerate(needs)]
                for i, (row, need, watch) in enumerate(zip(rows, needs, watches, strict=True)):
                    promise = self._stepper.add(row, need, request.priority, watch)
                    promise.add_done_callback(teller(loop, told, Told(i, finished=True)))
                    promises.append(promise)
                del self._before_steps[number]
                made, of, pacer, shown = 0, sum(need.steps for need in needs), Pacer(), [0] * len(rows)
                while len(decoded) < len(rows):
                    what = await told.get()
                    made += what.made
                    if what.finished:
                        row = promises[what.picture].result()
                        decoded[what.picture] = asyncio.wrap_future(self._decoder.submit(row, size))
                    elif what.sketch is not None:
                        data = await asyncio.to_thread(self._preview, what.sketch, size, request)
                        yield Preview(picture=what.picture, index=shown[what.picture], data=data)
                        shown[what.picture] += 1
                    if tell and what.made and pacer.due():
                        yield Progress(made=made, of=of)
            if tell:
                yield Progress(made=made, of=of)
            yield await self._generation(request, size, tokens, [decoded[i] for i in range(len(rows))])
        finally:
            span.end()
            self._before_steps.pop(number, None)
            # a caller who goes, or one row that fails, takes the others out
            for promise in promises:
                promise.cancel()
            for decoding in decoded.values():
                decoding.cancel()

    async def _admitted(self, request: GenerationRequest) -> tuple[GenerationRequest, Size, int]:
        """Return the request, its size and its tokens.

        Raises:
            RequestError: something that the model does not offer.
        """
        offer = self.painter.offer
        if request.start is not None and request.size is None:
            size = await asyncio.to_thread(nearest_size, request.start.picture, offer.sizes)
            request = replace(request, size=size)
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        prompt, negative = await asyncio.to_thread(lambda: [self._count(*text) for text in texts.items()])
        return request, offer.admit(request, prompt, negative), prompt + negative

    def _count(self, param: str, text: str) -> int:
        try:
            return self.painter.count(text)
        except ValueError as error:
            raise RequestError(f"{param}: {error}", param, "invalid_value") from error

    async def _begin(self, request: GenerationRequest, size: Size, place: Place) -> list[Any]:
        with tracer.start_as_current_span("encode"):
            try:
                return await asyncio.wrap_future(
                    self._text.submit(lambda: self.painter.begin(request, size, place.slot, place.scale), None)
                )
            except ValueError as error:
                raise RequestError(str(error), code="invalid_value") from error

    def _watch(
        self,
        picture: int,
        need: Need,
        request: GenerationRequest,
        tell: bool,
        loop: asyncio.AbstractEventLoop,
        told: "asyncio.Queue[Told]",
    ) -> Callable[[Any], None] | None:
        """Return what the stepper calls after each of a row's steps."""
        if not tell:
            return None
        shown_after = preview_steps(need.steps, request.previews)
        step = 0

        def watch(row: Any) -> None:
            nonlocal step
            step += 1
            sketch = self.painter.preview(row) if step in shown_after else None
            teller(loop, told, Told(picture, 1, sketch))(None)

        return watch

    def _preview(self, sketch: Callable[[], NDArray[np.uint8]], size: Size, request: GenerationRequest) -> bytes:
        return plain_file(enlarged(sketch(), size), request, request.seed, self.painter.offer)

    async def _generation(
        self,
        request: GenerationRequest,
        size: Size,
        tokens: int,
        decoded: "Sequence[asyncio.Future[NDArray[np.uint8]]]",
    ) -> Generation:
        with tracer.start_as_current_span("decode"):
            pixels = await asyncio.gather(*decoded)
        with tracer.start_as_current_span("finish"):
            files = await asyncio.to_thread(self._files, pixels, request)
        return Generation(
            pictures=tuple(Picture(data=data, seed=seed) for data, seed in zip(files, request.seeds, strict=True)),
            size=size,
            prompt_tokens=tokens,
            latent_tokens=cells_of(size) * request.n,
            replica=self._name,
        )

    def _files(self, pixels: Sequence[NDArray[np.uint8]], request: GenerationRequest) -> list[bytes]:
        made = zip(pixels, request.seeds, strict=True)
        return [self._finish(pixels_HW3, request, seed, self.painter.offer) for pixels_HW3, seed in made]

    async def offer(self) -> Offer:
        """Return what is offered now, with the adapters there are."""
        return self.painter.offer.with_loras(await self._catalogue.names())

    def work(self, priority: Priority | None = None) -> float:
        """Return the denoising to do, queued and running, in steps of pictures of the first size."""
        before = sum(work for other, work in self._before_steps.values() if priority in (None, other))
        return before + self._stepper.work(priority) / self._cells

    @property
    def requests_before(self) -> int:
        """Requests whose rows are not there yet."""
        return len(self._before_steps)

    @property
    def rate(self) -> float | None:
        """Steps of pictures of the first size that it makes a second in its best batches; None before any."""
        rate = self._stepper.pace.rate
        return None if rate is None else rate / self._cells

    @property
    def resident(self) -> tuple[str, ...]:
        """What is in the bank, least recently used first (`Wearing.label`)."""
        return self._bank.resident

    def report(self) -> dict[str, Any]:
        """Return what the status page shows of it."""
        work, rate = self.work(), self.rate
        self._meters.queue(self.requests_before, work)
        return {
            "name": self._name,
            "queue": self.requests_before,
            "rows": len(self._stepper),
            "row_steps_left": round(work, 1),
            "row_steps_per_s": None if rate is None else round(rate, 2),
            "resident": list(self.resident),
            "version": self.painter.offer.version,
            "batch_fill": round(self._stepper.fill, 3),
        }

    def check(self) -> None:
        """Raise RuntimeError if it makes no pictures any more; never waits for a step."""
        self._stepper.check()
        self._text.check()
        self._decoder.check()

    def close(self) -> None:
        """End its threads; requests that are drawing are cancelled."""
        self._stepper.close()
        self._text.close()
        self._decoder.close()
        self._bank.close()
        self._shelf.close()


def cells_of(size: Size) -> int:
    """Return the latent positions of a picture."""
    return size.latent.height * size.latent.width


def teller(
    loop: asyncio.AbstractEventLoop, told: "asyncio.Queue[Told]", what: Told
) -> "Callable[[Future[Any] | None], None]":
    """Return a callback for another thread that puts something on the loop's queue; without a loop nobody waits."""

    def tell(_: "Future[Any] | None") -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(told.put_nowait, what)

    return tell
