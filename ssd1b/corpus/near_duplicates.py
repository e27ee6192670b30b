"""Near duplicates: pictures whose perceptual hashes differ in a few bits, found exactly in a corpus of any size.

Who stays is decided greedily in the order of sample_id: a row goes if a row that stays, of smaller sample_id, is within
the distance. So every row that goes has a twin that stays, and no two that stay are twins. It is not transitive: of
a chain of small steps both ends stay where they are too far apart. The answer depends on the set of rows only.

Where hashes crowd, as those of near-blank pictures do, nearly all pairs are near, and there are too many to look at.
Few rows of a crowd stay, though, since no two of them are near; so rows are settled in blocks that double, each first
against the rows before it that stay. What is left of a block has few near pairs, as far as sample_id is a hash that
knows nothing of pictures: after a share s of rows in random order each open row is near about ln(N) / s others at most
(Blelloch, Fineman, Shun, "Greedy Sequential Maximal Independent Set and Matching are Parallel on Average", 2012, 3).
"""

import numpy as np
from numpy.typing import NDArray

from ssd1b.corpus.near_pairs import BITS, CROWD, are_near, choose_masks, near_pairs
from ssd1b.recipes.filters import FARTHEST

# N rows, M rows of unlike hashes, A of them that may have a twin, B of a block, P pairs

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
NONE = -1
FIRST_BLOCK = 4096


def near_duplicates(hash_N: Hashes, id_N: NDArray[np.uint64], distance: int) -> Rows:
    """Return for each row the index of the row that stays for it, or -1 where the row itself stays. Shape (N,).

    Of several that stay within the distance the one of smallest id is named. Takes about 130 bytes per row with the
    arrays given, and 180 where most rows are of crowds. Weak point: so they take some 1,000 comparisons each, a hundred
    thousand of them three seconds and a million 45.
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
    """Return for each of different hashes, in the order of ids, the index of the one that stays for it, or -1."""
    keeper_M = np.full(len(hash_M), NONE, np.int64)
    if distance == 0 or not len(hash_M):
        return keeper_M
    asked_A = np.flatnonzero(in_question(hash_M, distance))
    hash_A = hash_M[asked_A]
    stays_A = staying(hash_A, distance)
    stay, go = np.flatnonzero(stays_A), np.flatnonzero(~stays_A)
    nearest = np.full(len(go), len(stay), np.int64)
    for stays_P, goes_P in near_pairs(hash_A[stay], hash_A[go], distance):
        np.minimum.at(nearest, goes_P, stays_P)
    keeper_M[asked_A[go]] = asked_A[stay[nearest]]
    return keeper_M


def in_question(hash_M: Hashes, distance: int) -> NDArray[np.bool_]:
    """Return which rows are near another, and maybe some that are not: all of a crowd, unseen. Shape (M,).

    This is where a corpus without crowds spends its time: sorted by a key, neighbours are compared side by side, so
    that reading does not jump through memory.
    """
    asked_M = np.zeros(len(hash_M), bool)
    for mask in choose_masks(len(hash_M), len(hash_M), distance, (1 << BITS) - 1):
        order_M = np.argsort(hash_M & mask)
        sorted_M = hash_M[order_M]
        left_P = np.arange(len(order_M))
        for gap in range(1, len(order_M)):
            left_P = left_P[: np.searchsorted(left_P, len(order_M) - gap)]
            alike_P = (sorted_M[left_P] ^ sorted_M[left_P + gap]) & mask == 0
            left_P = left_P[alike_P]
            if not len(left_P):
                break
            if gap == CROWD:  # all from here to there share the key
                edges = np.bincount(left_P, minlength=len(order_M) + 1)
                edges -= np.bincount(left_P + gap + 1, minlength=len(order_M) + 1)
                asked_M[order_M[np.cumsum(edges[:-1]) > 0]] = True
                break
            near_P = left_P[are_near(sorted_M[left_P], sorted_M[left_P + gap], distance)]
            asked_M[order_M[near_P]] = asked_M[order_M[near_P + gap]] = True
    return asked_M


def staying(hash_A: Hashes, distance: int) -> NDArray[np.bool_]:
    """Return which of different hashes stay, in the order of ids. Shape (A,)."""
    stays_A = np.zeros(len(hash_A), bool)
    done = 0
    while done < len(hash_A):
        block = np.arange(done, min(len(hash_A), max(FIRST_BLOCK, 2 * done)))
        before = hash_A[:done][stays_A[:done]]
        left = block[~touched(before, hash_A[block], distance)]
        while len(left):  # a row stays once no open row before it is near; then those near it go
            blocked = np.zeros(len(left), bool)
            for low_P, high_P in near_pairs(hash_A[left], hash_A[left], distance):
                blocked[high_P[low_P < high_P]] = True
            stay, left = left[~blocked], left[blocked]
            stays_A[stay] = True
            left = left[~touched(hash_A[stay], hash_A[left], distance)]
        done = int(block[-1]) + 1
    return stays_A


def touched(stays: Hashes, hash_B: Hashes, distance: int) -> NDArray[np.bool_]:
    """Return which hashes are near one that stays. Shape (B,)."""
    found_B = np.zeros(len(hash_B), bool)
    for _, near_P in near_pairs(stays, hash_B, distance):
        found_B[near_P] = True
    return found_B
