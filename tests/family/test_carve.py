"""Carving: every student of the table is its teacher minus blocks, and plain diffusers can read it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.carve import KEEP, carve, declared, keep, keep_map, parameters
from ssd1b.family.keep import PARTS, everything, student_config
from ssd1b.family.table import FAMILY, PUBLISHED, new_unet, teacher_of

PAIRS = [
    ("sdxl", "ssd-1b"), ("sdxl", "segmind-vega"), ("sdxl", "koala-1b"), ("sdxl", "koala-700m"),
    ("ssd-1b", "segmind-vega"), ("koala-1b", "koala-700m"),
    ("sd-1.5", "sd-small"), ("sd-1.5", "sd-tiny"), ("sd-small", "sd-tiny"),
]  # fmt: skip
"""Every pair of the table of which one is a smaller form of the other."""


def plain(unet: UNet2DConditionModel) -> dict[str, Any]:
    """The config as JSON reads it, without diffusers' private keys."""
    return json.loads(json.dumps({key: value for key, value in unet.config.items() if not key.startswith("_")}))


def same_weights(one: UNet2DConditionModel, other: UNet2DConditionModel) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def noise(unet: UNet2DConditionModel) -> torch.Tensor:
    """One call on fixed inputs."""
    draw = torch.Generator().manual_seed(5)
    sdxl = unet.config.addition_embed_type == "text_time"
    added = {"text_embeds": torch.randn(2, 128, generator=draw), "time_ids": torch.full((2, 6), 128.0)}
    with torch.no_grad():
        out: torch.Tensor = unet(
            torch.randn(2, 4, 16, 16, generator=draw), torch.tensor([3.0, 700.0]),
            torch.randn(2, 5, unet.config.cross_attention_dim, generator=draw),
            added_cond_kwargs=added if sdxl else None, return_dict=False,
        )[0]  # fmt: skip
    return out


@pytest.fixture(scope="module")
def unets() -> dict[str, UNet2DConditionModel]:
    torch.manual_seed(3)
    return {name: new_unet(f"nano-{name}").eval() for name in {name for name, _ in PAIRS}}


@pytest.fixture(scope="module")
def teacher(unets: dict[str, UNet2DConditionModel]) -> UNet2DConditionModel:
    return unets["sdxl"]


@pytest.fixture(scope="module")
def student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    return carve(teacher, keep_map(teacher.config, "ssd-1b"))


def test_these_are_all_pairs_of_the_table() -> None:
    for name in PUBLISHED:
        for other in PUBLISHED:
            if name == other or (name, other) in PAIRS:
                assert student_config(FAMILY[name], declared(FAMILY[name], FAMILY[other]))
            else:
                with pytest.raises(ValueError, match=r"no smaller|attention there"):
                    declared(FAMILY[name], FAMILY[other])
    assert all((teacher_of(name), name) in PAIRS for name in PUBLISHED if teacher_of(name))


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_a_carved_student_is_the_family_member(
    unets: dict[str, UNet2DConditionModel], name: str, other: str, tmp_path: Path
) -> None:
    made = carve(unets[name], keep_map(unets[name].config, other))
    assert plain(made) == plain(new_unet(f"nano-{other}"))
    made.save_pretrained(tmp_path)
    read, report = UNet2DConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert same_weights(made, read)
    assert torch.equal(noise(made), noise(read.eval()))
    with torch.device("meta"):
        full = carve(new_unet(name), keep_map(FAMILY[name], other))
    assert parameters(full) == PUBLISHED[other]


@pytest.mark.parametrize(
    ("first", "through", "last"),
    [("sdxl", "ssd-1b", "segmind-vega"), ("sdxl", "koala-1b", "koala-700m"), ("sd-1.5", "sd-small", "sd-tiny")],
)
def test_carving_through_a_member_gives_the_same_weights_as_at_once(
    unets: dict[str, UNet2DConditionModel], first: str, through: str, last: str
) -> None:
    unet = unets[first]
    middle = carve(unet, keep_map(unet.config, through))
    staged = carve(middle, keep_map(middle.config, last))
    once = carve(unet, keep_map(unet.config, last))
    assert same_weights(staged, once)
    assert plain(staged) == plain(once)
    both = keep_map(middle.config, last).after(keep_map(unet.config, through))
    assert both == keep_map(unet.config, last)


@pytest.mark.parametrize("parts", [PARTS, ("mid", "up", "down")])
@pytest.mark.parametrize("name", ["ssd-1b", "segmind-vega"])
def test_carving_in_stages_gives_the_same_weights_as_at_once(
    teacher: UNet2DConditionModel, name: str, parts: tuple[str, ...]
) -> None:
    staged, whole = teacher, everything(teacher.config)
    for part in parts:
        now = everything(staged.config)
        staged = carve(staged, keep_map(staged.config, name).only((part,), now))
        assert everything(staged.config) != now
    once = carve(teacher, keep_map(whole_config(teacher), name))
    assert same_weights(staged, once)
    assert plain(staged) == plain(once)
    assert everything(teacher.config) == whole, "the teacher was changed"


def whole_config(unet: UNet2DConditionModel) -> dict[str, Any]:
    return dict(unet.config)


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
    assert keep_map(teacher.config, "ssd-1b").teacher_name(kept) == source


def test_layers_go_by_bk_sdms_rule(unets: dict[str, UNet2DConditionModel]) -> None:
    teacher = unets["sd-1.5"]
    small, tiny = (carve(teacher, keep_map(teacher.config, name)) for name in ("sd-small", "sd-tiny"))
    for student, ours, theirs in (
        (small, "up_blocks.1.attentions.1", "up_blocks.1.attentions.2"),
        (small, "down_blocks.2.resnets.0", "down_blocks.2.resnets.0"),
        (tiny, "up_blocks.0.resnets.1", "up_blocks.1.resnets.2"),
        (tiny, "up_blocks.2.attentions.0", "up_blocks.3.attentions.0"),
    ):
        a, b = (unet.get_submodule(path).state_dict() for unet, path in ((student, ours), (teacher, theirs)))
        assert all(torch.equal(a[name], b[name]) for name in b)


def test_the_student_does_not_share_memory_with_its_teacher(teacher: UNet2DConditionModel) -> None:
    before = teacher.conv_in.weight.clone()
    with torch.no_grad():
        carve(teacher, keep_map(teacher.config, "ssd-1b")).conv_in.weight.add_(1)
    assert torch.equal(teacher.conv_in.weight, before)


def test_precision_stays() -> None:
    half = new_unet("nano-sdxl").to(torch.bfloat16)
    assert {weight.dtype for weight in carve(half, keep_map(half.config, "ssd-1b")).parameters()} == {torch.bfloat16}


def test_carving_again_changes_nothing(student: UNet2DConditionModel) -> None:
    again = carve(student, keep_map(student.config, "ssd-1b"))
    assert plain(again) == plain(student)
    assert same_weights(again, student)


def test_students_that_are_not_smaller_are_refused(unets: dict[str, UNet2DConditionModel]) -> None:
    with pytest.raises(ValueError, match=r"down_blocks\.1: the student has 2 transformer blocks, the teacher 1"):
        keep_map(FAMILY["nano-segmind-vega"], "ssd-1b")
    with pytest.raises(ValueError, match="the student has 4 levels, the teacher 3"):
        keep_map(unets["sdxl"].config, "sd-1.5")
    with pytest.raises(ValueError, match=r"down_blocks\.0: one of the two has attention there"):
        keep_map(unets["sd-1.5"].config, "ssd-1b")
    with pytest.raises(ValueError, match="did you mean 'ssd-1b'"):
        keep_map(unets["sdxl"].config, "ssd1b")
    with pytest.raises(ValueError, match="no rule says which of 10 transformer blocks stay as 3; rules: 10 -> 4"):
        keep(10, 3)


def test_a_layer_that_joins_two_widths_has_to_stay(teacher: UNet2DConditionModel) -> None:
    kept = keep_map(teacher.config, "koala-1b")
    first, last = kept.up[1].layers
    inner = replace(kept.up[1], layers=(first, replace(last, index=1)))
    wrong = replace(kept, up=(kept.up[0], inner, kept.up[2]))
    with pytest.raises(ValueError, match=r"up_blocks\.1\.resnets\.1.*a layer that joins two widths has to stay"):
        carve(teacher, wrong)


def test_the_rules_agree_with_each_other() -> None:
    """Going from many to few through something between keeps the same blocks as going at once."""
    for before, between in KEEP:
        for first, after in KEEP:
            if first == between and (before, after) in KEEP:
                through = tuple(KEEP[before, between][i] for i in KEEP[between, after])
                assert through == KEEP[before, after], (before, between, after)


def test_the_shipped_map_is_of_the_nano_teacher_and_as_large_as_ssd_1bs() -> None:
    teacher = new_unet("nano-sdxl")
    kept = keep_map(teacher.config, "nano-measured")
    assert parameters(carve(teacher, kept)) == parameters(new_unet("nano-ssd-1b"))
    assert kept != keep_map(teacher.config, "ssd-1b")
