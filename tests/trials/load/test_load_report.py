"""A report says of planted answers what they are: percentiles, goodput, and no failure that is hidden."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.trials.load.report import Answer, percentile, rate_within, report, rows
from ssd1b.trials.recovery import table


def made(planned_s: float, latency_s: float, late_s: float = 0.0, steps: int = 20) -> Answer:
    sent_s, answered_s = planned_s + late_s, planned_s + latency_s
    return Answer(planned_s=planned_s, sent_s=sent_s, answered_s=answered_s, status=200, bytes=9, steps=steps)


def test_a_server_that_keeps_up() -> None:
    told = report([made(i / 10, 0.1 + i / 1000) for i in range(100)], window_s=10, slo_s=0.1505)
    assert (told.sent, told.answered, told.failed) == (100, 100, 0)
    assert told.offered_per_s == 10
    assert told.throughput_per_s == pytest.approx(100 / (9.9 + 0.199), abs=1e-3)
    assert told.mean_s == pytest.approx(0.1495)
    assert (told.p50_s, told.p90_s, told.p99_s) == (0.149, 0.189, 0.198)
    assert told.attainment == 0.51
    assert told.goodput_per_s == 5.1


def test_latency_counts_from_the_plan_though_the_client_was_late() -> None:
    told = report([made(0, 1.0, late_s=0.9)], window_s=1, slo_s=0.5)
    assert told.p50_s == 1.0
    assert told.late_p99_ms == 900
    assert told.goodput_per_s == 0


def test_what_failed_is_in_every_figure() -> None:
    refused = Answer(planned_s=0, sent_s=0, answered_s=0.001, status=429, error="slow down")
    never = Answer(planned_s=0, sent_s=0, error="no answer in time")
    told = report([made(0, 0.1), refused, never, made(0, 0.2)], window_s=1, slo_s=10)
    assert (told.answered, told.failed) == (2, 2)
    assert told.attainment == 0.5
    assert (told.p50_s, told.p90_s, told.p99_s) == (0.2, None, None)
    assert told.mean_s == pytest.approx(0.15)


def test_nothing_but_failures() -> None:
    told = report([Answer(planned_s=0, sent_s=0, error="refused")], window_s=1, slo_s=1)
    assert (told.throughput_per_s, told.goodput_per_s, told.mean_s, told.p50_s) == (0, 0, None, None)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_least_number_that_covers_its_share(numbers: list[float], percent: float) -> None:
    ordered = sorted(numbers)
    found = percentile(ordered, percent)
    assert found in ordered
    need = percent / 100 * len(ordered)
    assert sum(number <= found for number in ordered) >= need - 1e-9
    assert sum(number < found for number in ordered) < need + 1e-9


@given(
    latencies=st.lists(st.floats(0.01, 30), min_size=1, max_size=40),
    slos=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
)
def test_a_longer_slo_is_never_harder(latencies: list[float], slos: tuple[float, float]) -> None:
    answers = [made(0, latency) for latency in latencies]
    short, long = (report(answers, 10, slo) for slo in sorted(slos))
    assert short.attainment <= long.attainment
    assert long.goodput_per_s <= long.offered_per_s
    assert math.isclose(long.attainment * len(answers), long.goodput_per_s * 10, abs_tol=0.1)


def test_a_rate_counts_what_was_answered_in_between() -> None:
    answers = [made(0, at_s, steps=steps) for at_s, steps in ((1, 8), (3, 20), (5, 30), (5.1, 8))]
    assert rate_within(answers, begin_s=1, end_s=5) == (2 / 4, 50 / 4)


def test_a_table_has_a_line_for_each_contestant() -> None:
    one = report([made(0, 0.1)], 1, 1)
    none = report([Answer(planned_s=0, sent_s=0, error="refused")], 1, 1)
    lines = table(rows({"ours": one, "plain diffusers": none}))
    assert len(lines) == 3
    assert lines[1].startswith("ours ")
    assert " - " in lines[2]
