"""The elastic order: which rows make up slice k of a step, whatever the number of workers.

A global batch is V slices of R rows. Slice k of a step is a pure function of (seed, step, k); workers are dealt
slices round robin, so the same rows meet in the same step at any world size. All that must be kept to resume is the
seed and the step. Pure numpy, so that the rule can be tested without a cluster.

Three rules make the order, each in a file of its own: `mixture` says which corpus a slice is taken from, `epochs` which
bucket of the corpus and which piece of its stream, `passes` which rows stand there.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from ssd1b.elastic.epochs import Corpus, Slice
from ssd1b.elastic.mixture import Share, turn_of, whole_weights
from ssd1b.elastic.passes import Dice

# R rows of a slice, V slices of a step


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of one corpus or several: `bucket_rows[b]` rows in bucket b, in global batches of `slices` slices."""

    bucket_rows: tuple[int, ...]
    global_batch: int
    slices: int
    seed: int
    mixture: tuple[Share, ...] = ()
    """The corpora, where there are several; between them they hold all buckets."""

    def __post_init__(self) -> None:
        if self.slices < 1 or self.global_batch < 1 or self.global_batch % self.slices:
            raise ValueError(
                f"a global batch of {self.global_batch} rows does not divide into {self.slices} slices: "
                "choose slices that divide it"
            )
        assert sum(share.buckets for share in self.mixture) in (0, len(self.bucket_rows)), self.mixture
        if any(sum(corpus.bucket_rows) < 1 for corpus in self.corpora):
            raise ValueError("the corpus has no rows to put in order")
        assert not self.mixture or self.weights

    @property
    def rows_per_slice(self) -> int:
        """R."""
        return self.global_batch // self.slices

    @cached_property
    def corpora(self) -> tuple[Corpus, ...]:
        """The order of each corpus."""
        found, first = [], 0
        for number, buckets in enumerate([share.buckets for share in self.mixture] or [len(self.bucket_rows)]):
            rows = self.bucket_rows[first : first + buckets]
            found.append(Corpus(rows, self.rows_per_slice, Dice(self.seed, number)))
            first += buckets
        return tuple(found)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The corpora's parts of the slices, in lowest terms."""
        return whole_weights([share.weight for share in self.mixture]) if self.mixture else (1,)

    def slice_at(self, step: int, k: int) -> Slice:
        """Return slice k (0 to V-1) of a step, counted from 0."""
        assert step >= 0, step
        assert 0 <= k < self.slices, k
        corpus, index = turn_of(self.weights, self.seed, step * self.slices + k)
        one = self.corpora[corpus].slice_at(index)
        return replace(one, bucket=one.bucket + sum(share.buckets for share in self.mixture[:corpus]))

    def slices_before(self, epoch: int, corpus: int = 0) -> int:
        """Return how many slices of a corpus come before an epoch of its own."""
        return self.corpora[corpus].slices_before(epoch)


def slots_per_step(slices: int, world_size: int) -> int:
    """Return V rounded up to a multiple of the world size. Slots from V on are null: rows of weight 0."""
    return -(-slices // world_size) * world_size


def slot_of(step: int, turn: int, rank: int, slices: int, world_size: int) -> int:
    """Return the slot, counted over all steps, that a worker is dealt as its `turn`-th of a step."""
    return step * slots_per_step(slices, world_size) + turn * world_size + rank


def place_of(slot: int, slices: int, world_size: int) -> tuple[int, int | None]:
    """Return the step of a slot and which slice of the step it holds; None: it is null."""
    step, k = divmod(slot, slots_per_step(slices, world_size))
    return step, k if k < slices else None
