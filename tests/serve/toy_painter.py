"""A model small enough to hold in the head: a row counts its steps, a picture is a flat colour made of its seed."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.offer import Offer
from serve.request import GenerationRequest
from ssd1b.sizes import Size

SQUARE, WIDE = Size(128, 128), Size(64, 192)
OFFER = Offer(
    model="toy", version="1", created=1, sizes=(SQUARE, WIDE), samplers=("euler", "ddim"), prompt_tokens=5, loras=()
)


@dataclass
class ToyRow:
    seed: int
    size: Size
    slot: int
    steps_left: int
    steps_made: int = 0
    words: int = 0


class ToyPainter:
    """Counts words as tokens and records every batch it is asked to advance. "unreadable" is a text it cannot read."""

    offer = OFFER
    slots = 3

    def __init__(self, step_s: float = 0.0, fail: bool = False) -> None:
        self.step_s, self.fail = step_s, fail
        self.batches: list[list[ToyRow]] = []
        self.loads: list[tuple[int, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def count(self, text: str) -> int:
        if text == "unreadable":
            raise ValueError("weight 99 is too great")
        return len(text.split())

    def begin(self, request: GenerationRequest, size: Size, slot: int) -> list[ToyRow]:
        words = self.count(request.prompt)
        return [ToyRow(seed, size, slot, request.steps, words=words) for seed in request.seeds]

    def group(self, row: ToyRow) -> tuple[Size, int]:
        return row.size, row.words

    def calls(self, row: ToyRow) -> int:
        return row.steps_left

    def advance(self, rows: Sequence[ToyRow]) -> None:
        self.gate.wait()
        time.sleep(self.step_s)
        if self.fail:
            raise RuntimeError("the toy engine is broken")
        self.batches.append([replace(row) for row in rows])
        for row in rows:
            row.steps_left -= 1
            row.steps_made += 1

    def decode(self, rows: Sequence[ToyRow]) -> list[NDArray[np.uint8]]:
        assert all(row.steps_left == 0 for row in rows)
        return [np.full((row.size.height, row.size.width, 3), row.seed % 256, np.uint8) for row in rows]

    def load_adapter(self, slot: int, folder: Path) -> None:
        if "unfit" in folder.name:
            raise ValueError(f"{folder.name} has rank 999")
        self.loads.append((slot, folder.name))


class ToyAdapters:
    """Adapters "ink", "chalk", "clay" and "unfit"; `version` moves all of them to a newer version."""

    version = 1

    def names(self) -> tuple[str, ...]:
        return ("ink", "chalk", "clay", "unfit")

    def find(self, name: str) -> str | None:
        return f"{name}@{self.version}" if name in self.names() else None

    def fetch(self, key: str) -> Path:
        return Path(key)
