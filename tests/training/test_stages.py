"""The schedule as data."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.carve import keep_map
from ssd1b.family.keep import everything, student_config
from ssd1b.family.table import member
from ssd1b.recipes.distill import RECIPES, Stage, Weights
from ssd1b.training.stages import carved_before, carved_by, check, lr_at, place, total_steps


def stage(name: str, steps: int, **fields: float) -> Stage:
    return Stage(name=name, teacher="nano", carve=(name,), steps=steps, lr=1e-3, **fields)  # type: ignore[arg-type]


STAGES = (stage("mid", 2), stage("down", 1), stage("up", 3))


def test_every_step_has_its_place() -> None:
    assert total_steps(STAGES) == 6
    found = [(place(STAGES, step).stage.name, place(STAGES, step).step, place(STAGES, step).last) for step in range(6)]
    assert found == [
        ("mid", 0, False), ("mid", 1, True), ("down", 0, True), ("up", 0, False), ("up", 1, False), ("up", 2, True),
    ]  # fmt: skip


def test_a_checkpoint_at_a_boundary_holds_the_earlier_stages_student() -> None:
    assert [carved_before(STAGES, step) for step in range(7)] == [
        (), ("mid",), ("mid",), ("mid", "down"), *[("mid", "down", "up")] * 3,
    ]  # fmt: skip


def test_learning_rate() -> None:
    falling = stage("a", 110, warmup_steps=10, final_lr_share=0.1)
    assert lr_at(falling, 0) == pytest.approx(1e-4)
    assert lr_at(falling, 9) == pytest.approx(1e-3)
    assert lr_at(falling, 60) == pytest.approx(0.55e-3)
    assert lr_at(falling, 109) == pytest.approx(1e-4, rel=0.01)
    assert lr_at(stage("a", 110), 100) == 1e-3


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "no stages"),
        ((stage("mid", 1), replace(stage("mid", 2), carve=())), "two stages are called 'mid'"),
        ((stage("mid", 0),), "'mid' has 0 steps"),
        ((stage("middle", 1),), "'middle' carves 'middle': choose from mid, down, up"),
        ((stage("mid", 1), replace(stage("mid", 1), name="again")), "mid would be carved in two stages"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(stages: tuple[Stage, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(stages)


def test_shipped_recipes_are_sound() -> None:
    for recipe in RECIPES.values():
        config = recipe()
        check(config.stages)
        assert config.slices is not None
        assert config.global_batch % config.slices == 0
        assert config.slices % config.num_workers[1] == 0, "the most workers waste nothing"


def test_the_card_of_ssd1b() -> None:
    config = RECIPES["ssd1b_a100"]()
    assert total_steps(config.stages) == 251_000
    assert {stage.lr for stage in config.stages} == {1e-5}
    assert {stage.weights for stage in config.stages} == {Weights(task=1.0, output=0.5, feature=0.5)}
    assert [stage.carve for stage in config.stages] == [("mid",), ("down",), ("up",)]
    assert config.features == "layers"
    assert config.global_batch // config.slices * config.num_workers[1] * 4 == config.global_batch == 32
    assert config.precision == "bf16"


def test_the_card_of_vega() -> None:
    config = RECIPES["vega_a100"]()
    assert total_steps(config.stages) == 540_000
    assert config.global_batch == 16 * 8
    assert config.global_batch // config.slices * config.num_workers[1] * 8 == config.global_batch
    assert config.student == "segmind-vega"
    assert [stage.teacher for stage in config.stages] == [stage.teacher for stage in RECIPES["ssd1b_a100"]().stages]


@pytest.mark.parametrize(("name", "steps"), [("sd_small", 95_000), ("sd_tiny", 125_000)])
def test_segminds_students_of_sd15(name: str, steps: int) -> None:
    config = RECIPES[name]()
    assert total_steps(config.stages) == steps
    assert (config.global_batch, config.features, config.stages[0].lr) == (32, "blocks", 1e-4)


@pytest.mark.parametrize(
    ("recipe", "teacher", "parameters"),
    [("ssd1b_a100", "sdxl", 1_331_334_404), ("vega_a100", "sdxl", 745_225_604),
     ("sd_small", "sd-1.5", 579_384_964), ("sd_tiny", "sd-1.5", 323_384_964)],
)  # fmt: skip
def test_every_stage_leaves_what_diffusers_builds_and_the_last_the_published_student(
    recipe: str, teacher: str, parameters: int
) -> None:
    config, whole = RECIPES[recipe](), everything(member(teacher))
    kept = keep_map(member(teacher), config.student)
    for index in range(len(config.stages)):
        now = kept.only(carved_by(config.stages, index), whole)
        with torch.device("meta"):
            student = UNet2DConditionModel(**student_config(member(teacher), now))
    assert sum(weight.numel() for weight in student.parameters()) == parameters
