"""What the callers of the soak test wish for: the requests of a mix, each with a sampler and numbers of its own."""

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ssd1b.sizes import Size
from ssd1b.trials.load.trace import Ask, Mix, endless

SAMPLERS = ("euler", "euler_a", "heun", "ddim", "dpmpp_2m", "dpmpp_2m_karras", "unipc")
"""Those that every dialect has a way to name."""
GUIDANCE = (1.0, 3.0, 5.0, 8.0)
NEGATIVE = ("", "blurry, grey")
WEIGHTS = (1.0, 1.0, 0.5)
LEAST_SEGMIND = 20
"""Steps of its route, at least."""
STRENGTH = 0.5
EDIT, SEGMIND = "openai edit", "segmind"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One picture, in no dialect yet."""

    dialect: str
    ask: Ask
    sampler: str
    negative: str = ""
    weight: float = 1.0
    """Of the adapter."""

    @property
    def start(self) -> bytes | None:
        """The picture to start from, a PNG; None starts from noise."""
        return patches(self.ask.seed, Size.parse(self.ask.size)) if self.dialect == EDIT else None


def wishes(dialect: str, mix: Mix, seed: int, offered: Callable[[], Sequence[str]]) -> Iterator[Wish]:
    """Yield wishes without end, as far as the dialect can say them. Steps, adapters and prompts are the mix's.

    offered: returns names that the mix does not know, of which an adapter is taken now and then.
    """
    for ask in endless(mix, seed):
        random = np.random.default_rng([ask.seed])
        known = offered()
        if known and ask.adapter is not None and random.uniform() < 0.15:
            ask = replace(ask, adapter=known[int(random.integers(len(known)))])
        if dialect == SEGMIND:
            ask = replace(ask, adapter=None, steps=max(ask.steps, LEAST_SEGMIND))
        yield Wish(
            dialect=dialect,
            ask=replace(ask, guidance=GUIDANCE[random.integers(len(GUIDANCE))]),
            sampler=SAMPLERS[random.integers(len(SAMPLERS))],
            negative=NEGATIVE[random.integers(len(NEGATIVE))],
            weight=WEIGHTS[random.integers(len(WEIGHTS))],
        )


def seed_of(name: str) -> int:
    """Return a number that follows from a name, the same in every process."""
    return zlib.crc32(name.encode())


def patches(seed: int, size: Size) -> bytes:
    """Return a picture of coloured patches, a PNG."""
    colours_HW3 = np.random.default_rng([seed, 7]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours_HW3).resize((size.width, size.height), Image.Resampling.BICUBIC).save(buffer, "png")
    return buffer.getvalue()
