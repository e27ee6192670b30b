"""An ablation's runs differ in one thing each, and its table and plot say what was measured."""

from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from ssd1b.recipes.ablation import RECIPES, VARIANTS, Variant, nano, variant
from ssd1b.training import stages
from ssd1b.trials.ablation import COLUMNS, table
from ssd1b.trials.ablation_plot import Curve, plot

NAMED = {"run", "registered_name", "prompts", "seed"}
DIFFERS: dict[Variant, set[str]] = {
    "whole": set(),
    "one_shot": {"stages"},
    "blocks": {"features"},
    "output_only": {"stages"},
    "from_scratch": {"stages", "from_scratch"},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_takes_as_many_steps_and_differs_in_one_thing(recipe: str, name: Variant) -> None:
    whole = RECIPES[recipe]().distillation
    changed = variant(whole, name, seed=3)
    stages.check(changed.stages)
    assert stages.total_steps(changed.stages) == stages.total_steps(whole.stages)
    assert {part for stage in changed.stages for part in stage.carve} == {"mid", "down", "up"}
    assert changed.seed == 3
    differs = {field.name for field in fields(whole) if getattr(whole, field.name) != getattr(changed, field.name)}
    assert differs - NAMED == DIFFERS[name]


def test_what_the_variants_learn_from() -> None:
    whole = nano().distillation
    assert all(stage.weights.feature == 0 < stage.weights.output for stage in variant(whole, "output_only", 0).stages)
    (alone,) = variant(whole, "from_scratch", 0).stages
    assert (alone.weights.task, alone.weights.output, alone.weights.feature) == (1, 0, 0)
    assert len({variant(whole, name, seed).run for name in VARIANTS for seed in (0, 1)}) == 2 * len(VARIANTS)


def test_the_table_means_over_seeds_and_compares_with_its_first_line() -> None:
    def row(error: float) -> dict[str, float]:
        return {**dict.fromkeys(COLUMNS, 1.0), "heldout_error": error, "parameters": 4672516}

    lines = table({"whole": [row(0.1), row(0.3)], "one_shot": [row(0.5)]})
    assert [line[:28].strip() for line in lines[1:]] == [VARIANTS["whole"], VARIANTS["one_shot"]]
    assert lines[1].split()[-6:] == ["0.2000", "1.0000", "1.0000", "1.0000", "4,672,516", "1.00"]
    assert lines[2].split()[-1] == "2.50"


def test_the_plot_has_a_line_a_run(tmp_path: Path) -> None:
    plot(
        [Curve("a", 0, {1: 0.1, 2: 0.01}), Curve("a", 1, {1: 0.2, 2: 0.02}), Curve("b", 0, {1: 1})], tmp_path / "p.png"
    )
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 900
