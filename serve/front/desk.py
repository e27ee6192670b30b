"""The desk that every dialect brings its requests to: who asks, in which style and size, for what price; the engine.

A dialect reads and answers; what happens between is the same for all of them and happens here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

from starlette.requests import Request

from serve.accounts import Accounts, NoAccounts
from serve.answer import Generation, Preview, Progress
from serve.dialects import pictures
from serve.errors import RequestError, not_offered
from serve.front.again import Engine, again, draw_again
from serve.front.gone import until_gone
from serve.front.keys import key_of
from serve.front.once import Key, digest_of, once_of
from serve.front.predictions import Predictions
from serve.front.visits import Visit, visit_of
from serve.offer import Offer
from serve.request import GenerationRequest
from serve.styles import Styles, dressed
from ssd1b.sizes import Size, nearest_bucket

OFFER_S = 2.0
"""How old an offer may be: sizes and adapters change rarely, and requests come often."""


class Desk:
    """One for a front; holds nothing but what it was given, the engine's last offer, and whose turn it is."""

    def __init__(
        self, engine: Engine, model: str, accounts: Accounts | NoAccounts, styles: Styles, store: Predictions
    ) -> None:
        self.engine, self.model, self.accounts, self.styles, self.store = engine, model, accounts, styles, store
        self._offer: tuple[float, Offer] | None = None
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def welcome(self, http: Request) -> Visit:
        """Return the visit of a request, with its caller and its idempotency key.

        Raises:
            RequestError: 401; 400, an idempotency key that is none.
        """
        visit = visit_of(http)
        visit.caller = await self.accounts.identify(key_of(http))
        visit.key = once_of(http, visit.account) if http.method == "POST" else None
        return visit

    async def offer(self, request_id: str, oldest_s: float = OFFER_S) -> Offer:
        """Return what the engine offers, asked for at most `oldest_s` ago."""
        if self._offer is None or time.monotonic() - self._offer[0] > oldest_s:
            self._offer = time.monotonic(), await again(self.engine.offer, request_id)
        return self._offer[1]

    async def make(self, http: Request, visit: Visit, request: GenerationRequest) -> Generation:
        """Return the pictures; the work ends when the client hangs up.

        Raises:
            RequestError: whatever refuses the request, from the style to the engine.
        """
        return await until_gone(http, self._make(visit, request))

    async def _make(self, visit: Visit, request: GenerationRequest) -> Generation:
        asked, request = request, await self.ready(visit, request)
        visit.size = request.size
        assert visit.caller is not None, "welcome comes first"
        assert request.size is not None, "ready chose it"
        async with (
            self._charge_id(visit, asked) as charge_id,
            self.accounts.charge(visit.caller, charge_id, request, request.size) as visit.charge,
        ):
            answer = await again(lambda: self.engine.generate(request), visit.id)
            if isinstance(answer, RequestError):
                raise answer
        return delivered(visit, answer)

    async def draw(
        self, visit: Visit, request: GenerationRequest
    ) -> AsyncGenerator[Progress | Preview | Generation, None]:
        """Yield what happens on the way and last the pictures, when they are paid for; closing it ends the work.

        Raises:
            RequestError: as `make`.
        """
        asked, request = request, await self.ready(visit, request)
        visit.size = request.size
        assert visit.caller is not None, "welcome comes first"
        assert request.size is not None, "ready chose it"
        made: Generation | None = None
        async with (
            self._charge_id(visit, asked) as charge_id,
            self.accounts.charge(visit.caller, charge_id, request, request.size) as visit.charge,
            aclosing(draw_again(lambda: self.engine.draw(request), visit.id)) as events,
        ):
            async for event in events:
                if isinstance(event, RequestError):
                    raise event
                if isinstance(event, Generation):
                    made = event
                else:
                    yield event
        assert made is not None, "draw_again ends with pictures or a refusal"
        yield delivered(visit, made)

    @asynccontextmanager
    async def _charge_id(self, visit: Visit, asked: GenerationRequest) -> AsyncIterator[str]:
        """Give the id to charge a request by: its own, or that of the first with its idempotency key.

        Of requests that share a key this front draws one at a time: a twin waits, and is drawn for when the first is
        paid or has ended. Twins at two fronts share one hold, and one charge.

        Raises:
            RequestError: 422, the key came with another request before, or all too often.
        """
        key = visit.key
        if key is None:
            yield visit.id
            return
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            yield await asyncio.to_thread(lambda: self.store.first(key, digest_of(asked), visit.id))

    async def ready(self, visit: Visit, request: GenerationRequest) -> GenerationRequest:
        """Return the request in its style and with the size that will be drawn, which its price depends on.

        Raises:
            RequestError: what the model does not offer, as far as it can be told without the model.
        """
        request = dressed(request, self.styles)
        offer = await self.offer(visit.id)
        if not offers(offer, request):
            offer = await self.offer(visit.id, oldest_s=0)  # another champion may have come
        require_offered(offer, request)
        size = request.size
        if size is None and request.start:
            size = nearest_bucket(await asyncio.to_thread(shape, request.start.picture), offer.sizes)
        batch = visit.caller is not None and visit.caller.priority == "batch"
        return replace(
            request, size=size or offer.sizes[0], priority="batch" if batch else request.priority, id=visit.id
        )

    async def adapters_offered(self, visit: Visit, request: GenerationRequest) -> None:
        """Refuse at once what is drawn later, when nobody waits for the refusal: an adapter that is in no list.

        Raises:
            RequestError: there is no such adapter.
        """
        offer = await self.offer(visit.id)
        if any(lora.name not in offer.loras for lora in request.loras):
            offer = await self.offer(visit.id, oldest_s=0)
        for lora in request.loras:
            if lora.name not in offer.loras:
                raise not_offered("lora", lora.name, offer.loras)


def offers(offer: Offer, request: GenerationRequest) -> bool:
    try:
        require_offered(offer, request)
    except RequestError:
        return False
    return True


def require_offered(offer: Offer, request: GenerationRequest) -> None:
    """Raise RequestError for a size or sampler that is not in the offer.

    Adapters are the replica's to judge: one that was registered a moment ago is in no list yet.
    """
    if request.size is not None and request.size not in offer.sizes:
        raise not_offered("size", str(request.size), [str(size) for size in offer.sizes])
    if request.sampler not in offer.samplers:
        raise not_offered("sampler", request.sampler, offer.samplers)


def shape(picture: bytes) -> Size:
    return pictures.size_of(pictures.opened(picture, "image"))


def delivered(visit: Visit, made: Generation) -> Generation:
    visit.pictures, visit.replica = len(made.pictures), made.replica
    return made
