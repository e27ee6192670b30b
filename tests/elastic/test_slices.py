"""The order's parts one by one: golden, whole passes, epochs, large buckets, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssd1b.elastic import passes
from ssd1b.elastic.mixture import Share
from ssd1b.elastic.passes import Dice, permutation, rows_at
from ssd1b.elastic.slices import Order
from tests.elastic import oracle
from tests.elastic.oracle import TINY

GOLDEN = Path(__file__).parents[1] / "golden"
ORDER = Order(bucket_rows=(50, 23), global_batch=8, slices=4, seed=7)


def told(order: Order, steps: tuple[int, ...] = (0, 1, 9, 40)) -> list[dict[str, object]]:
    return [
        {"step": step, "k": k, "bucket": one.bucket, "epoch": one.epoch_R.tolist(), "row": one.row_R.tolist()}
        for step in steps
        for k in range(order.slices)
        for one in [order.slice_at(step, k)]
    ]


@pytest.mark.parametrize("mixture", [(), (Share(1, 2),), (Share(5, 2),)])
def test_order_does_not_drift(mixture: tuple[Share, ...]) -> None:
    """Changing the order changes every run: the golden file must change in the same commit, on purpose."""
    order = Order(bucket_rows=(50, 23), global_batch=8, slices=4, seed=7, mixture=mixture)
    assert told(order) == json.loads((GOLDEN / "sample_order.json").read_text())


def test_the_order_of_large_and_mixed_corpora_does_not_drift() -> None:
    order = Order(
        bucket_rows=(70_001, 400, 90_000), global_batch=8, slices=4, seed=7, mixture=(Share(3, 2), Share(2, 1))
    )
    assert told(order, (0, 9, 14_583, 200_000)) == json.loads((GOLDEN / "sample_order_mixed.json").read_text())


def test_the_first_epoch_leaves_out_less_than_a_slice_of_each_bucket() -> None:
    steps = ORDER.slices_before(1) // ORDER.slices
    met: Counter[int] = Counter()
    for step in range(steps):
        for k in range(ORDER.slices):
            one = ORDER.slice_at(step, k)
            met[one.bucket] += int((one.epoch_R == 0).sum())
    for bucket, count in enumerate(ORDER.bucket_rows):
        assert count - ORDER.rows_per_slice * ORDER.slices < met[bucket] <= count


def test_passes_buckets_seeds_and_corpora_have_orders_of_their_own() -> None:
    orders = [permutation(50, Dice(*who), *which) for who in ((7,), (8,), (7, 1)) for which in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order.tolist()) for order in orders}) == 9


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 16, 17, 25, 31, 32, 64, 65, 100])
def test_a_large_bucket_is_permuted_by_chunks(rows: int) -> None:
    with oracle.at(TINY):
        for epoch in range(5):
            order = rows_at(Dice(1), 0, rows, epoch, np.arange(rows))
            assert np.array_equal(np.sort(order), np.arange(rows))
            for start in range(0, rows - TINY.run, TINY.run):
                run = order[start : start + TINY.run]
                assert len(np.unique(run // TINY.chunk)) <= TINY.run // TINY.chunk + 1
                assert not np.array_equal(run, np.sort(run))


def test_what_is_kept_in_memory_of_a_large_bucket_is_8_bytes_a_chunk() -> None:
    chunks, _ = passes.chunk_order(1_000_000, Dice(1), 0, 0)
    assert chunks.nbytes == 8 * -(-1_000_000 // passes.CHUNK_ROWS)
    passes.chunk_order.cache_clear()


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(ValueError, match="32 rows does not divide into 5 slices"):
        Order(bucket_rows=(10,), global_batch=32, slices=5, seed=0)
    with pytest.raises(ValueError, match="0 rows does not divide into 1 slices"):
        Order(bucket_rows=(10,), global_batch=0, slices=1, seed=0)
    with pytest.raises(ValueError, match="no rows"):
        Order(bucket_rows=(), global_batch=32, slices=4, seed=0)
    with pytest.raises(ValueError, match="no rows"):
        Order(bucket_rows=(5, 0), global_batch=32, slices=4, seed=0, mixture=(Share(1, 1), Share(1, 1)))
