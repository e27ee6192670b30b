"""The announcement beside what ran here: ratios, intervals, refusals, and steps that exist."""

import importlib
import shlex

import pytest

from jobs.reproduce import RECIPES
from ssd1b.command import configure
from ssd1b.demo import announcement
from ssd1b.demo.announcement import Figure
from ssd1b.demo.comparison import comparison
from ssd1b.demo.one_picture import in_turns
from ssd1b.recipes.distill import ssd1b_nano_long

STAGE = {"teacher": "nano", "steps": 9, "first_loss": 1.5, "last_loss": 0.25, "student_parameters": 50, "step_s": 0.5}
RESULTS = {
    "encode": {"rows_kept": 1234},
    "distill": {"teacher_parameters": 100, "student_parameters": 58, "stages": {"mid": STAGE}, "wall_s": 120.0},
    "evaluate": {"step_ms_teacher": 30.0, "step_ms_student": 20.0},
    "promote": {"gates": {"score_kept": {"value": 0.5, "passes": False}}, "promoted": False},
}
NUMBERS = {"score_kept": 0.5, "score_kept_low": 0.4, "score_kept_high": 0.625, "distance_ratio": None}
DRAWN = {"teacher": {"seconds": 3.0, "peak_mib": 953.674}, "student": {"seconds": 1.5, "peak_mib": 476.837}}


def lines() -> dict[str, list[str]]:
    return {line[:26].strip(): line[26:].split() for line in comparison(RESULTS, NUMBERS, DRAWN).splitlines()}


def test_ratios_are_the_students_and_of_times_how_much_faster() -> None:
    found = lines()
    assert found["UNet parameters"] == ["2,567,463,684", "1,331,334,404", "0.52", "100", "58", "0.58"]
    assert found["steps per second, batch 8"] == ["1.54", "2.44", "1.58", "33.33", "50.00", "1.50"]
    assert found["seconds for a picture"] == ["3.31", "2.25", "1.48", "3.00", "1.50", "2.00"]
    assert found["memory to draw it, GB"] == ["8.96", "6.60", "0.74", "1.00", "0.50", "0.50"]


def test_a_refused_student_is_told_of_with_its_interval() -> None:
    table = comparison(RESULTS, NUMBERS, DRAWN)
    assert "0.40 to 0.62" in table
    assert "not measured" in table
    assert "FAILS" in table


def test_every_announced_figure_has_a_source() -> None:
    figures = [each for each in vars(announcement).values() if isinstance(each, Figure)]
    assert len(figures) == 7
    assert all(figure.source and figure.student for figure in figures)
    table = comparison(RESULTS, NUMBERS, DRAWN)
    assert all(figure.source in table for figure in figures)


def test_every_step_is_a_job_with_that_recipe_and_those_fields() -> None:
    config = RECIPES["nano"]()
    for step in config.steps:
        words = shlex.split(step.entrypoint)
        assert words[:2] == ["python", "-m"]
        module = importlib.import_module(words[2])
        changes = [word for word in words[4:] if word != "--set"]
        made = configure(module.RECIPES, words[3], changes)
        if step.name in ("evaluate", "promote"):
            assert made.name == config.run
    assert ssd1b_nano_long().registered_name == ssd1b_nano_long().run == config.run
    assert tuple(stage.name for stage in ssd1b_nano_long().stages) == config.stages


@pytest.mark.slow
def test_time_and_memory_are_measured_in_processes_of_their_own() -> None:
    found = in_turns({"teacher": "nano"})
    assert found["teacher"]["seconds"] > 0
    assert found["teacher"]["peak_mib"] > 20
