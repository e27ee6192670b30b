"""The policies on paper: the orderings that the defaults rest on, and that the replay itself is sound."""

from dataclasses import replace

import pytest

from serve.steps.scheduler import Limits
from serve.steps.simulator import DUE_FIRST, OLDEST_FIRST, Arrival, Cost, Score, Traffic, by_batches, by_steps, score

COST = Cost()
FULL = 8 / COST.step(8, True) / 20
"""Images a second of full batches, at 20 steps on average."""


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    """At 80 % of what full batches make."""
    trace = Traffic(rate=0.8 * FULL, seconds=240).trace()
    return {
        "one": score(by_batches(trace, COST, rows=1, wait_s=0), COST),
        "batches": score(by_batches(trace, COST), COST),
        "oldest": score(by_steps(trace, COST, OLDEST_FIRST), COST),
        "ours": score(by_steps(trace, COST, DUE_FIRST), COST),
    }


def test_steps_shared_by_strangers_make_more_than_batches_of_equals(scores: dict[str, Score]) -> None:
    ours, batches, one = scores["ours"], scores["batches"], scores["one"]
    assert ours.images_per_s > 1.5 * batches.images_per_s > 1.5 * one.images_per_s
    assert ours.goodput > 1.5 * batches.goodput
    assert ours.goodput > 2 * one.goodput
    assert ours.p50 < batches.p50 / 5


def test_due_first_answers_short_ones_sooner_at_little_cost_to_the_others(scores: dict[str, Score]) -> None:
    ours, oldest = scores["ours"], scores["oldest"]
    assert ours.goodput > 1.05 * oldest.goodput
    assert ours.p99_short < 0.8 * oldest.p99_short
    assert ours.p99 < 1.3 * oldest.p99
    assert ours.images_per_s > 0.98 * oldest.images_per_s


def test_a_rare_size_does_not_starve_in_a_flood_of_another() -> None:
    """More comes than can be drawn, forever of one size; the other's only request is answered all the same."""
    flood = [Arrival(at=0.01 * n, steps=20) for n in range(2000)]
    rare = Arrival(at=5.0, steps=20, group="odd", priority="batch")
    trace = sorted([*flood, rare], key=lambda arrival: arrival.at)
    limits = Limits(rows=8, batch_delay=10**6, patience=32)
    done = by_steps(trace, COST, replace(DUE_FIRST, limits=limits, ahead=1000))
    (fate,) = [one for one in done if one.arrival.group == "odd"]
    assert fate.gap <= 34 * COST.step(8, False) + 0.1
    starved = replace(limits, patience=10**9)
    (worse,) = [
        one for one in by_steps(trace, COST, replace(DUE_FIRST, limits=starved, ahead=1000))
        if one.arrival.group == "odd"
    ]  # fmt: skip
    assert worse.gap > 10 * fate.gap  # without patience it waits until the flood is over


def test_a_rare_adapter_does_not_starve_among_popular_ones() -> None:
    popular = [Arrival(at=0.05 * n, steps=20, adapter=f"lora-{n % 8}") for n in range(1200)]
    rare = Arrival(at=5.0, steps=20, adapter="rare")
    trace = sorted([*popular, rare], key=lambda arrival: arrival.at)
    done = by_steps(trace, COST, DUE_FIRST)
    (fate,) = [one for one in done if one.arrival.adapter == "rare"]
    latencies = sorted(one.latency for one in done if one.arrival.adapter != "rare" and abs(one.arrival.at - 5) < 2)
    assert fate.latency < latencies[-1] + 30


def test_batch_work_takes_what_interactive_work_leaves() -> None:
    done = by_steps(Traffic(rate=0.9 * FULL, slow=0.3).trace(), COST, DUE_FIRST)
    of = {kind: [one for one in done if one.arrival.priority == kind] for kind in ("interactive", "batch")}
    assert score(of["interactive"], COST).p50 < score(of["batch"], COST).p50
    assert score(of["interactive"], COST).p99 < score(of["batch"], COST).p99 / 2


def test_a_batch_is_not_padded_for_one_row_more() -> None:
    """Bursts of five for an engine of 1, 2, 4 and 8 rows whose padding costs all it can; fours were seen before."""
    padding = Cost(step_s=0.0, row_s=0.01, buckets=(1, 2, 4, 8))
    bursts = [(0.0, 4)] + [(5.0 * n, 5) for n in range(1, 20)]
    trace = [Arrival(at=at, steps=50) for at, rows in bursts for _ in range(rows)]
    paced, plain = (
        score(by_steps(trace, padding, replace(DUE_FIRST, paced=paced)), padding) for paced in (True, False)
    )
    assert paced.p50 < 0.6 * plain.p50
    assert paced.p99 < 0.8 * plain.p99


def test_a_replay_answers_everybody_and_is_always_the_same() -> None:
    trace = Traffic(rate=3, seconds=60, slow=0.2).trace()
    for run in (lambda: by_steps(trace, COST, DUE_FIRST), lambda: by_batches(trace, COST)):
        done = run()
        assert sorted(one.arrival.at for one in done) == [arrival.at for arrival in trace]
        assert all(one.latency >= one.arrival.steps * COST.step(1, False) * 0.999 for one in done)
        assert done == run()


def test_an_idle_engine_takes_what_the_steps_take() -> None:
    (alone,) = by_steps([Arrival(at=3.0, steps=10)], COST, DUE_FIRST)
    assert alone.latency == pytest.approx(10 * COST.step(1, False))
    (worn,) = by_steps([Arrival(at=3.0, steps=10, adapter="ink")], COST, DUE_FIRST)
    assert worn.latency == pytest.approx(COST.swap_s + 10 * COST.step(1, True))
