"""Which evaluations pass."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.evaluation import metrics
from ssd1b.evaluation.gates import decide, refuse_unlike_conditions, settled
from ssd1b.evaluation.seen import Conditions
from ssd1b.recipes.promote import Thresholds

THRESHOLDS = Thresholds()
GOOD = {
    "heldout_score_kept": 0.99, "heldout_score_kept_low": 0.96, "heldout_score_kept_high": 1.02,
    "heldout_prompts": 400.0, "score_kept": 0.5, "score_kept_low": 0.4, "score_kept_high": 0.6, "prompts": 800.0,
    "parameters_ratio": 0.519, "step_speedup": 1.6, "distance_ratio": 0.5,
}  # fmt: skip
CONDITIONS = Conditions(
    prompts=48, prompts_sha256="a" * 64, seeds=(0, 47), sampler="euler", steps=20, guidance=8.0, negative=None,
    side_px=1024, scorer="clip/image-text/512/abc", features="inception/pictures/2048/def",
)  # fmt: skip


def failed(numbers: dict[str, float | None], thresholds: Thresholds = THRESHOLDS) -> list[str]:
    return [gate.name for gate in decide(numbers, thresholds) if not gate.passes]


def test_the_thresholds_are_those_that_were_promised() -> None:
    assert (THRESHOLDS.score_kept, THRESHOLDS.parameters_ratio, THRESHOLDS.step_speedup) == (0.97, 0.52, 1.5)
    assert THRESHOLDS.prompts == "heldout"


def test_a_good_student_passes_every_gate() -> None:
    assert not failed(dict(GOOD))


@pytest.mark.parametrize(
    ("name", "value", "gate"),
    [
        ("heldout_score_kept", 0.965, "score_kept"),
        ("heldout_score_kept_low", 0.93, "score_kept_low"),
        ("parameters_ratio", 0.53, "parameters_ratio"),
        ("step_speedup", 1.4, "step_speedup"),
        ("distance_ratio", 0.8, "distance_ratio"),
    ],
)
def test_one_bad_number_fails_its_own_gate_only(name: str, value: float, gate: str) -> None:
    (bad,) = [each for each in decide({**GOOD, name: value}, THRESHOLDS) if not each.passes]
    assert bad.name == gate
    assert f"{gate} fails by" in bad.message
    assert f"{value:.3g}" in bad.message


def test_the_threshold_itself_passes() -> None:
    edge = {"heldout_score_kept": 0.97, "heldout_score_kept_low": 0.97 - 0.03, "parameters_ratio": 0.52,
            "step_speedup": 1.5, "distance_ratio": 0.75}  # fmt: skip
    assert not failed({**GOOD, **edge})


@pytest.mark.parametrize("nothing", [math.nan, None])
def test_what_could_not_be_measured_never_passes(nothing: float | None) -> None:
    for name in ("heldout_score_kept", "heldout_score_kept_low", "parameters_ratio", "step_speedup", "distance_ratio"):
        (bad,) = [gate for gate in decide({**GOOD, name: nothing}, THRESHOLDS) if not gate.passes]
        assert bad.name == name.removeprefix("heldout_")
        assert "could not be measured" in bad.message


def test_which_prompts_count_is_the_recipes_to_say() -> None:
    assert failed(dict(GOOD), dataclasses.replace(THRESHOLDS, prompts="all")) == ["score_kept", "score_kept_low"]


def test_a_message_says_by_how_much_and_shows_the_interval() -> None:
    gate = decide({**GOOD, "heldout_score_kept": 0.9}, THRESHOLDS)[0]
    assert gate.message == "score_kept fails by 0.07: 0.9 (95 %: 0.96 to 1.02), must be at least 0.97"


def test_a_missing_number_says_which_job_to_run() -> None:
    with pytest.raises(ValueError, match=r"lacks step_speedup, distance_ratio: run `python -m jobs.evaluate`"):
        decide({k: v for k, v in GOOD.items() if k not in ("step_speedup", "distance_ratio")}, THRESHOLDS)


def test_an_interval_that_is_too_wide_says_how_many_prompts_would_do() -> None:
    # half the width, 0.06 of 0.12 below the estimate, needs four times the prompts
    assert "about 192 would do" in settled(estimate=1.0, low=0.88, floor=0.94, prompts=48)
    assert "would not change it" in settled(estimate=0.93, low=0.88, floor=0.94, prompts=48)


@given(
    estimate=st.floats(0.945, 1.2), reach=st.floats(0.01, 0.5), prompts=st.integers(4, 5000)
)  # fmt: skip
def test_that_many_prompts_do_settle_it(estimate: float, reach: float, prompts: int) -> None:
    floor = 0.94
    note = settled(estimate, estimate - reach, floor, prompts)
    if "would do" not in note:
        assert estimate - reach >= floor
        return
    enough = int(note.rpartition("about ")[2].partition(" ")[0].replace(",", ""))
    assert enough > prompts
    assert estimate - reach * math.sqrt(prompts / enough) >= floor - 1e-9


def passes_by_luck(true: float, prompts: int, trials: int = 80) -> float:
    """Return how often a student that really keeps this share of the score passes, on prompts drawn at random."""
    generator = torch.Generator().manual_seed(0)
    passed = 0
    for _ in range(trials):
        teacher_N = 0.3 + 0.1 * torch.randn(prompts, generator=generator)
        student_N = true * teacher_N + 0.05 * torch.randn(prompts, generator=generator)
        found = metrics.ratio(student_N, teacher_N).named("heldout_score_kept")
        passed += not failed({**GOOD, **found, "heldout_prompts": float(prompts)})
    return passed / trials


def test_luck_passes_no_bad_model_and_noise_refuses_no_good_one_for_ever() -> None:
    """A model below the threshold by the margin passes 1 time in 40 at most, however few the prompts."""
    assert passes_by_luck(0.94, 20) <= 0.05
    assert passes_by_luck(0.94, 300) <= 0.05
    assert passes_by_luck(1.0, 20) < 0.7
    assert passes_by_luck(1.0, 300) >= 0.95


@pytest.mark.parametrize(
    ("field", "value"),
    [("scorer", "nano/image-text/256/abc"), ("prompts_sha256", "b" * 64), ("seeds", (1, 48)), ("steps", 50)],
)
def test_numbers_under_unlike_conditions_are_refused(field: str, value: object) -> None:
    student = dataclasses.replace(CONDITIONS, **{field: value})
    refuse_unlike_conditions({"teacher": student, "student": student})
    with pytest.raises(ValueError, match=rf"under unlike {field} .*run `python -m jobs\.evaluate` again"):
        refuse_unlike_conditions({"teacher": CONDITIONS, "student": student})


def test_conditions_that_nobody_recorded_are_refused() -> None:
    with pytest.raises(ValueError, match="does not say how teacher and student was measured"):
        refuse_unlike_conditions({})


def test_thresholds_for_another_scorer_are_refused() -> None:
    both = {"teacher": CONDITIONS, "student": CONDITIONS}
    refuse_unlike_conditions(both, "clip")
    with pytest.raises(ValueError, match=r"by the scorer 'clip' and the thresholds are for 'nano'"):
        refuse_unlike_conditions(both, "nano")
