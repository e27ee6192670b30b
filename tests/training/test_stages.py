"""The schedule as data."""

from dataclasses import replace

import pytest

from ssd1b.recipes.distill import RECIPES, Stage
from ssd1b.training.stages import carved_before, check, lr_at, place, total_steps


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
        assert [part for each in config.stages for part in each.carve] == ["mid", "down", "up"]
        assert config.global_batch % config.slices == 0
    assert total_steps(RECIPES["ssd1b_a100"]().stages) == 251_000
