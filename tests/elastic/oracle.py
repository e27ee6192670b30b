"""The elastic order once more, the long way: streams, epochs and mixtures as whole lists, nothing computed by position.

Written from the rules and not from the code: it knows the numbers of the dice, and nothing else of `ssd1b.elastic`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from ssd1b.elastic import epochs, mixture, passes

Taken = tuple[int, list[tuple[int, int]]]
"""A slice: its bucket, and (epoch, row) of its rows."""


@dataclass(frozen=True)
class Scale:
    """The sizes that decide between the rule of small corpora and that of large ones."""

    window: int = 1 << 16
    chunk: int = 64
    run: int = 256


TINY = Scale(window=24, chunk=4, run=16)


@contextmanager
def at(scale: Scale) -> Iterator[None]:
    """Make the code see large corpora in small ones."""
    caches = (passes.permutation, passes.chunk_order, epochs.shuffled_slices, epochs.shuffled_runs, mixture.turns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epochs, "WINDOW_ROWS", scale.window)
        patch.setattr(epochs, "RUN_ROWS", scale.run)
        patch.setattr(passes, "RUN_ROWS", scale.run)
        patch.setattr(passes, "CHUNK_ROWS", scale.chunk)
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()


def dice(seed: int, corpus: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, *purpose) if corpus == 0 else (seed, *purpose, corpus))


def one_pass(rows: int, seed: int, corpus: int, bucket: int, epoch: int, scale: Scale, small: bool) -> list[int]:
    if small:
        return dice(seed, corpus, 0, bucket, epoch).permutation(rows).tolist()
    everything = list(range(rows))
    chunks = [everything[i : i + scale.chunk] for i in range(0, rows, scale.chunk)]
    near = [row for c in dice(seed, corpus, 2, bucket, epoch).permutation(len(chunks)) for row in chunks[c]]
    out: list[int] = []
    for number, start in enumerate(range(0, rows, scale.run)):
        run = near[start : start + scale.run]
        out += [run[i] for i in dice(seed, corpus, 3, bucket, epoch, number).permutation(len(run))]
    return out


def corpus_slices(bucket_rows: Sequence[int], size: int, seed: int, corpus: int, scale: Scale) -> Iterator[Taken]:
    """Yield the slices of one corpus for ever."""
    left: list[list[tuple[int, int]]] = [[] for _ in bucket_rows]
    epoch = 0
    small = all(rows <= scale.window for rows in bucket_rows)
    while True:
        complete: list[list[Taken]] = []
        for bucket, rows in enumerate(bucket_rows):
            left[bucket] += [(epoch, row) for row in one_pass(rows, seed, corpus, bucket, epoch, scale, small)]
            whole = []
            while len(left[bucket]) >= size:
                whole.append((bucket, left[bucket][:size]))
                del left[bucket][:size]
            complete.append(whole)
        if small:
            flat = [one for whole in complete for one in whole]
            yield from (flat[i] for i in dice(seed, corpus, 1, epoch).permutation(len(flat)))
        else:
            yield from large_epoch(complete, max(1, scale.run // size), seed, corpus, epoch)
        epoch += 1


def large_epoch(complete: list[list[Taken]], length: int, seed: int, corpus: int, epoch: int) -> Iterator[Taken]:
    runs = [deque(whole[i : i + length] for i in range(0, len(whole), length)) for whole in complete]
    names = [bucket for bucket, waiting in enumerate(runs) for _ in waiting]
    ordered = [runs[name].popleft() for name in dice(seed, corpus, 4, epoch).permutation(np.array(names, int))]
    for first in range(0, len(ordered), 4):
        block = [one for run in ordered[first : first + 4] for one in run]
        yield from (block[i] for i in dice(seed, corpus, 5, epoch, first).permutation(len(block)))


def turns(weights: Sequence[int], seed: int) -> Iterator[int]:
    """Yield whose turn it is for ever, by looking at all corpora at every place. The weights are in lowest terms."""
    total = sum(weights)
    block = 0
    while True:
        random = dice(seed, 0, 6, block)
        had = [0] * len(weights)
        die: dict[int, list[float]] = {c: [] for c in range(len(weights))}
        for place in range(total):
            for c, weight in enumerate(weights):
                while len(die[c]) < weight and Fraction(len(die[c]) * total, weight) < place + 1:
                    die[c].append(float(random.random()))
            able = [c for c in range(len(weights)) if had[c] < len(die[c])]
            due = {c: -(-(had[c] + 1) * total // weights[c]) for c in able}
            chosen = min(able, key=lambda c: (due[c], die[c][had[c]]))
            had[chosen] += 1
            yield chosen
        block += 1


def order(
    corpora: Sequence[Sequence[int]], weights: Sequence[int], size: int, seed: int, scale: Scale = Scale()
) -> Iterator[Taken]:
    """Yield all slices of a mixture for ever; buckets are counted over all corpora."""
    streams = [corpus_slices(rows, size, seed, number, scale) for number, rows in enumerate(corpora)]
    first = [sum(len(rows) for rows in corpora[:number]) for number in range(len(corpora))]
    for corpus in turns(weights, seed):
        bucket, taken = next(streams[corpus])
        yield first[corpus] + bucket, taken
