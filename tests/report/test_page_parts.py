"""What a page is made of, by itself: which prompts, which words, where bars and curves fall."""

import math
from itertools import pairwise

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.report import document, limits, verdict, words
from ssd1b.report.bars import EDGE, WIDTH, Scale
from ssd1b.report.choice import BEST, FURTHEST, LOWEST, REST, SHEET, choose, evenly
from ssd1b.report.curves import Curve, Point
from ssd1b.report.document import Gap, Number
from ssd1b.report.plots import HEIGHT, nice, plot
from ssd1b.report.plots import WIDTH as PLOT_WIDTH


@given(count=st.integers(2, 400))
def test_the_worst_stand_first_and_have_pictures(count: int) -> None:
    prompts = document.parse(evaluation(count)).prompts
    choice = choose(prompts)
    gained = [prompts[i].gained for i in choice.ordered]
    assert gained == sorted(gained, key=float)
    assert sorted(choice.ordered) == list(range(count)), "probes are no prompts of their own"
    assert {*choice.ordered[:LOWEST], *choice.ordered[-1:]} <= choice.pictured
    furthest = max(range(count), key=lambda i: prompts[i].distance or 0)
    assert furthest in choice.pictured
    assert len(choice.pictured) <= LOWEST + FURTHEST + BEST + REST
    assert len(choice.sheet) == min(count, SHEET)
    assert choice.probes == ((count, 0),)
    assert choice.unseen == count - len(choice.pictured | set(choice.sheet))


def test_of_equal_losses_the_pair_that_is_further_apart_comes_first_and_the_unscored_last() -> None:
    told = evaluation(4)
    for each, score, distance in zip(told["prompts"], (0.2, 0.2, None, 0.1), (0.3, 0.9, 0.99, 0.1), strict=False):
        each |= {"score_teacher": 0.5, "score_student": score, "distance": distance}
    assert choose(document.parse(told).prompts).ordered == (3, 1, 0, 2)


@given(total=st.integers(0, 500), count=st.integers(1, 60))
def test_an_even_sample_is_even(total: int, count: int) -> None:
    found = evenly(range(total), count)
    assert len(found) == min(total, count)
    gaps = {b - a for a, b in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.4, "0.400"), (72.0, "72"), (0, "0"), (5000, "5,000"), (1380.49, "1,380"), (-0.25, "\u22120.250"),
     (3e-8, "\u2248 0"), (None, "not measured"), (848.4, "848"), (999.7, "1,000")],
)  # fmt: skip
def test_numbers_are_told_with_three_digits(value: float | None, told: str) -> None:
    assert words.number(value) == told


@pytest.mark.parametrize(
    ("value", "told"), [(0.943, "94 %"), (0.071, "7.1 %"), (0, "0 %"), (1.2, "120 %"), (None, "not measured"),
                        (-0.0001, "0 %"), (-0.2, "\u221220 %")],
)  # fmt: skip
def test_shares_are_told_in_percent(value: float | None, told: str) -> None:
    assert words.percent(value).replace(words.BOUND, " ") == told


@given(value=st.floats(-10, 10), low=st.floats(-10, 10), high=st.floats(-10, 10))
def test_bars_stay_in_their_drawing_and_in_order(value: float, low: float, high: float) -> None:
    low, value, high = sorted((low, value, high))
    bar = Scale.of([Number(value=value, low=low, high=high)], 0).bar(Number(value=value, low=low, high=high))
    assert bar is not None
    assert EDGE <= bar.low <= bar.x <= bar.high <= WIDTH - EDGE


def test_what_was_not_measured_has_no_bar() -> None:
    assert Scale.of([]).bar(Number(value=None)) is None
    assert Scale.of([Number(value=None)]).bar(None) is None


@given(values=st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), max_size=600))
def test_a_curve_of_any_values_stays_in_its_drawing(values: list[float]) -> None:
    drawn = plot("stage", [Curve(name="loss", points=tuple(Point(step=i, value=v) for i, v in enumerate(values)))])
    if drawn is None:
        assert not any(map(math.isfinite, values))
        return
    for pair in drawn.lines[0].points.split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= PLOT_WIDTH
        assert 0 <= y <= HEIGHT


def test_losses_over_powers_of_ten_are_drawn_on_a_logarithmic_axis() -> None:
    drawn = plot("s", [Curve(name="loss", points=tuple(Point(step=i, value=10.0**-i) for i in range(4)))])
    assert drawn is not None
    assert drawn.logarithmic
    assert [tick.label for tick in drawn.up] == ["0.00100", "0.0100", "0.100", "1"]


@given(low=st.floats(-1e5, 1e5), span=st.floats(1e-3, 1e5))
def test_ticks_hold_what_they_are_for(low: float, span: float) -> None:
    found = nice(low, low + span)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= low + span - 1e-6 * step
    assert 2 <= len(found) <= 8


def test_a_gap_that_chance_explains_is_told_as_that() -> None:
    gap = Gap(of="student", best="food", worst="animal", gap=Number(value=0.1, low=0.05, high=0.2, count=40),
              by_chance=0.09, p_value=0.4)  # fmt: skip
    assert "do not tell it from chance" in limits.gap(gap)
    rare = Gap(of="student", best="food", worst="animal", gap=Number(value=0.3), by_chance=0.09, p_value=0.001)
    assert "from chance" not in limits.gap(rare)
    assert "0.00100 only" in limits.gap(rare)


def test_a_drop_in_variety_is_told_only_where_the_interval_says_so() -> None:
    told = evaluation()
    assert "does not tell the two models apart" in limits.variety(document.parse(told))
    told["numbers"]["variety_ratio_high"] = 0.99
    assert "resemble one another more" in limits.variety(document.parse(told))


def test_a_teacher_near_chance_leaves_the_verdict_honest() -> None:
    told = evaluation()
    told["numbers"] |= {"score_kept": None, "score_kept_low": None, "score_kept_high": None}
    read = document.parse(told)
    said = verdict.line(read, verdict.gates_of(read))
    assert said.startswith("How much it keeps of the image-text score of nano+poster could not be measured")
    assert "gates fail: score_kept and score_kept_low." in said
