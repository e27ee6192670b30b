"""Which evaluations pass."""

import math

import pytest

from ssd1b.evaluation.gates import decide
from ssd1b.recipes.promote import Thresholds

THRESHOLDS = Thresholds(score_kept=0.97, parameters_ratio=0.6, step_speedup=1.3, distance_ratio=0.75)
GOOD = {"score_kept": 0.99, "parameters_ratio": 0.58, "step_speedup": 1.6, "distance_ratio": 0.5}


def test_a_good_student_passes_every_gate() -> None:
    assert all(gate.passes for gate in decide(GOOD, THRESHOLDS))


@pytest.mark.parametrize(
    ("name", "value"),
    [("score_kept", 0.96), ("parameters_ratio", 0.61), ("step_speedup", 1.2), ("distance_ratio", 0.8)],
)
def test_one_bad_number_fails_its_own_gate_only(name: str, value: float) -> None:
    failed = [gate for gate in decide({**GOOD, name: value}, THRESHOLDS) if not gate.passes]
    assert [gate.name for gate in failed] == [name]
    assert f"{name} fails by" in failed[0].message
    assert f"{value:.3g}" in failed[0].message


@pytest.mark.parametrize("name", GOOD)
def test_the_threshold_itself_passes(name: str) -> None:
    edge = {**GOOD, name: getattr(THRESHOLDS, name)}
    assert all(gate.passes for gate in decide(edge, THRESHOLDS))


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("nothing", [math.nan, None])
def test_what_could_not_be_measured_never_passes(name: str, nothing: float | None) -> None:
    (failed,) = [gate for gate in decide({**GOOD, name: nothing}, THRESHOLDS) if not gate.passes]
    assert failed.name == name
    assert "could not be measured" in failed.message


def test_a_message_says_by_how_much_and_shows_the_interval() -> None:
    gate = decide({**GOOD, "score_kept": 0.9, "score_kept_low": 0.8, "score_kept_high": 1.01}, THRESHOLDS)[0]
    assert gate.message == "score_kept fails by 0.07: 0.9 (95 %: 0.8 to 1.01), must be at least 0.97"


def test_an_interval_without_bounds_is_said_in_words() -> None:
    gate = decide({**GOOD, "score_kept": 0.9, "score_kept_low": None, "score_kept_high": None}, THRESHOLDS)[0]
    assert "unbounded" in gate.message


def test_a_missing_number_says_which_job_to_run() -> None:
    with pytest.raises(ValueError, match=r"lacks step_speedup, distance_ratio: run `python -m jobs.evaluate`"):
        decide({"score_kept": 1.0, "parameters_ratio": 0.5}, THRESHOLDS)
