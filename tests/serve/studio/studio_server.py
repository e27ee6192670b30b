"""The real front over a toy engine for the studio page: a thousand adapters, prompts of sixty words, any step time."""

from dataclasses import replace
from typing import Any

from toy_front import ToyEngine
from toy_painter import OFFER, ToyAdapters, ToyPainter

ADAPTERS = ("ink", "chalk", "clay", "unfit", *(f"portrait-{number:03d}" for number in range(996)))


class ManyAdapters(ToyAdapters):
    """As many as a registry may hold."""

    def names(self) -> tuple[str, ...]:
        return ADAPTERS


class StudioEngine(ToyEngine):
    """A real Replica over a toy painter; `requests` are those that reached it."""

    def __init__(self, step_s: float = 0.0) -> None:
        painter = ToyPainter(step_s)
        painter.offer = replace(OFFER, prompt_tokens=60)
        super().__init__(painter=painter, adapters=ManyAdapters())

    async def board(self) -> dict[str, Any]:
        return {**await super().board(), "version": self.painter.offer.version}
