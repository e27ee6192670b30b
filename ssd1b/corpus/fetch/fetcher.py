"""From a URL to the bytes of a picture: robots, redirects by hand, retries, and one host's troubles kept to itself."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import httpx

from ssd1b.corpus.fetch.addresses import follow, parse
from ssd1b.corpus.fetch.client import Answer, Client, Network, Wanted
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.fetch.hosts import Hosts
from ssd1b.corpus.fetch.retry import pause_s, retry_after_s
from ssd1b.corpus.fetch.robots import MOST_BYTES, PRODUCT, opted_out
from ssd1b.corpus.fetch.robots_book import MOST_REDIRECTS, REDIRECTS, RobotsBook
from ssd1b.corpus.fetch.sniff import NEEDED, is_picture
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import Fetch

VERSION = "1.0"
PICTURES = "image/avif,image/webp,image/png,image/jpeg,image/*;q=0.8"
FORBIDDEN = (401, 402, 403, 451)
GONE = (404, 410)
Outcome = bytes | Failure


def user_agent(contact: str) -> str:
    """Return who we say we are: the product token that robots.txt may name, and where to complain."""
    return f"{PRODUCT}/{VERSION} (+{contact})"


class Fetcher:
    """Fetches pictures on one event loop, within the limits of a recipe. Use as an async context."""

    def __init__(
        self,
        config: Fetch,
        robots_folder: Path,
        network: Network,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.jitter = jitter
        self.client = Client(config, network, user_agent(config.contact))
        self.hosts = Hosts(config)
        self.slots = asyncio.Semaphore(config.concurrency)
        self.robots = RobotsBook(robots_folder, self.robots_txt)

    async def __aenter__(self) -> "Fetcher":
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)

    async def picture(self, text: str) -> Outcome:
        """Return the encoded picture at a URL, or why there is none after all attempts."""
        url = parse(text)
        if isinstance(url, Failure):
            return url
        failure: Failure | None = None
        for attempt in range(self.config.attempts):
            found = await self.follow(url)
            if isinstance(found, bytes):
                return found
            if found.reason is Reason.HOST_DEAD and failure is not None:
                return failure  # the host was given up on while this row waited: its own reason says more
            failure = found
            if not found.retry:
                return found
            pause = pause_s(
                attempt,
                attempts=self.config.attempts,
                base_s=self.config.backoff_s,
                longest_s=self.config.longest_pause_s,
                asked_s=found.retry_after_s,
                jitter=self.jitter(),
            )
            if pause is None:
                return found
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt has no pause after it")

    async def follow(self, url: httpx.URL) -> Outcome:
        """Return what lies at a URL or at the end of up to five redirects; each hop keeps all the rules."""
        for hop in range(MOST_REDIRECTS + 1):
            answer: Answer | Failure | None = await self.robots.refusal(url)
            if answer is None:
                answer = await self.send(url, PICTURES, self.config.most_bytes, self.wanted)
            if isinstance(answer, Failure):
                inward = hop > 0 and answer.reason is Reason.URL_PRIVATE
                return Failure(reason=Reason.REDIRECT_REFUSED, detail=answer.detail) if inward else answer
            if answer.status not in REDIRECTS:
                return picture_of(answer)
            found = follow(url, answer.value("location") or "")
            if isinstance(found, Failure):
                return found
            url = found
        return Failure(reason=Reason.REDIRECT_REFUSED, detail=f"more than {MOST_REDIRECTS} redirects")

    async def robots_txt(self, url: httpx.URL) -> Answer | Failure:
        return await self.send(url, "text/plain,*/*;q=0.5", MOST_BYTES, lambda _head, _start: None)

    async def send(self, url: httpx.URL, accept: str, most_bytes: int, wanted: Wanted) -> Answer | Failure:
        """Return one request's answer when the host's turn has come; 429 and 5xx are failures like a broken line."""
        host = self.hosts.of(url.host)
        async with host.turn(self.config.host_gap_s) as refused:
            if refused is not None:
                return refused
            async with self.slots:
                answer = await self.client.get(url, accept=accept, most_bytes=most_bytes, wanted=wanted)
            if isinstance(answer, Answer) and (answer.status == 429 or answer.status >= 500):
                answer = overload(answer)
            host.note(answer, self.config)
            return answer

    def wanted(self, head: Answer, start: bytes) -> Failure | None:
        """Stop at a header that opts out, and at a body that is no picture, before the rest of it is sent."""
        if refused := opted_out(head.values("x-robots-tag"), PRODUCT, self.config.opt_outs):
            return Failure(reason=Reason.NOAI, detail=f"X-Robots-Tag: {refused}")
        return None if len(start) < NEEDED or is_picture(start) else not_an_image(head, start)


def overload(answer: Answer) -> Failure:
    """Return the failure that a 429 or 5xx is, with the wait that it asks for."""
    reason = Reason.URL_RATE_LIMITED if answer.status == 429 else Reason.URL_SERVER_ERROR
    asked_s = retry_after_s(answer.value("retry-after"), datetime.now(UTC)) if answer.status in (429, 503) else None
    return Failure(reason=reason, detail=f"status {answer.status}", retry=True, retry_after_s=asked_s)


def picture_of(answer: Answer) -> Outcome:
    """Return the picture in an answer, or what its status means."""
    if answer.status == 200:
        return answer.body if is_picture(answer.body) else not_an_image(answer, answer.body)
    known = {Reason.URL_GONE: GONE, Reason.URL_FORBIDDEN: FORBIDDEN}
    reason = next((reason for reason, statuses in known.items() if answer.status in statuses), Reason.URL_REFUSED)
    return Failure(reason=reason, detail=f"status {answer.status}")


def not_an_image(head: Answer, start: bytes) -> Failure:
    detail = f"{head.value('content-type')}, starts {start[:16]!r}"
    return Failure(reason=Reason.URL_NOT_AN_IMAGE, detail=detail)
