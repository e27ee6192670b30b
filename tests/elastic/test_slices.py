"""The elastic order: exact at any world size, nothing left out, nothing twice."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.elastic import slices
from ssd1b.elastic.slices import Order, permutation, slot_of, slots_per_step

GOLDEN = Path(__file__).parents[1] / "golden" / "sample_order.json"
ORDER = Order(bucket_rows=(50, 23), global_batch=8, slices=4, seed=7)


def global_batch(order: Order, step: int) -> Counter[tuple[int, int, int]]:
    """(bucket, epoch, row) of a step as one worker would see them."""
    found: Counter[tuple[int, int, int]] = Counter()
    for k in range(order.slices):
        one = order.slice_at(step, k)
        found.update((one.bucket, e, r) for e, r in zip(one.epoch_R.tolist(), one.row_R.tolist(), strict=True))
    return found


def dealt(order: Order, step: int, world_size: int) -> Counter[tuple[int, int, int]]:
    """The same, put together from what each worker is dealt; null slots left out."""
    found: Counter[tuple[int, int, int]] = Counter()
    per_step = slots_per_step(order.slices, world_size)
    for rank in range(world_size):
        for turn in range(per_step // world_size):
            at, k = divmod(slot_of(step, turn, rank, order.slices, world_size), per_step)
            assert at == step
            if k < order.slices:
                one = order.slice_at(step, k)
                found.update((one.bucket, e, r) for e, r in zip(one.epoch_R.tolist(), one.row_R.tolist(), strict=True))
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 7])
def test_global_batches_are_the_same_at_any_world_size(world_size: int) -> None:
    for step in range(20):
        assert dealt(ORDER, step, world_size) == global_batch(ORDER, step)


def test_workers_may_come_and_go_between_steps() -> None:
    sizes = [1, 2, 3, 4, 5, 7, 2, 1]
    seen = sum((dealt(ORDER, step, sizes[step % len(sizes)]) for step in range(100)), Counter())
    assert seen == sum((global_batch(ORDER, step) for step in range(100)), Counter())


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    rows_per_slice=st.integers(1, 9),
    slices_=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_pass_takes_every_row_once(rows: list[int], rows_per_slice: int, slices_: int, seed: int) -> None:
    order = Order(bucket_rows=tuple(rows), global_batch=rows_per_slice * slices_, slices=slices_, seed=seed)
    steps = -(-3 * sum(rows) // order.global_batch) + 1
    seen = sum((global_batch(order, step) for step in range(steps)), Counter())
    assert set(seen.values()) == {1}, "a row came twice in one pass"
    for bucket, count in enumerate(rows):
        # a bucket's stream is taken without holes up to slices that lie in later steps
        epochs = Counter(epoch for b, epoch, _ in seen if b == bucket)
        reach = max(epochs, default=0)
        whole = [epochs[epoch] for epoch in range(reach - rows_per_slice // count - 1)]
        assert whole == [count] * len(whole)


def test_the_first_epoch_leaves_out_less_than_a_slice_of_each_bucket() -> None:
    steps = ORDER.slices_before(1) // ORDER.slices
    seen = sum((global_batch(ORDER, step) for step in range(steps)), Counter())
    for bucket, count in enumerate(ORDER.bucket_rows):
        met = sum(1 for b, epoch, _ in seen if b == bucket and epoch == 0)
        assert count - ORDER.rows_per_slice * ORDER.slices < met <= count


def test_epochs_are_shuffled_anew_and_seeds_differ() -> None:
    assert not np.array_equal(permutation(50, 7, 0, 0), permutation(50, 7, 0, 1))
    assert not np.array_equal(permutation(50, 7, 0, 0), permutation(50, 8, 0, 0))
    assert not np.array_equal(permutation(50, 7, 0, 0), permutation(50, 7, 1, 0))


def test_a_large_corpus_is_permuted_near_its_storage_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "WINDOW_ROWS", 1024)
    permutation.cache_clear()
    order = permutation(10_000, 1, 0, 0)
    permutation.cache_clear()
    assert np.array_equal(np.sort(order), np.arange(10_000))
    window = order[:1024]
    assert len(np.unique(window // slices.CHUNK_ROWS)) <= 1024 // slices.CHUNK_ROWS + 1
    assert not np.array_equal(window, np.sort(window))


def test_order_does_not_drift() -> None:
    """Changing the order changes every run: the golden file must change in the same commit, on purpose."""
    found = [
        {"step": step, "k": k, "bucket": one.bucket, "epoch": one.epoch_R.tolist(), "row": one.row_R.tolist()}
        for step in (0, 1, 9, 40)
        for k in range(ORDER.slices)
        for one in [ORDER.slice_at(step, k)]
    ]
    assert found == json.loads(GOLDEN.read_text())


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(ValueError, match="32 rows does not divide into 5 slices"):
        Order(bucket_rows=(10,), global_batch=32, slices=5, seed=0)
    with pytest.raises(ValueError, match="no rows"):
        Order(bucket_rows=(), global_batch=32, slices=4, seed=0)
