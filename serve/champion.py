"""The model in the registry's @champion, as the painter a replica needs, and its adapters by name.

The champion's version carries the tag "bundle", the uri of its engine bundle; without it the torch backend runs on the
model's own folder, slower but the same pictures.
"""

import logging
import re
import threading
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serve.offer import Offer
from serve.request import GenerationRequest
from ssd1b import tracking
from ssd1b.engines.bundle import Bundle
from ssd1b.sampling.denoise import Request, Row, advance, start
from ssd1b.sampling.schedule import Schedule
from ssd1b.sampling.tables import SAMPLERS
from ssd1b.sampling.weights import parse
from ssd1b.sizes import Size

logger = logging.getLogger("ray.serve")

ALIAS = "champion"


class Champion:
    """A painter (serve/painter.py) over an engine bundle."""

    def __init__(self, bundle: Bundle, model: str, version: str) -> None:
        self._bundle = bundle
        self._prompts, self._decode, self._engine = bundle.prompts, bundle.decode, bundle.engine()
        self._schedule = Schedule.read(bundle.folder)
        # Tokenizers refuse two threads at once, and so may a decoder; the engine has a lock of its own.
        self._reading, self._decoding = threading.Lock(), threading.Lock()
        self.slots = self._engine.slots
        self.offer = Offer(
            model=model,
            version=version,
            created=int(time.time()),
            sizes=bundle.sizes,
            samplers=tuple(SAMPLERS),
            prompt_tokens=bundle.prompt_tokens,
        )

    def count(self, text: str) -> int:
        with self._reading:
            return self._prompts.count(parse(text))

    def begin(self, request: GenerationRequest, size: Size, slot: int) -> list[Row]:
        scale = request.loras[0].scale if request.loras else 1.0
        rows = [
            Request(
                prompt=request.prompt,
                negative=request.negative_prompt or None,
                weighted=True,
                seed=seed,
                steps=request.steps,
                guidance=request.guidance,
                rescale=request.rescale,
                sampler=request.sampler,
                size=size,
                slot=slot,
                scale=scale,
            )
            for seed in request.seeds
        ]
        with self._reading:
            return start(self._prompts.wearing(slot, scale), rows, schedule=self._schedule, device=self._engine.device)

    def group(self, row: Row) -> Hashable:
        return row.group

    def calls(self, row: Row) -> int:
        return len(row.table) - row.step

    def advance(self, rows: Sequence[Row]) -> None:
        advance(self._engine, rows)

    def decode(self, rows: Sequence[Row]) -> list[NDArray[np.uint8]]:
        with self._decoding:
            pictures_BHW3 = self._decode(torch.stack([row.latents_CHW for row in rows]))
        return list(pictures_BHW3.numpy())

    def load_adapter(self, slot: int, folder: Path) -> None:
        adapter, report = self._bundle.read_adapter(folder, self._engine, folder.parent.name)
        logger.log(logging.WARNING if report.dropped else logging.INFO, "adapter %s: %s", adapter.name, report)
        self._engine.load_adapter(slot, adapter)
        self._bundle.text.load_adapter(slot, adapter)


class Registry:
    """The adapters (serve/bank.py) registered for a model: `<model>-lora-<name>`, at their own @champion."""

    def __init__(self, model: str) -> None:
        self._model = model

    def names(self) -> tuple[str, ...]:
        found = {version.tags["lora"] for version in tracking.versions({"kind": "lora", "base": self._model})}
        return tuple(name for name in sorted(found) if self.find(name))

    def find(self, name: str) -> str | None:
        if not re.fullmatch(r"[\w.-]+", name):  # the registry's names hold nothing else
            return None
        try:
            return tracking.version_of(f"{self._model}-lora-{name}", ALIAS).uri
        except ValueError:
            return None

    def fetch(self, key: str) -> Path:
        return tracking.download(key)


def require_champion(model: str) -> tracking.Version:
    """Return the champion's version.

    Raises:
        ValueError: there is none; the message says what makes one.
    """
    try:
        return tracking.version_of(model, ALIAS)
    except ValueError as error:
        raise ValueError(f"nothing to serve: {error}. `make demo` goes the whole way and makes one") from error


def open_champion(model: str, backend: str = "auto") -> tuple[Champion, Registry]:
    """Download and open the champion and its registry of adapters."""
    version = require_champion(model)
    uri = version.tags.get("bundle")
    if uri is None:
        logger.warning("%s has no engine bundle (`python -m jobs.export` makes it): torch runs its folder", version.uri)
    bundle = Bundle.load(tracking.download(uri or version.uri), backend if uri else "auto")
    champion = Champion(bundle, model, version.version)
    logger.info("serving %s (%s) on %s", version.uri, uri or "no bundle", bundle.backend)
    return champion, Registry(model)
