"""All pairs of hashes from two sets that differ in a few bits, without comparing each with each.

The bits that vary are cut into bands. So many differing bits fall into as many bands at most, so the others agree: for
each choice of other bands the sets are sorted by those, and only what agrees there is compared. More bands make longer
keys, which fewer rows share, but more of them. (Manku, Jain, Das Sarma, "Detecting Near-Duplicates for Web Crawling",
2007, 3.) Where many rows share a key nonetheless, the bits outside the key are cut again, for them alone.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb, log2

import numpy as np
from numpy.typing import NDArray

# L, R rows of the two sets, P pairs

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pairs = tuple[Rows, Rows]
BITS = 64
CROWD = 128
"""So many rows of a key are compared one by one; of more the bits are cut again."""
SORTING = 0.5
"""What it costs to sort a row by a key, per doubling of the rows; comparing two costs 1."""
CHUNK = 1 << 20
"""Comparisons at a time."""


def near_pairs(hash_L: Hashes, hash_R: Hashes, distance: int) -> Iterator[Pairs]:
    """Yield (left, right) indices of all pairs within the distance; a pair can come more than once."""
    if not len(hash_L) or not len(hash_R):
        return
    varying = np.bitwise_or.reduce(hash_L ^ hash_L[0]) | np.bitwise_or.reduce(hash_R ^ hash_L[0])
    masks = choose_masks(len(hash_L), len(hash_R), distance, int(varying))
    if masks == [np.uint64(0)]:
        yield from each_with_each(hash_L, hash_R, distance)
        return
    for mask in masks:
        order_L, order_R = np.argsort(hash_L & mask), np.argsort(hash_R & mask)
        sorted_L, sorted_R = hash_L[order_L], hash_R[order_R]
        key_L, key_R = sorted_L & mask, sorted_R & mask
        first_R = np.searchsorted(key_L, key_R, side="left")
        alike_R = np.searchsorted(key_L, key_R, side="right") - first_R
        crowded_R = alike_R > CROWD
        for crowd in np.split(np.flatnonzero(crowded_R), np.flatnonzero(np.diff(first_R[crowded_R])) + 1):
            if len(crowd):
                here = slice(first_R[crowd[0]], first_R[crowd[0]] + alike_R[crowd[0]])
                # they agree in the key, so that in there only the bits outside it vary
                for left_P, right_P in near_pairs(sorted_L[here], sorted_R[crowd], distance):
                    yield order_L[here][left_P], order_R[crowd[right_P]]
        right_P = np.flatnonzero((alike_R > 0) & ~crowded_R)
        for nth in range(CROWD):
            right_P = right_P[alike_R[right_P] > nth]
            if not len(right_P):
                break
            left_P = first_R[right_P] + nth
            near_P = are_near(sorted_L[left_P], sorted_R[right_P], distance)
            if near_P.any():
                yield order_L[left_P[near_P]], order_R[right_P[near_P]]


def each_with_each(hash_L: Hashes, hash_R: Hashes, distance: int) -> Iterator[Pairs]:
    step = max(1, CHUNK // len(hash_R))
    for start in range(0, len(hash_L), step):
        left_P, right_P = np.nonzero(are_near(hash_L[start : start + step, None], hash_R[None], distance))
        yield left_P + start, right_P


def are_near(one: Hashes, other: Hashes, distance: int) -> NDArray[np.bool_]:
    """Return which hashes are within the distance of one another. Every comparison is made here."""
    near: NDArray[np.bool_] = np.bitwise_count(one ^ other) <= distance
    return near


def choose_masks(left: int, right: int, distance: int, varying: int) -> list[np.uint64]:
    """Return the masks under which rows are sorted, so that any two within the distance are equal under one of them.

    [0] where it is cheapest to compare each with each. `varying` are the bits in which any two rows differ.
    """
    places = [bit for bit in range(BITS) if varying >> bit & 1]
    choices = [bands for bands in range(distance + 1, distance + 5) if bands <= len(places)]
    bands = min(choices, key=lambda bands: cost(left, right, distance, bands, len(places)), default=0)
    if not bands or cost(left, right, distance, bands, len(places)) >= left * right:
        return [np.uint64(0)]
    edges = [len(places) * i // bands for i in range(bands + 1)]
    parts = [sum(1 << bit for bit in places[low:high]) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(parts, bands - distance)]


def cost(left: int, right: int, distance: int, bands: int, bits: int) -> float:
    """Return about how many comparisons a search takes: sorting under each mask, and the pairs that share a key."""
    shared: float = left * right / 2.0 ** (bits * (bands - distance) / bands)
    return comb(bands, distance) * (SORTING * (left + right) * log2(left + right) + shared)
