"""The rows that stand for those that the metadata path leaves out: few of each reason, named as jobs.ingest names them.

Which rows they are depends on their numbers in the corpus only, by a hash of them, so that the sample is an even one
and the same in every run. Only rows that get into it are looked at one by one; there the row's own rule is asked again,
so that a rule of batches that went another way would be noticed.
"""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssd1b.corpus.columns import CODE, REASONS, Codes
from ssd1b.corpus.filters import refused
from ssd1b.corpus.layouts import LAYOUTS
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.samples import PER_REASON, Row, Samples
from ssd1b.corpus.tables import pair_of
from ssd1b.recipes.ingest import Ingest

# B rows of a batch, K codes

TWICE = (Reason.DUPLICATE_KEY, Reason.DUPLICATE_URL)
Ranks = NDArray[np.uint64]


class Rejected:
    """Puts rejected rows into a sample: of each reason the PER_REASON of smallest rank."""

    def __init__(self, config: Ingest, samples: Samples) -> None:
        self.config = config
        self.samples = samples
        self.limit_K: Ranks = np.full(len(REASONS) + 1, np.iinfo(np.uint64).max, np.uint64)
        """A row of a code is of interest if its rank is below."""

    def name(self, batch: pa.RecordBatch, code_B: Codes, first: int) -> None:
        """Take in a batch whose first row has this number in the corpus; 0 is the code of a row that is in."""
        rank_B = ranks(first, len(code_B))
        chosen: list[int] = []
        for code in np.unique(code_B).tolist():
            if code == 0 or code >= len(REASONS):
                continue
            rows = np.flatnonzero((code_B == code) & (rank_B < self.limit_K[code]))
            if len(rows) > PER_REASON:
                rows = rows[np.argpartition(rank_B[rows], PER_REASON)[:PER_REASON]]
            chosen += rows.tolist()
        if not chosen:
            return
        plain = [name for name in batch.schema.names if not pa.types.is_nested(batch.schema.field(name).type)]
        found = batch.select(plain).take(pa.array(chosen)).to_pylist()
        named: list[Row] = []
        for i, row in zip(chosen, found, strict=True):
            reject = self.told(row, REASONS[code_B[i]])
            named.append({**asdict(reject), "rank": int(rank_B[i]), "picture": None})
        self.samples.merge(named)
        for reason, kept in self.samples.found.items():
            if len(kept) == PER_REASON:
                self.limit_K[CODE[Reason(reason)]] = kept[-1]["rank"]

    def told(self, row: Row, reason: Reason | None) -> Reject:
        """Return a row as a Reject, with the detail that jobs.ingest would give."""
        pair = pair_of(row, self.config.name, 0, LAYOUTS[self.config.source])
        if reason in TWICE:
            assert reason is not None
            assert not isinstance(pair, Reject)
            return Reject(reason=reason, source=pair.source, key=pair.key, detail=str(pair.url))
        found = pair if isinstance(pair, Reject) else refused(pair, self.config)
        assert found is not None, f"{row} is out by {reason} in a batch, but not alone"
        assert found.reason is reason, f"{row} is out by {reason} in a batch, and by {found.reason} alone"
        return found


def ranks(first: int, count: int) -> Ranks:
    """Return hashes of the numbers from `first` on, shape (count,).

    SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): a bijection, so that no two
    rows have one rank.
    """
    with np.errstate(over="ignore"):
        hash_B = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        hash_B = (hash_B ^ (hash_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hash_B = (hash_B ^ (hash_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Ranks = hash_B ^ (hash_B >> np.uint64(31))
    return mixed
