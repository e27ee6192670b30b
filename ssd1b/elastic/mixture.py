"""Whose turn it is where several corpora are mixed by weight: every prefix of the slices has the right shares.

With whole weights w of sum q, corpus c's (j+1)-th slice of a block of q slices may come from place floor(j q / w) on
and must have come before place ceil((j+1) q / w). Taking the one that is due soonest keeps every due date, since such
dates can all be kept (Tijdeman, "The chairman assignment problem", 1980; as "windows" in Baruah et al.,
"Proportionate progress", 1996). So after any n slices each corpus has had floor or ceil of n w / q of them: less
than one slice from its share. Where several are due at once, dice keyed by (seed, block) say who is first.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from ssd1b.elastic.passes import MIXTURE, Dice, Rows

# q slices of a block

MAX_BLOCK = 1 << 16
"""Largest sum of weights in lowest terms: a block is made at once, in about 0.15 s at this size."""


@dataclass(frozen=True)
class Share:
    """A corpus in a mixture."""

    weight: int | Fraction
    """Its share of the slices is weight / sum of the weights, exactly."""
    buckets: int
    """How many of the order's buckets are its own; they follow those of the corpus before."""


def whole_weights(weights: Sequence[int | Fraction]) -> tuple[int, ...]:
    """Return the weights as whole numbers in lowest terms.

    Raises:
        ValueError: a weight is not an exact number above 0, or their sum in lowest terms is too large.
    """
    for weight in weights:
        if not isinstance(weight, int | Fraction) or weight <= 0:
            raise ValueError(f"weight {weight!r} of a corpus: give a whole number or a Fraction above 0")
    scale = math.lcm(*(Fraction(weight).denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    lowest = tuple(weight // math.gcd(*whole) for weight in whole)
    if sum(lowest) > MAX_BLOCK:
        raise ValueError(
            f"the weights {', '.join(map(str, weights))} come to {sum(lowest):,} parts in lowest terms: "
            f"round them, so that these are at most {MAX_BLOCK:,}"
        )
    return lowest


def turn_of(weights: tuple[int, ...], seed: int, index: int) -> tuple[int, int]:
    """Return the corpus that slice `index` of the whole order is taken from, and its number among that corpus's own.

    The weights are in lowest terms.
    """
    if len(weights) == 1:
        return 0, index
    number, place = divmod(index, sum(weights))
    corpus, before = turns(weights, seed, number)[place].tolist()
    return corpus, number * weights[corpus] + before


@lru_cache(maxsize=8)
def turns(weights: tuple[int, ...], seed: int, block: int) -> Rows:
    """Return (corpus, how many of its slices came before in the block), shape (q, 2)."""
    parts = sum(weights)
    random = Dice(seed).roll(MIXTURE, block)
    ready: list[list[tuple[int, int]]] = [[] for _ in range(parts)]
    for corpus, weight in enumerate(weights):
        for j in range(weight):
            ready[j * parts // weight].append((-(-(j + 1) * parts // weight), corpus))
    waiting: list[tuple[int, float, int]] = []
    had = [0] * len(weights)
    found = np.empty((parts, 2), np.int64)
    for place, arrivals in enumerate(ready):
        for (due, corpus), die in zip(arrivals, random.random(len(arrivals)).tolist(), strict=True):
            heapq.heappush(waiting, (due, die, corpus))
        due, _, corpus = heapq.heappop(waiting)
        assert place < due, "a share has come too late"
        found[place] = corpus, had[corpus]
        had[corpus] += 1
    return found
