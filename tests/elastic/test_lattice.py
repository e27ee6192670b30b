"""The promise over a lattice: any corpora, any weights, any batch, any world sizes, any stops, any resizes."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssd1b.elastic.mixture import Share
from ssd1b.elastic.slices import Order, place_of, slot_of, slots_per_step
from tests.elastic import oracle
from tests.elastic.oracle import TINY, Scale

WORLD_SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 12, 16)
Pass = tuple[int, int, int]
"""(bucket, epoch, row): what a pass meets once."""


@dataclass(frozen=True)
class Case:
    corpora: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]
    size: int
    slices: int
    seed: int
    scale: Scale

    def order(self) -> Order:
        shares = tuple(Share(w, len(rows)) for w, rows in zip(self.weights, self.corpora, strict=True))
        return Order(
            bucket_rows=tuple(itertools.chain(*self.corpora)),
            global_batch=self.size * self.slices,
            slices=self.slices,
            seed=self.seed,
            mixture=shares if len(shares) > 1 else (),
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = st.one_of(st.integers(1, 6), st.integers(1, 150))
    corpora = draw(st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=4))
    weights = draw(st.lists(st.integers(1, 7), min_size=len(corpora), max_size=len(corpora)))
    return Case(
        corpora=tuple(map(tuple, corpora)),
        weights=tuple(weight // math.gcd(*weights) for weight in weights),
        size=draw(st.integers(1, 20)),
        slices=draw(st.integers(1, 12)),
        seed=draw(st.integers(0, 2**70)),
        scale=draw(st.sampled_from([Scale(), TINY])),
    )


def passes_of(order: Order, step: int, k: int) -> list[Pass]:
    one = order.slice_at(step, k)
    assert len(one.row_R) == order.rows_per_slice
    return [(one.bucket, e, r) for e, r in zip(one.epoch_R.tolist(), one.row_R.tolist(), strict=True)]


def global_batch(order: Order, step: int) -> Counter[Pass]:
    return Counter(itertools.chain(*(passes_of(order, step, k) for k in range(order.slices))))


def deal(order: Order, first_step: int, steps: int, world_size: int) -> list[list[tuple[int, int | None]]]:
    """What an order-preserving split hands each worker: block i of the slots to come goes to worker i mod n."""
    per_step = slots_per_step(order.slices, world_size)
    hands: list[list[tuple[int, int | None]]] = [[] for _ in range(world_size)]
    for i in range(steps * per_step):
        hands[i % world_size].append(place_of(i + first_step * per_step, order.slices, world_size))
    return hands


@settings(max_examples=80, deadline=None)
@given(case=cases(), steps=st.integers(1, 25))
def test_the_order_is_the_oracles(case: Case, steps: int) -> None:
    expected = oracle.order(case.corpora, case.weights, case.size, case.seed, case.scale)
    with oracle.at(case.scale):
        order = case.order()
        for step, k in itertools.product(range(steps), range(case.slices)):
            bucket, taken = next(expected)
            assert passes_of(order, step, k) == [(bucket, epoch, row) for epoch, row in taken]


@settings(max_examples=40, deadline=None)
@given(case=cases(), position=st.integers(0, 10**9), shuffle=st.randoms(use_true_random=False))
def test_a_slice_is_the_same_however_one_comes_to_it(case: Case, position: int, shuffle: object) -> None:
    """Cold or warm, near or far, forwards or backwards."""
    with oracle.at(case.scale):
        order = case.order()
        places = [divmod(position + i, case.slices) for i in range(12)]
        forwards = {place: passes_of(order, *place) for place in places}
    with oracle.at(case.scale):
        shuffle.shuffle(places)  # type: ignore[attr-defined]
        order = case.order()
        assert {place: passes_of(order, *place) for place in places} == forwards


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_pass_takes_every_row_once_and_misses_none(case: Case) -> None:
    with oracle.at(case.scale):
        order = case.order()
        # a slice may hold several passes over a tiny bucket: go on until each has completed one
        slices = max(
            sum(case.weights) * (-(-order.slices_before(1 + -(-case.size // min(rows)), number) // weight) + 1)
            for number, (rows, weight) in enumerate(zip(case.corpora, case.weights, strict=True))
        )
        assume(slices * case.size < 6_000)
        steps = -(-slices // case.slices)
        seen = sum((global_batch(order, step) for step in range(steps)), Counter[Pass]())
    assert set(seen.values()) == {1}, "a row came twice in one pass"
    for bucket, rows in enumerate(order.bucket_rows):
        met = {row for b, epoch, row in seen if b == bucket and epoch == 0}
        assert met == set(range(rows)), "the first pass has left rows out"


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@settings(max_examples=15, deadline=None)
@given(case=cases(), first=st.integers(0, 10**6))
def test_any_world_size_meets_the_same_global_batches(world_size: int, case: Case, first: int) -> None:
    with oracle.at(case.scale):
        order = case.order()
        hands = deal(order, first, 3, world_size)
        assert len({len(hand) for hand in hands}) == 1, "workers must take equally many turns"
        turns = len(hands[0]) // 3
        for step in range(first, first + 3):
            met = Counter[Pass]()
            for rank, hand in enumerate(hands):
                for turn, (at, k) in enumerate(hand[(step - first) * turns : (step - first + 1) * turns]):
                    assert at == step
                    slot = slot_of(step, turn, rank, order.slices, world_size)
                    assert place_of(slot, order.slices, world_size) == (at, k)
                    met.update(passes_of(order, at, k) if k is not None else [])
            assert met == global_batch(order, step)


@settings(max_examples=40, deadline=None)
@given(
    slices=st.integers(1, 40),
    world_size=st.sampled_from(WORLD_SIZES),
    first=st.integers(0, 50),
    steps=st.integers(1, 10),
)
def test_resuming_is_never_having_stopped(slices: int, world_size: int, first: int, steps: int) -> None:
    order = Order(bucket_rows=(7,), global_batch=slices, slices=slices, seed=0)
    without = deal(order, 0, first + steps, world_size)
    resumed = deal(order, first, steps, world_size)
    turns = slots_per_step(slices, world_size) // world_size
    assert resumed == [hand[first * turns :] for hand in without]


@settings(max_examples=40, deadline=None)
@given(
    case=cases(),
    attempts=st.lists(
        st.tuples(st.sampled_from(WORLD_SIZES), st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=8
    ),
)
def test_a_run_that_is_resized_and_killed_at_random_takes_what_one_worker_would(
    case: Case, attempts: list[tuple[int, int, int]]
) -> None:
    """Each attempt has a world size, takes some steps, and loses the last of them: no checkpoint holds those."""
    with oracle.at(case.scale):
        order = case.order()
        counted = Counter[Pass]()
        step = redone = 0
        for world_size, taken, lost in attempts:
            hands = deal(order, step, taken, world_size)
            lasting = step + max(0, taken - lost)
            for at, k in itertools.chain(*hands):
                if at < lasting and k is not None:
                    counted.update(passes_of(order, at, k))
            redone += taken - (lasting - step)
            step = lasting
        assert counted == sum((global_batch(order, at) for at in range(step)), Counter[Pass]())
        assert set(counted.values()) <= {1}
        assert redone == sum(min(taken, lost) for _, taken, lost in attempts)


@settings(max_examples=60, deadline=None)
@given(case=cases(), start=st.integers(0, 10**7))
def test_every_prefix_has_each_corpus_within_a_slice_of_its_share(case: Case, start: int) -> None:
    with oracle.at(case.scale):
        order = case.order()
        owner = np.repeat(np.arange(len(case.corpora)), [len(rows) for rows in case.corpora])
        total = sum(case.weights)
        # a block begins with nothing owed, so prefixes may be counted from its start
        first = start // total * total
        had = [0] * len(case.weights)
        for n in range(1, min(3 * total, 60) + 1):
            had[owner[order.slice_at(*divmod(first + n - 1, order.slices)).bucket]] += 1
            for count, weight in zip(had, case.weights, strict=True):
                assert abs(count * total - n * weight) < total
