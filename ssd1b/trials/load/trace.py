"""What callers ask for, and when: one seeded trace of requests, which every contestant gets alike.

Arrivals are a Poisson process given its count: so many moments drawn evenly over the window, in order (Kingman, Poisson
Processes, 2.4). So the offered rate is the one that was asked for, not that give or take its own noise. Steps are dealt
like cards: each length has its share of the requests exactly, in random order. Who wears which adapter is drawn by
Zipf's law.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Card = TypeVar("Card")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Of what the requests are made."""

    prompts: Sequence[str]
    adapters: Sequence[str] = ()
    """Most popular first."""
    exponent: float = 1.0
    """Of Zipf's law: the adapter of rank k is asked for 1 / k^exponent as often as the first."""
    plain_share: float = 0.25
    """Of the requests want no adapter; without adapters all of them do."""
    steps: tuple[tuple[int, float], ...] = ((8, 0.3), (20, 0.5), (30, 0.2))
    """Denoising steps, and their weights."""
    sizes: tuple[str, ...] = ("128x128",)
    """WIDTHxHEIGHT, alike often."""
    guidance: float = 5.0

    def __post_init__(self) -> None:
        if not (self.prompts and self.steps and self.sizes):
            raise ValueError("a mix needs prompts, steps and sizes: give at least one of each")
        if not 0 <= self.plain_share <= 1:
            raise ValueError(f"plain_share {self.plain_share}: give a share from 0 to 1")

    @property
    def mean_steps(self) -> float:
        """Of a request."""
        weights = [weight for _, weight in self.steps]
        return sum(steps * weight for steps, weight in self.steps) / sum(weights)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One picture that somebody wants at a moment."""

    at_s: float
    """When, in seconds from the beginning of the trace."""
    prompt: str
    seed: int
    steps: int
    size: str
    guidance: float
    adapter: str | None = None

    def body(self) -> dict[str, object]:
        """Return it as a body of OpenAI's Images route, with the fields that our endpoint adds to it."""
        worn = {} if self.adapter is None else {"lora": self.adapter}
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "size": self.size,
            **worn,
        }


def poisson(mix: Mix, rate: float, seconds: float, seed: int) -> list[Ask]:
    """Return the requests of a Poisson process of so many a second; at least one, in order of arrival.

    Raises:
        ValueError: a rate or duration that is not above 0.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"{rate} requests a second for {seconds} s: give numbers above 0")
    count = max(1, round(rate * seconds))
    arrivals = np.sort(np.random.default_rng([seed, 0]).uniform(0, seconds, count))
    return asked(mix, arrivals.tolist(), seed)


def at_once(mix: Mix, count: int, seed: int) -> list[Ask]:
    """Return so many requests of the same kind, all wanted now."""
    return asked(mix, [0.0] * count, seed)


def asked(mix: Mix, arrivals: Sequence[float], seed: int) -> list[Ask]:
    random, count = np.random.default_rng([seed, 1]), len(arrivals)
    lengths = dealt([(steps, weight) for steps, weight in mix.steps], count, random)
    sizes = dealt([(size, 1.0) for size in mix.sizes], count, random)
    share = mix.plain_share if mix.adapters else 1.0
    plain = dealt([(True, share), (False, 1 - share)], count, random)
    ranks = random.choice(max(1, len(mix.adapters)), count, p=zipf(max(1, len(mix.adapters)), mix.exponent))
    prompts = random.choice(len(mix.prompts), count)
    return [
        Ask(
            at_s=at_s,
            prompt=mix.prompts[prompts[i]],
            seed=seed * 1_000_000 + i,
            steps=lengths[i],
            size=sizes[i],
            guidance=mix.guidance,
            adapter=None if plain[i] else mix.adapters[ranks[i]],
        )
        for i, at_s in enumerate(arrivals)
    ]


def zipf(count: int, exponent: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return the share of each of so many, by rank."""
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = weights / weights.sum()
    return shares


def dealt(cards: Sequence[tuple[Card, float]], count: int, random: np.random.Generator) -> list[Card]:
    """Return so many cards in random order, each as often as its weight says, to within one (largest remainder)."""
    total = sum(weight for _, weight in cards)
    quotas = [count * weight / total for _, weight in cards]
    numbers = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(cards)), key=lambda i: numbers[i] - quotas[i])
    for i in by_remainder[: count - sum(numbers)]:
        numbers[i] += 1
    deck = [card for (card, _), number in zip(cards, numbers, strict=True) for _ in range(number)]
    return [deck[i] for i in random.permutation(count)]


def endless(mix: Mix, seed: int) -> Iterator[Ask]:
    """Yield requests of the mix without end, for callers who ask again as soon as they are answered."""
    while True:
        yield from at_once(mix, 1000, seed)
        seed += 1
