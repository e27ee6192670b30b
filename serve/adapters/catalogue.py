"""Which adapters there are: their names, and what identifies the version on offer. From the registry, or a folder.

A request must not wait for a registry with a thousand adapters, so names are asked for all at once and kept for a
moment, while they are asked for again a little longer. A name that is not among them is asked for alone, so that an
adapter can be drawn with as soon as it is registered.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Protocol, TypeVar

from serve.errors import RequestError
from ssd1b import tracking
from ssd1b.models.header import read_header
from ssd1b.tracking.store import connect

Read = TypeVar("Read")
"""What a painter makes of a file."""

logger = logging.getLogger("ray.serve")

ALIAS = "champion"
FRESH_S = 1.0
"""How long names count as known, at least."""
SHARE = 0.05
"""Of the time goes in listing, at most: MLflow takes some 0.3 s of processor for a thousand, which the steps lack."""
STALE_S = 60.0
"""How old names may be while they are asked for again; beyond it a request waits for them."""
FILE_BYTES = 2**30
"""Of an adapter's file at most: a rank of 128 on all of SDXL has 800 MB."""
KEYS = 20_000
"""Tensors in an adapter's file at most; a LoCon of all of SDXL has some 6,000."""
PAGE = 1000


class Adapters(Protocol):
    """Where adapters come from. The verbs may block; they are called on threads."""

    def all(self) -> Mapping[str, str]:
        """Return name -> key of all adapters on offer now. Another version of an adapter has another key."""
        ...

    def find(self, name: str) -> str | None:
        """Return the key of one, None if there is no such adapter. Names come from strangers."""
        ...

    def fetch(self, key: str) -> Path:
        """Return the file or folder of a key that `all` or `find` named.

        Raises:
            ValueError: it is there no longer, or nothing that may be read, in words for the caller.
        """
        ...


class Registry:
    """The adapters registered for a model: `<model>-lora-<name>`, at their own @champion."""

    def __init__(self, model: str) -> None:
        self._prefix = f"{model}-lora-"

    def all(self) -> Mapping[str, str]:
        """Return name -> registry uri, by one query a thousand."""
        found: dict[str, str] = {}
        token: str | None = ""
        while token is not None:
            page = connect().search_registered_models(f"name LIKE '{self._prefix}%'", PAGE, page_token=token or None)
            for model in page:
                if (version := model.aliases.get(ALIAS)) and model.name.startswith(self._prefix):
                    found[model.name.removeprefix(self._prefix)] = f"models:/{model.name}/{version}"
            token = page.token or None
        return found

    def find(self, name: str) -> str | None:
        """Return the registry uri of one."""
        if not re.fullmatch(r"[\w.-]+", name):  # the registry's names hold nothing else
            return None
        try:
            return tracking.version_of(f"{self._prefix}{name}", ALIAS).uri
        except ValueError:
            return None

    def fetch(self, key: str) -> Path:
        """Download a version, once per storage root."""
        return tracking.download(key)


class Folder:
    """The adapters of a folder: NAME.safetensors of any kind, or NAME/ in PEFT layout.

    A request names an adapter, never a path: names come from listing the folder, so none leads out of it.
    """

    def __init__(self, folder: Path) -> None:
        """Look into a folder.

        Raises:
            ValueError: there is no such folder.
        """
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}: give one that holds adapters as .safetensors files")
        self._folder = folder

    def all(self) -> Mapping[str, str]:
        """Return name -> file and when it was written: an adapter that is written anew is another."""
        found = {}
        for path in sorted(self._folder.iterdir()):
            file = path / "adapter_model.safetensors" if path.is_dir() else path
            name = path.name.removesuffix(".safetensors")
            if file.suffix == ".safetensors" and re.fullmatch(r"[\w-][\w. -]*", name) and (key := self._key(file)):
                found[name] = key
        return found

    def find(self, name: str) -> str | None:
        """Return file and time of one; listing is cheap, and a name is never made a path."""
        return self.all().get(name)

    def _key(self, file: Path) -> str | None:
        """Return the key of a file as it is now, None if there is none: files come and go while a folder is listed."""
        try:
            found = file.stat()
        except OSError:
            return None
        return f"{file.relative_to(self._folder)}@{found.st_mtime_ns}" if S_ISREG(found.st_mode) else None

    def fetch(self, key: str) -> Path:
        """Return the path, once its header is known to be sound."""
        file = self._folder / key.rpartition("@")[0]
        if self._key(file) != key:
            raise ValueError(f"{file.name} has just been changed or removed: ask again")
        if (size := file.stat().st_size) > FILE_BYTES:
            raise ValueError(f"{file.name} has {size:,} bytes; adapters have at most {FILE_BYTES:,}")
        if (keys := len(read_header(file).shapes)) > KEYS:
            raise ValueError(f"{file.name} holds {keys:,} tensors; adapters have at most {KEYS:,}")
        return file.parent if file.name == "adapter_model.safetensors" else file


class Several:
    """Several places at once; of equal names the first place's counts."""

    def __init__(self, places: Sequence[Adapters]) -> None:
        self._places = tuple(places)

    def all(self) -> Mapping[str, str]:
        """Return name -> key, which names the place too."""
        return {
            name: f"{i}:{key}"
            for i, place in reversed(list(enumerate(self._places)))
            for name, key in place.all().items()
        }

    def find(self, name: str) -> str | None:
        """Return the key in the first place that has it."""
        found = ((i, place.find(name)) for i, place in enumerate(self._places))
        return next((f"{i}:{key}" for i, key in found if key is not None), None)

    def fetch(self, key: str) -> Path:
        """Return what the key's place has."""
        place, _, inner = key.partition(":")
        return self._places[int(place)].fetch(inner)


def read_whole(adapters: Adapters, key: str, read: Callable[[Path], Read]) -> Read:
    """Return what `read` makes of an adapter's file, if that was the same file from beginning to end.

    Raises:
        ValueError: it is there no longer, was changed meanwhile, or is nothing that may be read.
    """
    try:
        found = read(adapters.fetch(key))
        adapters.fetch(key)  # which refuses a key that is another's by now: what was read may be half of each
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} has just been removed: ask again") from error
    return found


class Catalogue:
    """The names as they were a moment ago. For the event loop's thread only."""

    def __init__(self, adapters: Adapters, clock: Callable[[], float] = time.monotonic) -> None:
        self._adapters, self._clock = adapters, clock
        self._known: dict[str, str] | None = None
        self._looked = 0.0
        self._fresh_s = FRESH_S
        self._looking: asyncio.Task[None] | None = None

    async def names(self) -> tuple[str, ...]:
        """Return the names on offer, sorted.

        Raises:
            RequestError: 503, the place of the adapters was never reached.
        """
        return tuple(sorted(await self._fresh()))

    async def find(self, name: str) -> str | None:
        """Return the key of the version on offer, None if there is no such adapter.

        Raises:
            RequestError: see `names`.
        """
        return (await self._fresh()).get(name) or await self.renewed(name)

    async def renewed(self, name: str) -> str | None:
        """Ask the place of the adapters for one by itself, and return its key, None if there is none (any more).

        Raises:
            RequestError: 503, the place cannot be reached.
        """
        known = await self._fresh()
        try:
            key = await asyncio.to_thread(self._adapters.find, name)
        except Exception as error:
            logger.exception("the adapter %r cannot be looked up", name)
            raise unreachable() from error
        known = self._known or known  # a listing may have ended meanwhile
        known.pop(name, None)
        if key is not None:
            known[name] = key
        return key

    async def _fresh(self) -> dict[str, str]:
        age = self._clock() - self._looked
        if self._known is None or age > STALE_S:
            await asyncio.shield(self._look())
        elif age > self._fresh_s:
            self._look()
        if self._known is None:
            raise unreachable()
        return self._known

    def _look(self) -> "asyncio.Task[None]":
        """Return the look that is under way, or begin one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._ask())
        return self._looking

    async def _ask(self) -> None:
        began = self._clock()
        try:
            self._known = dict(await asyncio.to_thread(self._adapters.all))
        except Exception:
            # who has served goes on serving: the adapters it knows of lie here already, or will fail each by itself
            logger.exception("the adapters on offer cannot be listed; going on with what is known")
        self._looked = began
        self._fresh_s = max(FRESH_S, (self._clock() - began) / SHARE)


def unreachable() -> RequestError:
    message = "The registry of LoRA adapters cannot be reached: try again soon, or ask without one"
    return RequestError(message, "lora", "service_unavailable", 503, "server_error")
