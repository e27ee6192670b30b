"""A comparison of models, on the shipped nano family."""

import dataclasses

import pytest
import torch

from ssd1b.evaluation.compare import Model, choose, draw, output_errors, sizes, step_times
from ssd1b.models.files import load_unet
from ssd1b.recipes.evaluate import RECIPES

CONFIG = RECIPES["nano"]()


def test_prompts_are_of_the_split_the_styles_and_the_concepts_asked_for() -> None:
    chosen = {split: choose(CONFIG, split) for split in ("heldout", "train")}
    for split, rows in chosen.items():
        assert len(rows) == CONFIG.prompts
        assert {row["split"] for row in rows} == {split}
        assert {row["style"] for row in rows} <= set(CONFIG.styles)
        assert {row["subgroup"] for row in rows} <= set(CONFIG.subgroups)
        assert len({row["captions"][0] for row in rows}) == CONFIG.prompts
    assert not {row["concept"] for row in chosen["heldout"]} & {row["concept"] for row in chosen["train"]}
    assert choose(CONFIG, "train") == chosen["train"], "the choice must not change between calls"


def test_more_prompts_than_the_corpus_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the corpus has \d+ heldout prompts .*, not 1000"):
        choose(dataclasses.replace(CONFIG, prompts=1000), "heldout")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load("nano")


def test_a_model_against_itself_is_the_same_size_and_about_as_fast(model: Model) -> None:
    assert sizes(model, model)["parameters_ratio"] == 1
    times = step_times(model, model, dataclasses.replace(CONFIG, timing_rounds=5), batch=1)
    assert times["step_ms_teacher"] > 0
    assert 0.5 < times["step_speedup"] < 2


def test_noise_estimates_are_compared_on_both_splits(model: Model) -> None:
    few = dataclasses.replace(CONFIG, teacher="nano", error_pictures=3)
    expert = load_unet("nano+retro")
    assert output_errors(model.engine.unet, model.engine.unet, few) == {
        "heldout_output_error": 0, "train_output_error": 0,
    }  # fmt: skip
    found = output_errors(model.engine.unet, expert, few)
    assert all(0 < value < 1 for value in found.values())
    assert found == output_errors(model.engine.unet, expert, few), "the same question got two answers"


def test_a_picture_does_not_depend_on_its_batch(model: Model) -> None:
    prompts = ["a red apple, 3d render style", "a tiger, flat vector style", "a pear, soft cartoon style"]
    few = dataclasses.replace(CONFIG, steps=2)
    together = draw(model, prompts, dataclasses.replace(few, batch=3))
    apart = draw(model, prompts, dataclasses.replace(few, batch=2))
    assert together.shape == (3, 128, 128, 3)
    assert (together.int() - apart.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])
