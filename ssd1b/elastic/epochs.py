"""The order of one corpus: which slice of which bucket is taken next, pass after pass, without end.

Every bucket is one endless stream: pass after pass over its rows, each in a new order. The stream is cut into slices
without regard to where a pass ends, so no row is ever left over, padded or repeated within a pass. Epoch e holds the
slices that the first e + 1 passes complete and the first e do not.

In a small corpus, none of whose buckets has more than 65,536 rows, each pass is shuffled whole, and so are the slices
of an epoch. In a larger one, runs of slices that follow each other in a bucket's stream are shuffled among the buckets,
then the slices within each block of four runs: a reader that follows the order has 16 chunks open at a time, from
whichever buckets.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssd1b.elastic.passes import BLOCK, EPOCH, RUN_ROWS, RUNS, WINDOW_ROWS, Dice, Rows, permutation, rows_at

# R rows of a slice

RUNS_PER_BLOCK = 4


@dataclass(frozen=True)
class Slice:
    """The rows of one slice: all of one bucket."""

    bucket: int
    row_R: Rows
    """Index of each row among the rows of its bucket."""
    epoch_R: Rows
    """The pass over the bucket that the row belongs to; a slice may hold the end of one and the start of the next."""


@dataclass(frozen=True)
class Corpus:
    """The order of one corpus in slices of R rows."""

    bucket_rows: tuple[int, ...]
    rows_per_slice: int
    dice: Dice

    def slice_at(self, index: int) -> Slice:
        """Return a slice by its number among all slices of the corpus, from 0."""
        epoch = self.epoch_of(index)
        bucket, j = self.place(epoch, index - self.slices_before(epoch))
        position_R = np.arange(j * self.rows_per_slice, (j + 1) * self.rows_per_slice, dtype=np.int64)
        epoch_R, within_R = np.divmod(position_R, self.bucket_rows[bucket])
        row_R = np.empty_like(within_R)
        for one in np.unique(epoch_R).tolist():
            chosen = epoch_R == one
            if self.small:
                row_R[chosen] = permutation(self.bucket_rows[bucket], self.dice, bucket, one)[within_R[chosen]]
            else:
                row_R[chosen] = rows_at(self.dice, bucket, self.bucket_rows[bucket], one, within_R[chosen])
        return Slice(bucket, row_R, epoch_R)

    @property
    def small(self) -> bool:
        """Whether the corpus is shuffled whole."""
        return max(self.bucket_rows) <= WINDOW_ROWS

    def slices_before(self, epoch: int) -> int:
        """Return how many slices come before an epoch."""
        return sum(epoch * rows // self.rows_per_slice for rows in self.bucket_rows)

    def epoch_of(self, index: int) -> int:
        """Return the epoch of a slice: slices_before(e) <= index < slices_before(e + 1)."""
        # Each bucket rounds down, so slices_before(e) is at most e * rows / R and the true epoch at least this one.
        epoch = index * self.rows_per_slice // sum(self.bucket_rows)
        while self.slices_before(epoch + 1) <= index:
            epoch += 1
        return epoch

    def place(self, epoch: int, position: int) -> tuple[int, int]:
        """Return the bucket of an epoch's slice and its number in the bucket's stream."""
        if self.small:
            bucket, j = shuffled_slices(self, epoch)[position].tolist()
            return bucket, j
        runs = shuffled_runs(self, epoch)
        first = runs.holding(position) // RUNS_PER_BLOCK * RUNS_PER_BLOCK
        start, end = runs.start[first], runs.start[min(first + RUNS_PER_BLOCK, len(runs.bucket))]
        shuffled = self.dice.roll(BLOCK, epoch, first).permutation(end - start)
        position = int(start + shuffled[position - start])
        run = runs.holding(position)
        return int(runs.bucket[run]), int(runs.j[run] + position - runs.start[run])

    def spans(self, epoch: int) -> list[tuple[int, int]]:
        """Return the slices that an epoch takes of each bucket's stream: the first, and the first that it does not."""
        size = self.rows_per_slice
        return [(epoch * rows // size, (epoch + 1) * rows // size) for rows in self.bucket_rows]


@lru_cache(maxsize=8)
def shuffled_slices(corpus: Corpus, epoch: int) -> Rows:
    """Return (bucket, number in its stream) of an epoch's slices in their order, shape (n, 2); 16 bytes a slice."""
    spans = corpus.spans(epoch)
    bucket = np.repeat(np.arange(len(spans)), [end - first for first, end in spans])
    j = np.concatenate([np.arange(first, end, dtype=np.int64) for first, end in spans])
    shuffled = corpus.dice.roll(EPOCH, epoch).permutation(len(j))
    return np.stack([bucket, j], axis=1)[shuffled]


@dataclass(frozen=True)
class Runs:
    """An epoch of a large corpus: its runs in their order; 24 bytes for about 256 rows."""

    bucket: Rows
    j: Rows
    """Number in the bucket's stream of each run's first slice."""
    start: Rows
    """Position in the epoch of each run's first slice, and last the epoch's length."""

    def holding(self, position: int) -> int:
        """Return the run that a position of the epoch falls into."""
        return int(np.searchsorted(self.start, position, side="right")) - 1


@lru_cache(maxsize=8)
def shuffled_runs(corpus: Corpus, epoch: int) -> Runs:
    """Return the runs of an epoch. Those of one bucket come in the order of its stream."""
    length = max(1, RUN_ROWS // corpus.rows_per_slice)
    spans = corpus.spans(epoch)
    counts = np.array([-(-(end - first) // length) for first, end in spans])
    bucket = corpus.dice.roll(RUNS, epoch).permutation(np.repeat(np.arange(len(spans)), counts))
    by_bucket = np.argsort(bucket, kind="stable")
    turn = np.empty_like(by_bucket)
    turn[by_bucket] = np.arange(len(bucket)) - np.repeat(np.cumsum(counts) - counts, counts)
    first, end = np.array(spans, np.int64).T
    j = first[bucket] + turn * length
    slices = np.minimum(length, end[bucket] - j)
    return Runs(bucket, j, np.concatenate([[0], np.cumsum(slices)]))
