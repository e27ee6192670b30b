"""Fifteen million rows: finding any slice, and resuming anywhere, costs neither time nor memory that grows with them.

The figures of the page beside the code come from here: run this file with -rP.
"""

import itertools
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ssd1b.elastic import epochs, mixture, passes
from ssd1b.elastic.mixture import Share
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order
from tests.elastic.test_rows import write_ids

ROWS = 15_000_000
NINE = (4_000_000, 2_500_000, 2_000_000, 1_800_000, 1_500_000, 1_200_000, 1_000_000, 900_000, 100_000)
assert sum(NINE) == ROWS
CORPORA = {
    "nine buckets": Order(bucket_rows=NINE, global_batch=2048, slices=256, seed=1),
    "one bucket, slices of one row": Order(bucket_rows=(ROWS,), global_batch=64, slices=64, seed=1),
    "two corpora, 7 to 3": Order(
        bucket_rows=(*NINE, *NINE), global_batch=2048, slices=256, seed=1, mixture=(Share(7, 9), Share(3, 9))
    ),
}


def forget() -> None:
    for cache in (passes.permutation, passes.chunk_order, epochs.shuffled_slices, epochs.shuffled_runs, mixture.turns):
        cache.cache_clear()


@pytest.mark.parametrize("name", CORPORA)
def test_the_first_step_after_a_restart_is_found_at_once_wherever_it_is(name: str) -> None:
    order = CORPORA[name]
    per_epoch = ROWS // order.global_batch
    seconds = {}
    for step in (0, 1, per_epoch // 2, per_epoch - 1, 3 * per_epoch + 17, 1000 * per_epoch + 5):
        forget()
        started = time.perf_counter()
        for k in range(order.slices):
            order.slice_at(step, k)
        seconds[step] = time.perf_counter() - started
    print(f"{name}: " + ", ".join(f"step {step:,} {taken * 1e3:.0f} ms" for step, taken in seconds.items()))
    assert max(seconds.values()) < 1, "resuming must not wait for the order"


@pytest.mark.parametrize("name", CORPORA)
def test_memory_is_bounded_in_bytes_a_row(name: str) -> None:
    """Two passes and epochs are kept of each corpus at the most, and 8 bytes of every chunk and 24 of every run."""
    order = CORPORA[name]
    rows = sum(order.bucket_rows)
    forget()
    tracemalloc.start()
    for step in (0, rows // order.global_batch - 1, rows // order.global_batch):
        for k in range(min(64, order.slices)):
            order.slice_at(step, k)
    held, peak = (amount / rows for amount in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    forget()
    print(f"{name}: {held:.2f} bytes a row held, {peak:.2f} at the peak")
    assert peak < 1, "15 MB for fifteen million rows is the promise"


def test_slices_follow_each_other_faster_than_64_accelerators_ask_for_them() -> None:
    order = CORPORA["nine buckets"]
    order.slice_at(0, 0)
    places = list(itertools.islice(itertools.product(range(8), range(order.slices)), 2000))
    started = time.perf_counter()
    for step, k in places:
        order.slice_at(step, k)
    rate = len(places) / (time.perf_counter() - started)
    print(f"{rate:,.0f} slices/s, {rate * order.rows_per_slice:,.0f} rows/s on one core; 412 rows/s are asked for")
    assert rate * order.rows_per_slice > 5 * 412


def test_the_middle_of_an_epoch_of_fifteen_million_has_no_row_twice() -> None:
    order = CORPORA["nine buckets"]
    met = set()
    steps = range(3000, 3040)
    for step in steps:
        for k in range(order.slices):
            one = order.slice_at(step, k)
            met.update(zip(itertools.repeat(one.bucket), one.epoch_R.tolist(), one.row_R.tolist()))
    assert len(met) == len(steps) * order.global_batch
    share = np.bincount([bucket for bucket, _, _ in met], minlength=9) / len(met)
    assert np.allclose(share, np.array(NINE) / ROWS, atol=0.06), "a stretch of the epoch has buckets in their shares"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_index_of_a_tenth_of_them_opens_in_seconds(tmp_path: Path) -> None:
    folder = write_ids(tmp_path, {"a": 900_000, "b": 600_000}, file_rows=5_000, group_rows=256)
    started = time.monotonic()
    latents = Latents.open(folder)
    seconds = time.monotonic() - started
    rows = sum(len(bucket.rows) for bucket in latents.buckets)
    started = time.monotonic()
    latents.fingerprint()
    print(f"{rows:,} rows: opened in {seconds:.1f} s, fingerprint in {time.monotonic() - started:.2f} s")
    assert seconds < 30
