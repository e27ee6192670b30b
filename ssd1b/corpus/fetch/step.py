"""The step of jobs.ingest that turns a pair with a URL into a pair with a picture, or into a named reason.

It runs inside the task of a shard: one event loop on a thread of its own, so that the next pictures come in while the
task decodes the last. All limits of the recipe, those per host among them, hold per task: with n tasks at once a host
sees up to n times per_host requests. What is rejected or not selected by its metadata is never asked for. Pairs come
out in the order in which they went in, whatever answers first, so that a rerun makes the same parts.
"""

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssd1b.corpus.fetch.addresses import parse, target
from ssd1b.corpus.fetch.client import Network
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.fetch.fetcher import Fetcher
from ssd1b.corpus.fetch.store import Kept, Store
from ssd1b.corpus.filters import refused, selected
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.quadrants import quadrant_of
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.home import home
from ssd1b.recipes.ingest import Ingest

Item = Pair | Reject
Coming = tuple[Item, "Future[Failure | None] | None"]


def kept_folder(config: Ingest) -> Path:
    """Return where a recipe keeps what it fetched."""
    return Path(config.fetch.kept).absolute() if config.fetch.kept else home() / "fetched" / config.name


def check(config: Ingest) -> None:
    """Raise ValueError if a recipe for URLs says neither who asks nor where pictures already lie."""
    if not (config.fetch.contact or config.fetch.mirror):
        raise ValueError(
            f"{config.source} lists URLs: give --set fetch.contact=you@example.org (it is told to every site, in the "
            f"user agent), or --set fetch.mirror=/a/folder that holds the pictures as HOST/PATH"
        )
    mirror = Path(config.fetch.mirror)
    if config.fetch.mirror and not (mirror.is_absolute() and mirror.is_dir()):
        raise ValueError(f"fetch.mirror={mirror} is no folder: give an absolute path that every node can reach")


def with_pictures(items: Iterable[Item], config: Ingest, kept: Path, network: Network | None = None) -> Iterator[Item]:
    """Yield the items in order, pairs with a URL with their picture in place or as a Reject.

    What was fetched is kept in the folder `kept`, the same for the same rows in every run; robots.txt lies beside it.

    Raises:
        OSError: what was fetched cannot be kept.
    """
    store = Store(kept, most_bytes=config.fetch.most_bytes, again=config.fetch.again)
    with store, Arrivals(config, store, kept.parent / "robots", network or Network()) as arrivals:
        ahead: deque[Coming] = deque()
        for item in items:
            ahead.append(arrivals.expect(item))
            if len(ahead) > config.fetch.ahead:
                yield arrivals.arrive(*ahead.popleft())
        while ahead:
            yield arrivals.arrive(*ahead.popleft())


class Arrivals:
    """Starts the fetching of pairs and hands out what came of it. The loop's thread writes the store, ours reads it."""

    def __init__(self, config: Ingest, store: Store, robots: Path, network: Network) -> None:
        self.config = config
        self.store = store
        self.robots = robots
        self.network = network
        self.running: dict[str, Future[Failure | None]] = {}
        self.background = Background()
        self.fetcher: Fetcher | None = None

    def __enter__(self) -> "Arrivals":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.fetcher is not None:
                self.background.cancel_all()
                self.background.run(self.fetcher.__aexit__(None, None, None)).result()
        finally:
            self.background.stop()

    def expect(self, item: Item) -> Coming:
        """Start to fetch a pair's picture where that is needed; equal URLs are fetched once."""
        if isinstance(item, Reject) or item.url is None or item.image is not None or item.path is not None:
            return item, None
        if not selected(item, self.config):
            return item, None
        if reject := refused(item, self.config):
            return reject, None
        if self.config.fetch.mirror and (found := mirrored(Path(self.config.fetch.mirror), item.url)):
            return replace(item, path=str(found)), None
        if not self.config.fetch.contact:
            return told(item, Failure(reason=Reason.IMAGE_MISSING, detail=f"not in the mirror: {item.url}")), None
        return item, self.fetch(item.url)

    def fetch(self, url: str) -> "Future[Failure | None]":
        """Return what will be None once the picture lies in the store, or else the failure."""
        if (running := self.running.get(url)) is None:
            known = self.store.get(url)
            if known is None:
                running = self.background.run(self.keep(url))
            else:
                running = Future()
                running.set_result(known if isinstance(known, Failure) else None)
            self.running[url] = running
        return running

    async def keep(self, url: str) -> Failure | None:
        if self.fetcher is None:
            self.fetcher = Fetcher(self.config.fetch, self.robots, self.network)
            await self.fetcher.__aenter__()
        found = await self.fetcher.picture(url)
        if isinstance(found, Failure):
            self.store.fail(url, found)
            return found
        self.store.keep(url, found)
        return None

    def arrive(self, item: Item, coming: "Future[Failure | None] | None") -> Item:
        """Wait for a pair's picture and put it in place."""
        if isinstance(item, Reject) or item.url is None:
            return item
        if coming is None:
            return read_mirrored(item)
        failure = coming.result()
        self.running.pop(item.url, None)
        if failure is not None:
            return told(item, failure)
        if (data := self.kept(item.url)) is None:  # damaged since an earlier run
            self.store.forget(item.url)
            failure = self.background.run(self.keep(item.url)).result()
            if failure is not None:
                return told(item, failure)
            data = self.kept(item.url)
        if data is None:
            raise OSError(f"{self.store.folder} does not hold what was just written to it: a failing disk")
        return in_place(item, data)

    def kept(self, url: str) -> bytes | None:
        kept = self.store.get(url)
        assert isinstance(kept, Kept), f"{url} was fetched but is not kept"
        return self.store.read(kept)


def told(pair: Pair, failure: Failure) -> Reject:
    return Reject(reason=failure.reason, source=pair.source, key=pair.key, detail=failure.detail)


def read_mirrored(pair: Pair) -> Item:
    """Return a pair whose picture lies in the mirror with its bytes; one that was not wanted as it is."""
    if pair.path is None:
        return pair
    try:
        data = pair.read()
    except OSError as error:
        return told(pair, Failure(reason=Reason.IMAGE_MISSING, detail=str(error)))
    return in_place(replace(pair, path=None), data)


def in_place(pair: Pair, data: bytes) -> Item:
    """Return the pair with its picture, if it is the one that the corpus means."""
    if pair.sha256 and (found := hashlib.sha256(data).hexdigest()) != pair.sha256.lower():
        return told(pair, Failure(reason=Reason.SHA256_MISMATCH, detail=f"{found} at {pair.url}"))
    if pair.quadrant is None:
        return replace(pair, image=data)
    quarter = quadrant_of(data, pair.quadrant)
    if isinstance(quarter, Reject):
        return replace(quarter, source=pair.source, key=pair.key)
    return replace(pair, image=quarter)


def mirrored(mirror: Path, text: str) -> Path | None:
    """Return the file that a mirror holds of a URL: MIRROR/HOST/PATH, with the query behind a `?` as wget names it."""
    url = parse(text)
    if isinstance(url, Failure):
        return None
    root = mirror.resolve()
    for below in (target(url), url.path):
        try:
            found = (root / url.host / below.lstrip("/")).resolve()
        except (OSError, ValueError):
            continue  # no file has such a name, a NUL or an endless one
        if found.is_relative_to(root / url.host) and found.is_file():
            return found
    return None


class Background:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="fetch", daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def cancel_all(self) -> None:
        """Cancel what still runs and wait until it has ended."""

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel()).result()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
