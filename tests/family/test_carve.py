"""Carving: SSD-1B is SDXL minus blocks, and plain diffusers can read it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.carve import PARTS, carve, keep, parameters
from ssd1b.family.table import FAMILY, new_unet


def plain(unet: UNet2DConditionModel) -> dict[str, Any]:
    """The config as JSON reads it, without diffusers' private keys."""
    return json.loads(json.dumps({key: value for key, value in unet.config.items() if not key.startswith("_")}))


def same_weights(one: UNet2DConditionModel, other: UNet2DConditionModel) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def blocks(unet: UNet2DConditionModel) -> int:
    return sum(type(module).__name__ == "BasicTransformerBlock" for module in unet.modules())


@pytest.fixture(scope="module")
def teacher() -> UNet2DConditionModel:
    torch.manual_seed(3)
    return new_unet("nano-sdxl").eval()


@pytest.fixture(scope="module")
def student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    return carve(teacher, PARTS)


def test_full_size_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        sdxl, ssd = new_unet("sdxl"), new_unet("ssd-1b")
        carved = carve(sdxl, PARTS)
    assert parameters(sdxl) == 2_567_463_684
    assert parameters(ssd) == 1_331_334_404
    assert parameters(carved) == 1_331_334_404
    assert (blocks(sdxl), blocks(carved)) == (70, 34)


def test_the_result_is_the_family_member(student: UNet2DConditionModel) -> None:
    assert plain(student) == plain(new_unet("nano-ssd-1b"))
    assert set(student.state_dict()) == set(UNet2DConditionModel(**FAMILY["nano-ssd-1b"]).state_dict())


def test_carving_in_stages_gives_the_same_weights(teacher: UNet2DConditionModel, student: UNet2DConditionModel) -> None:
    staged = teacher
    for part in PARTS:
        staged = carve(staged, (part,))
    assert same_weights(staged, student)
    assert plain(staged) == plain(student)


@pytest.mark.parametrize(
    ("kept", "source"),
    [
        ("down_blocks.2.attentions.1.transformer_blocks.3", "down_blocks.2.attentions.1.transformer_blocks.6"),
        ("down_blocks.1.attentions.0.transformer_blocks.1", "down_blocks.1.attentions.0.transformer_blocks.1"),
        ("up_blocks.0.attentions.0.transformer_blocks.2", "up_blocks.0.attentions.0.transformer_blocks.2"),
        ("up_blocks.0.attentions.2.transformer_blocks.9", "up_blocks.0.attentions.2.transformer_blocks.9"),
        ("up_blocks.1.attentions.1.transformer_blocks.0", "up_blocks.1.attentions.1.transformer_blocks.0"),
        ("mid_block.resnets.0", "mid_block.resnets.0"),
    ],
)
def test_the_right_blocks_stay(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel, kept: str, source: str
) -> None:
    theirs = teacher.get_submodule(source).state_dict()
    ours = student.get_submodule(kept).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_student_does_not_share_memory_with_its_teacher(teacher: UNet2DConditionModel) -> None:
    before = teacher.conv_in.weight.clone()
    with torch.no_grad():
        carve(teacher, ("mid",)).conv_in.weight.add_(1)
    assert torch.equal(teacher.conv_in.weight, before)


@pytest.mark.parametrize("parts", [("mid",), ("mid", "down"), ("mid", "up"), PARTS])
def test_every_intermediate_student_loads_in_plain_diffusers(
    teacher: UNet2DConditionModel, parts: tuple[str, ...], tmp_path: Path
) -> None:
    made = carve(teacher, parts)
    made.save_pretrained(tmp_path)
    read = UNet2DConditionModel.from_pretrained(tmp_path)
    assert same_weights(made, read)


def test_carving_again_changes_nothing(student: UNet2DConditionModel) -> None:
    again = carve(student, PARTS)
    assert plain(again) == plain(student)
    assert same_weights(again, student)


def test_bad_parts_are_refused(teacher: UNet2DConditionModel) -> None:
    with pytest.raises(ValueError, match="no part 'middle' to carve: choose from mid, down, up"):
        carve(teacher, ("middle",))
    with pytest.raises(ValueError, match="carve 'mid' before 'down'"):
        carve(teacher, ("down",))
    with pytest.raises(ValueError, match="no rule says which of 10 transformer blocks stay as 3"):
        keep(10, 3)
