"""A model small enough to hold in the head: a row counts its steps, a picture is a flat colour made of its seed."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.fitting import fitted
from serve.offer import Offer
from serve.request import GenerationRequest
from serve.steps.scheduler import Need
from ssd1b.sizes import Size

SQUARE, WIDE = Size(128, 128), Size(64, 192)
OFFER = Offer(
    model="toy", version="1", created=1, sizes=(SQUARE, WIDE), samplers=("euler", "ddim"), prompt_tokens=5, loras=()
)

POISON = 666
"""A seed that breaks every step it is part of."""


@dataclass
class ToyRow:
    seed: int
    size: Size
    slot: int
    steps_left: int
    steps_made: int = 0
    words: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class ToyAdapter:
    name: str
    parameters: int = 1


class ToyPainter:
    """Counts words as tokens and records every batch. It cannot read "unreadable", and breaks on the seed POISON."""

    offer = OFFER
    slots = 3

    def __init__(self, step_s: float = 0.0, fail: bool = False) -> None:
        self.step_s, self.decode_s, self.fail = step_s, 0.0, fail
        self.batches: list[list[ToyRow]] = []
        self.loads: list[tuple[int, str]] = []
        self.reads: list[str] = []
        self.decoded: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def count(self, text: str) -> int:
        if text == "unreadable":
            raise ValueError("weight 99 is too great")
        return len(text.split())

    def begin(self, request: GenerationRequest, size: Size, slot: int, scale: float) -> list[ToyRow]:
        if request.start is not None:
            fitted(request.start.picture, size)
        words = self.count(request.prompt)
        return [ToyRow(seed, size, slot, request.steps, words=words, scale=scale) for seed in request.seeds]

    def need(self, row: ToyRow) -> Need:
        cells = row.size.latent.height * row.size.latent.width
        return Need(group=(row.size, row.words), steps=row.steps_left, cells=cells, adapted=row.slot != 0)

    def advance(self, rows: Sequence[ToyRow]) -> None:
        self.gate.wait()
        time.sleep(self.step_s)
        if self.fail or any(row.seed == POISON for row in rows):
            raise RuntimeError("the toy engine is broken")
        self.batches.append([replace(row) for row in rows])
        for row in rows:
            row.steps_left -= 1
            row.steps_made += 1

    def preview(self, row: ToyRow) -> Callable[[], NDArray[np.uint8]]:
        latent, made = row.size.latent, row.steps_made
        return lambda: np.full((latent.height, latent.width, 3), made % 256, np.uint8)

    def decode(self, rows: Sequence[ToyRow]) -> list[NDArray[np.uint8]]:
        assert all(row.steps_left == 0 for row in rows)
        assert len({row.size for row in rows}) == 1
        time.sleep(self.decode_s)
        self.decoded.append([row.seed for row in rows])
        return [np.full((row.size.height, row.size.width, 3), row.seed % 256, np.uint8) for row in rows]

    def read_adapter(self, path: Path, name: str) -> ToyAdapter:
        assert path == Path(name)
        self.reads.append(name)
        return ToyAdapter(name)

    def load_adapter(self, slot: int, parts: Sequence[tuple[ToyAdapter, float]]) -> None:
        names = "+".join(adapter.name for adapter, _ in parts)
        if "unfit" in names:
            raise ValueError(f"{names} has rank 999")
        self.loads.append((slot, names))


class ToyAdapters:
    """Adapters "ink", "chalk", "clay" and "unfit"; `version` moves all of them to a newer version."""

    version = 1

    def names(self) -> tuple[str, ...]:
        return ("ink", "chalk", "clay", "unfit")

    def all(self) -> dict[str, str]:
        return {name: f"{name}@{self.version}" for name in self.names()}

    def find(self, name: str) -> str | None:
        return self.all().get(name)

    def fetch(self, key: str) -> Path:
        return Path(key)
