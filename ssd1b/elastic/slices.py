"""The elastic order: which rows make up slice k of a step, whatever the number of workers.

A global batch is V slices of R rows. Slice k of a step is a pure function of (seed, step, k); workers are dealt
slices round robin, so the same rows meet in the same step at any world size. All that must be kept to resume is the
seed and the step. Pure numpy, so that the rule can be tested without a cluster.

Every bucket is one endless stream: pass after pass over its rows, each pass in a new order. The stream is cut into
slices without regard to where a pass ends, so no row is ever left over, padded or repeated within a pass. Epoch e
holds the slices that the first e + 1 passes complete and the first e do not; they are shuffled among the buckets.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# R rows of a slice, V slices of a step

Rows = NDArray[np.int64]
CHUNK_ROWS = 64
"""Rows that lie side by side in storage and are shuffled together in a corpus larger than the window."""
WINDOW_ROWS = 1 << 16
"""A corpus up to this size is permuted whole. A larger one is permuted by chunks, then by rows within a window of
this many rows, so that reading stays near sequential."""


@dataclass(frozen=True)
class Slice:
    """The rows of one slice: all of one bucket."""

    bucket: int
    row_R: Rows
    """Index of each row among the rows of its bucket."""
    epoch_R: Rows
    """The pass over the bucket that the row belongs to; a slice may hold the end of one and the start of the next."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of a corpus: `bucket_rows[b]` rows in bucket b, in global batches of `slices` slices."""

    bucket_rows: tuple[int, ...]
    global_batch: int
    slices: int
    seed: int

    def __post_init__(self) -> None:
        if self.slices < 1 or self.global_batch % self.slices:
            raise ValueError(
                f"a global batch of {self.global_batch} rows does not divide into {self.slices} slices: "
                "choose slices that divide it"
            )
        if sum(self.bucket_rows) < 1:
            raise ValueError("the corpus has no rows to put in order")

    @property
    def rows_per_slice(self) -> int:
        """R."""
        return self.global_batch // self.slices

    def slice_at(self, step: int, k: int) -> Slice:
        """Return slice k (0 to V-1) of a step, counted from 0."""
        assert 0 <= k < self.slices, k
        index = step * self.slices + k
        epoch = self.epoch_of(index)
        bucket, j = self.epoch_slices(epoch)[index - self.slices_before(epoch)].tolist()
        position_R = np.arange(j * self.rows_per_slice, (j + 1) * self.rows_per_slice, dtype=np.int64)
        epoch_R, within_R = np.divmod(position_R, self.bucket_rows[bucket])
        row_R = np.empty_like(within_R)
        for one in np.unique(epoch_R):
            chosen = epoch_R == one
            row_R[chosen] = permutation(self.bucket_rows[bucket], self.seed, bucket, int(one))[within_R[chosen]]
        return Slice(bucket, row_R, epoch_R)

    def slices_before(self, epoch: int) -> int:
        """Return how many slices come before an epoch."""
        return sum(epoch * rows // self.rows_per_slice for rows in self.bucket_rows)

    def epoch_of(self, index: int) -> int:
        """Return the epoch of a slice counted over all steps: slices_before(e) <= index < slices_before(e + 1)."""
        # Each bucket rounds down, so slices_before(e) is at most e * rows / R and the true epoch at least this one.
        epoch = index * self.rows_per_slice // sum(self.bucket_rows)
        while self.slices_before(epoch + 1) <= index:
            epoch += 1
        return epoch

    def epoch_slices(self, epoch: int) -> Rows:
        """Return the (bucket, position in the bucket's stream) of an epoch's slices in their order, shape (n, 2)."""
        return _epoch_slices(self, epoch)


@lru_cache(maxsize=2)
def _epoch_slices(order: Order, epoch: int) -> Rows:
    size = order.rows_per_slice
    pairs = [
        (bucket, j)
        for bucket, rows in enumerate(order.bucket_rows)
        for j in range(epoch * rows // size, (epoch + 1) * rows // size)
    ]
    shuffled = np.random.default_rng((order.seed, 1, epoch)).permutation(len(pairs))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)[shuffled]


@lru_cache(maxsize=4)
def permutation(rows: int, seed: int, bucket: int, epoch: int) -> Rows:
    """Return the order of one pass over a bucket."""
    random = np.random.default_rng((seed, 0, bucket, epoch))
    if rows <= WINDOW_ROWS:
        return random.permutation(rows)
    chunks = random.permutation(-(-rows // CHUNK_ROWS))
    order = (chunks[:, None] * CHUNK_ROWS + np.arange(CHUNK_ROWS)).ravel()
    order = order[order < rows]
    for start in range(0, rows, WINDOW_ROWS):
        random.shuffle(order[start : start + WINDOW_ROWS])
    return order


def slots_per_step(slices: int, world_size: int) -> int:
    """Return V rounded up to a multiple of the world size. Slots from V on are null: rows of weight 0."""
    return -(-slices // world_size) * world_size


def slot_of(step: int, turn: int, rank: int, slices: int, world_size: int) -> int:
    """Return the slot, counted over all steps, that a worker is dealt as its `turn`-th of a step."""
    return step * slots_per_step(slices, world_size) + turn * world_size + rank
