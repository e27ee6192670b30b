"""One pass over a bucket: every row once, in an order of chance that storage can bear.

In a small corpus a bucket is shuffled whole. In a large one it is shuffled twice: its chunks of 64 rows that lie side
by side, then the rows within each run of four chunks. So a row is found without the other fifteen million, from 8 bytes
a chunk, and a reader that follows the pass opens four places at a time instead of one for every row.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# N rows asked for

Rows = NDArray[np.int64]
CHUNK_ROWS = 64
"""Rows that lie side by side in storage and stay together in a large corpus."""
RUN_ROWS = 256
"""Rows of a large corpus, four chunks of one bucket, that are shuffled among themselves."""
WINDOW_ROWS = 1 << 16
"""A corpus is small if none of its buckets is larger than this."""


@dataclass(frozen=True)
class Dice:
    """Whose chance it is: each corpus of a run has its own, and each purpose a number that never changes."""

    seed: int
    corpus: int = 0

    def roll(self, purpose: int, *which: int) -> np.random.Generator:
        """Return the generator of one purpose. Those of corpus 0 are those of a run that has no other."""
        return np.random.default_rng((self.seed, purpose, *which, *([self.corpus] if self.corpus else [])))


WHOLE, EPOCH, CHUNKS, RUN, RUNS, BLOCK, MIXTURE = range(7)
"""The purposes. Their numbers are part of the order: add at the end."""


def rows_at(dice: Dice, bucket: int, bucket_rows: int, epoch: int, position_N: Rows) -> Rows:
    """Return the rows, shape (N,), at these positions (0 to bucket_rows-1) of a pass over a large corpus's bucket."""
    place_N = np.empty_like(position_N)
    run_N = position_N // RUN_ROWS
    for run in np.unique(run_N).tolist():
        start = run * RUN_ROWS
        shuffled = dice.roll(RUN, bucket, epoch, run).permutation(min(RUN_ROWS, bucket_rows - start))
        chosen = run_N == run
        place_N[chosen] = start + shuffled[position_N[chosen] - start]
    chunks, short = chunk_order(bucket_rows, dice, bucket, epoch)
    # The bucket's last chunk may be short: behind it, places are counted as though it were whole.
    absent = len(chunks) * CHUNK_ROWS - bucket_rows
    place_N += absent * (place_N >= (short + 1) * CHUNK_ROWS - absent)
    chunk_N, offset_N = np.divmod(place_N, CHUNK_ROWS)
    found: Rows = chunks[chunk_N] * CHUNK_ROWS + offset_N
    return found


@lru_cache(maxsize=64)
def permutation(bucket_rows: int, dice: Dice, bucket: int, epoch: int) -> Rows:
    """Return the order of a whole pass over a small corpus's bucket: 512 KiB at most."""
    return dice.roll(WHOLE, bucket, epoch).permutation(bucket_rows)


@lru_cache(maxsize=64)
def chunk_order(bucket_rows: int, dice: Dice, bucket: int, epoch: int) -> tuple[Rows, int]:
    """Return the order of a pass's chunks, 8 bytes a chunk, and where in it the bucket's last chunk stands."""
    count = -(-bucket_rows // CHUNK_ROWS)
    order = dice.roll(CHUNKS, bucket, epoch).permutation(count)
    return order, int(np.flatnonzero(order == count - 1)[0])
