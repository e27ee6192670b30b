"""Pictures of the soak test against those of an idle engine: no server, no batch, no bank that others use."""

import io
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ssd1b.engines.bundle import Bundle
from ssd1b.sampling.denoise import Known, Request, advance, start
from ssd1b.sampling.schedule import Schedule
from ssd1b.sizes import Size
from ssd1b.trials.load.driver import psnr
from ssd1b.trials.load.soak_tally import Told
from ssd1b.trials.load.soak_wishes import SEGMIND, STRENGTH, Wish
from ssd1b.trials.load.wardrobe import Wardrobe

# H W height and width in pixels, 3 red green blue

SLOT = 1
QUALITY = 95
"""Of Segmind's JPEGs."""
EQUAL_DB = 100.0
"""What equal pictures are counted as."""

Item = TypeVar("Item")


class Idle:
    """The engine of one version with nothing else to do, on the backend of the endpoint."""

    def __init__(self, bundle: Path, backend: str) -> None:
        self._bundle = Bundle.load(bundle, backend)
        self._engine, self._schedule = self._bundle.engine(), Schedule.read(bundle)
        self.name = self._engine.name

    def draw(self, wish: Wish, adapter: Path | None) -> NDArray[np.uint8]:
        """Return the pixels_HW3 of a wish, with the weights of an adapter's file."""
        slot, size = SLOT if adapter else 0, Size.parse(wish.ask.size)
        if adapter is not None:
            read, _ = self._bundle.read_adapter(adapter, self._engine)
            self._engine.load_adapter(slot, read)
            self._bundle.text.load_adapter(slot, read)
        scale = wish.weight if adapter else 1.0
        request = Request(
            prompt=wish.ask.prompt, negative=wish.negative or None, weighted=True, seed=wish.ask.seed,
            steps=wish.ask.steps, guidance=wish.ask.guidance, sampler=wish.sampler, size=size,
            strength=STRENGTH if wish.start else 1.0, slot=slot, scale=scale,
        )  # fmt: skip
        prompts = self._bundle.prompts.wearing(slot, scale)
        known = [self._known(wish.start)] if wish.start else ()
        (row,) = start(prompts, [request], known, schedule=self._schedule, device=self._engine.device)
        while not row.done:
            advance(self._engine, [row])
        drawn_HW3: NDArray[np.uint8] = self._bundle.decode(row.latents_CHW[None])[0].numpy()
        return as_segmind(drawn_HW3) if wish.dialect == SEGMIND else drawn_HW3

    def _known(self, data: bytes) -> Known:
        pixels_HW3 = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
        mean_1CHW, std_1CHW = self._bundle.encode(torch.from_numpy(pixels_HW3.transpose(2, 0, 1) / 127.5 - 1)[None])
        return Known(mean_CHW=mean_1CHW[0], std_CHW=std_1CHW[0])


def as_segmind(pixels_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as a JPEG gives it back: that dialect has no other format, and its loss is not the load's."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "jpeg", quality=QUALITY)
    return np.asarray(Image.open(buffer).convert("RGB"))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A picture of the endpoint and the same one of an idle engine."""

    told: Told
    alone_HW3: NDArray[np.uint8]
    """Of the weights that the adapter may have had then, those that give the nearest picture."""
    db: float


def compare(
    sample: Sequence[Told], bundles: Mapping[str, Path], backend: str, wardrobe: Wardrobe
) -> Iterator[tuple[str, list[Compared]]]:
    """Yield for each version the engine's name and its pictures, drawn again one at a time."""
    for version in sorted({told.version for told in sample}):
        idle = Idle(bundles[version], backend)
        yield idle.name, [again(idle, told, wardrobe) for told in sample if told.version == version]


def again(idle: Idle, told: Told, wardrobe: Wardrobe) -> Compared:
    """Draw it with all the weights that it may have been drawn with."""
    assert told.pixels_HW3 is not None, "only pictures are compared"
    name = told.wish.ask.adapter
    files: Sequence[Path | None] = [None] if name is None else wardrobe.drawable(name, told.began, told.ended)
    drawn = [idle.draw(told.wish, file) for file in files]
    found = [(decibels(told.pixels_HW3, alone_HW3), alone_HW3) for alone_HW3 in drawn]
    db, nearest_HW3 = max(found, key=lambda one: one[0])
    return Compared(told=told, alone_HW3=nearest_HW3, db=db)


def decibels(one_HW3: NDArray[np.uint8], other_HW3: NDArray[np.uint8]) -> float:
    return psnr(one_HW3, other_HW3) or EQUAL_DB


def stratified(
    items: Sequence[Item], count: int, stratum: Callable[[Item], Hashable], random: np.random.Generator
) -> list[Item]:
    """Return so many items, all if there are fewer: in turns one of each stratum, by chance within it."""
    strata: dict[Hashable, list[Item]] = {}
    for i in random.permutation(len(items)):
        strata.setdefault(stratum(items[i]), []).append(items[i])
    taken: list[Item] = []
    while len(taken) < min(count, len(items)):
        for members in strata.values():
            if members and len(taken) < count:
                taken.append(members.pop())
    return taken
