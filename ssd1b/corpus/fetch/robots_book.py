"""robots.txt of every host that a corpus names, kept on disk for a day so that tasks and reruns do not ask again."""

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx

from ssd1b.corpus.fetch.addresses import follow, origin, target
from ssd1b.corpus.fetch.client import Answer
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.fetch.robots import EVERYTHING, MOST_BYTES, PRODUCT, Robots, parse
from ssd1b.corpus.reasons import Reason

GOOD_FOR_S = 24 * 3600
"""RFC 9309 2.4: not to be used for longer than a day."""
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
Send = Callable[[httpx.URL], Awaitable[Answer | Failure]]


class RobotsBook:
    """Knows what hosts allow; asks each one once, however many rows wait for the answer."""

    def __init__(self, folder: Path, send: Send) -> None:
        self.folder = folder
        self.send = send
        self.asked: dict[str, asyncio.Task[Robots | Failure]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def refusal(self, url: httpx.URL) -> Failure | None:
        """Return why a URL may not be fetched, or None.

        A host without robots.txt (4xx) allows all; one that fails to answer for it (5xx, 429) allows nothing now; and
        where the request itself fails, so does the row, under that request's reason.
        """
        name = origin(url)
        if name not in self.asked or self.outdated(self.asked[name]):
            self.asked[name] = asyncio.create_task(self.learn(name))
        found = await asyncio.shield(self.asked[name])
        if isinstance(found, Failure):
            return found
        if not found.allows(PRODUCT, target(url)):
            return Failure(reason=Reason.ROBOTS_DISALLOWED, detail=f"{name}/robots.txt")
        return None

    @staticmethod
    def outdated(task: asyncio.Task[Robots | Failure]) -> bool:
        """Say whether an answer was a failure that another try may mend; a closed host is asked once it is open."""
        if not task.done():
            return False
        found = task.result()
        return isinstance(found, Failure) and (found.retry or found.reason is Reason.HOST_DEAD)

    async def learn(self, name: str) -> Robots | Failure:
        path = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
        text = remembered(path)
        if text is None:
            answer = await self.ask(httpx.URL(f"{name}/robots.txt"))
            if isinstance(answer, Failure):
                return hidden(name, answer)
            text = answer.body.decode("utf-8", "replace") if answer.status == 200 else ""
            remember(path, name, text)
        return parse(text) if text else EVERYTHING

    async def ask(self, url: httpx.URL) -> Answer | Failure:
        """Return the answer, after up to five redirects; more are as if there were no file (RFC 9309 2.3.1.2)."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self.send(url)
            if isinstance(answer, Failure) or answer.status not in REDIRECTS:
                return answer
            found = follow(url, answer.value("location") or "")
            if isinstance(found, Failure):
                break
            url = found
        return Answer(status=404, headers=())


def hidden(name: str, failure: Failure) -> Failure:
    """Return what it means for a row that robots.txt could not be had."""
    unsaid = (Reason.URL_SERVER_ERROR, Reason.URL_RATE_LIMITED, Reason.URL_TOO_LARGE)
    if failure.reason not in unsaid:
        return failure
    detail = f"{name}/robots.txt: {failure.detail}"
    return replace(failure, reason=Reason.ROBOTS_DISALLOWED, detail=detail)


def remembered(path: Path) -> str | None:
    """Return a kept robots.txt that is younger than a day."""
    try:
        entry = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return str(entry["text"]) if 0 <= time.time() - entry["at"] < GOOD_FOR_S else None


def remember(path: Path, name: str, text: str) -> None:
    """Keep a robots.txt; written aside, since other tasks write the same."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    aside.write_text(json.dumps({"origin": name, "at": time.time(), "text": text[:MOST_BYTES]}))
    aside.replace(path)
