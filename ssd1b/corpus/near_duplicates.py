"""Near duplicates: pictures whose perceptual hashes differ in a few bits, found exactly in a corpus of any size.

Who stays is decided greedily in the order of sample_id: a row goes if a row that stays, of smaller sample_id, is within
the distance. So every row that goes has a twin that stays, and no two that stay are twins. It is not transitive: of
a chain of small steps both ends stay where they are too far apart. The answer depends on the set of rows only.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb, log2

import numpy as np
from numpy.typing import NDArray

from ssd1b.recipes.filters import FARTHEST

# N rows, M rows that are still in question, P pairs

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
BITS = 64
NONE = -1


def near_duplicates(hash_N: Hashes, id_N: NDArray[np.uint64], distance: int) -> Rows:
    """Return for each row the index of the row that stays for it, or -1 where the row itself stays. Shape (N,).

    Of several that stay within the distance the one of smallest id is named. Takes about 130 bytes per row with
    the arrays given, and a time that grows with the pairs of different hashes that share a key (see `keys`). Weak
    point: a hundred thousand of them under one key are five billion comparisons, half a minute.
    """
    assert 0 <= distance <= FARTHEST, distance
    by_id_N = np.argsort(id_N, kind="stable")
    # equal hashes first: a stable sort puts the smallest id of each at its front, and only that one is searched
    distinct_M, first_M, which_N = np.unique(hash_N[by_id_N], return_index=True, return_inverse=True)
    rank_M = np.argsort(first_M)  # in the order of ids from here on
    keeper_M = keepers(distinct_M[rank_M], distance)
    place_M = np.empty_like(rank_M)
    place_M[rank_M] = np.arange(len(rank_M))
    own_N = place_M[which_N]
    stays_M = np.where(keeper_M == NONE, np.arange(len(keeper_M)), keeper_M)
    keeper_N = np.empty(len(hash_N), np.int64)
    keeper_N[by_id_N] = by_id_N[first_M[rank_M]][stays_M[own_N]]
    return np.where(keeper_N == np.arange(len(hash_N)), NONE, keeper_N)


def keepers(hash_M: Hashes, distance: int) -> Rows:
    """Return for each of different hashes, in the order of ids, the index of the one that stays for it, or -1.

    Round by round: a row stays once no row before it is near and still open; then those near it go. Pairs are searched
    anew in each round rather than kept, so that memory does not grow with them.
    """
    keeper_M = np.full(len(hash_M), NONE, np.int64)
    if distance == 0 or not len(hash_M):
        return keeper_M
    near_M = np.zeros(len(hash_M), bool)
    for low_P, high_P in near_pairs(hash_M, distance):
        near_M[low_P] = near_M[high_P] = True
    asked_M = np.flatnonzero(near_M)  # a row that is near none stays, and is not searched again
    stays, goes = np.zeros(len(asked_M), bool), np.zeros(len(asked_M), bool)
    while not (stays | goes).all():
        blocked = np.zeros(len(asked_M), bool)
        for low_P, high_P in near_pairs(hash_M[asked_M], distance):
            goes[high_P[stays[low_P]]] = True
            blocked[high_P[~goes[low_P]]] = True
        stays |= ~(goes | blocked)
    nearest = np.full(len(asked_M), len(asked_M), np.int64)
    for low_P, high_P in near_pairs(hash_M[asked_M], distance):
        of_one_that_goes = stays[low_P] & goes[high_P]
        np.minimum.at(nearest, high_P[of_one_that_goes], low_P[of_one_that_goes])
    keeper_M[asked_M[goes]] = asked_M[nearest[goes]]
    return keeper_M


def near_pairs(hash_M: Hashes, distance: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield (low, high) indices of all pairs within the distance, low before high; a pair can come more than once."""
    for mask in keys(len(hash_M), distance):
        order_M = np.argsort(hash_M & mask)
        sorted_M = hash_M[order_M]  # side by side, so that comparing neighbours does not jump through memory
        left_P = np.arange(len(order_M))
        for gap in range(1, len(order_M)):
            left_P = left_P[: np.searchsorted(left_P, len(order_M) - gap)]
            apart_P = sorted_M[left_P] ^ sorted_M[left_P + gap]
            alike_P = apart_P & mask == 0
            left_P, apart_P = left_P[alike_P], apart_P[alike_P]
            if not len(left_P):
                break
            near_P = left_P[np.bitwise_count(apart_P) <= distance]
            if len(near_P):
                one_P, other_P = order_M[near_P], order_M[near_P + gap]
                yield np.minimum(one_P, other_P), np.maximum(one_P, other_P)


def keys(rows: int, distance: int) -> list[np.uint64]:
    """Return the masks under which rows are sorted, so that any two within the distance are equal under one of them.

    The 64 bits are cut into `bands` bands. So many differing bits fall into as many bands at most, so the others agree:
    a mask for each choice of bands - distance of them. More bands make longer keys, which fewer rows share, but more
    masks. (Manku, Jain, Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007, 3.)
    """
    bands = min(range(distance + 1, distance + 5), key=lambda bands: cost(rows, distance, bands))
    edges = [BITS * i // bands for i in range(bands + 1)]
    parts = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(parts, bands - distance)]


def cost(rows: int, distance: int, bands: int) -> float:
    """Return about how many comparisons a search takes: sorting under each mask, and the pairs that share a key."""
    width = float(BITS * (bands - distance) / bands)
    shared: float = rows / 2**width
    return comb(bands, distance) * rows * (log2(rows + 1) + shared)
