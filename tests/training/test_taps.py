"""Taps: 26 places, caught once, let go."""

import gc
import weakref

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.carve import carve, keep_map
from ssd1b.family.keep import everything
from ssd1b.family.table import new_unet
from ssd1b.recipes.distill import Features
from ssd1b.training.taps import Taps, tap_places


def call(unet: UNet2DConditionModel, rows: int = 1) -> torch.Tensor:
    added = {"text_embeds": torch.zeros(rows, 128), "time_ids": torch.zeros(rows, 6)}
    text_BTD = torch.zeros(rows, 5, unet.config.cross_attention_dim)
    noise_BCHW: torch.Tensor = unet(
        torch.ones(rows, 4, 16, 16), 3, text_BTD, added_cond_kwargs=added, return_dict=False
    )[0]
    return noise_BCHW


@pytest.fixture(scope="module")
def pair() -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    torch.manual_seed(0)
    teacher = new_unet("nano-sdxl").eval()
    return teacher, carve(teacher, keep_map(teacher.config, "ssd-1b"))


def test_teacher_and_student_are_compared_in_26_places(pair: tuple[UNet2DConditionModel, UNet2DConditionModel]) -> None:
    places = tap_places(*pair, keep_map(pair[0].config, "ssd-1b"))
    assert all(ours == theirs for ours, theirs in places.items())
    names = tuple(places)
    assert len(names) == 26
    count = {kind: sum(kind in name for name in names) for kind in ("resnets", "attentions", "mid_block")}
    assert count == {"resnets": 15, "attentions": 10, "mid_block": 1}
    with Taps(pair[0], places) as teacher, Taps(pair[1], places) as student, torch.no_grad():
        call(pair[0])
        call(pair[1])
        theirs, ours = teacher.take(), student.take()
    assert ours.keys() == theirs.keys() == set(names)
    assert all(ours[name].shape == theirs[name].shape for name in names)
    assert torch.equal(ours["down_blocks.0.resnets.0"], theirs["down_blocks.0.resnets.0"])


def test_nothing_leaks(pair: tuple[UNet2DConditionModel, UNet2DConditionModel]) -> None:
    unet = pair[1]
    taps = Taps(unet, {"mid_block": "mid_block"})
    call(unet).sum().backward()
    caught = taps.take()
    ghost = weakref.ref(caught["mid_block"])
    assert caught["mid_block"].requires_grad
    del caught
    gc.collect()
    assert ghost() is None, "a feature outlived its step"
    taps.close()
    call(unet)
    assert taps.caught == {}
    assert not any(module._forward_hooks for module in unet.modules())


def test_take_without_a_pass_is_a_mistake(pair: tuple[UNet2DConditionModel, UNet2DConditionModel]) -> None:
    with Taps(pair[1], {"mid_block": "mid_block"}) as taps, pytest.raises(AssertionError):
        taps.take()


def test_unlike_models_are_refused(pair: tuple[UNet2DConditionModel, UNet2DConditionModel]) -> None:
    small = UNet2DConditionModel(
        block_out_channels=(32,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), layers_per_block=1,
        norm_num_groups=16,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"the teacher lacks .*down_blocks\.1\.attentions\.0"):
        tap_places(small, pair[0], everything(pair[0].config))


def on_meta(name: str) -> UNet2DConditionModel:
    with torch.device("meta"):
        return new_unet(name)


@pytest.mark.parametrize(
    ("features", "teacher", "student", "count"),
    [("layers", "sdxl", "ssd-1b", 26), ("blocks", "sdxl", "ssd-1b", 7), ("self_attention", "sdxl", "ssd-1b", 34),
     ("layers", "sdxl", "segmind-vega", 26), ("self_attention", "sdxl", "koala-700m", 21),
     ("blocks", "sd-1.5", "sd-small", 9), ("blocks", "sd-1.5", "sd-tiny", 6), ("layers", "sd-1.5", "sd-tiny", 18)],
)  # fmt: skip
def test_how_many_places_are_compared_at_full_size(features: Features, teacher: str, student: str, count: int) -> None:
    whole = on_meta(teacher)
    kept = keep_map(whole.config, student)
    places = tap_places(whole, on_meta(student), kept, features)
    assert len(places) == count == len(set(places.values()))


def test_self_attentions_are_paired_with_those_they_came_from(
    pair: tuple[UNet2DConditionModel, UNet2DConditionModel],
) -> None:
    places = tap_places(*pair, keep_map(pair[0].config, "ssd-1b"), "self_attention")
    one = "down_blocks.2.attentions.1.transformer_blocks"
    assert [places[f"{one}.{i}.attn1"] for i in range(4)] == [f"{one}.{i}.attn1" for i in (0, 1, 2, 6)]


@pytest.mark.parametrize("features", ["layers", "blocks", "self_attention"])
@pytest.mark.parametrize(("teacher", "student"), [("nano-sdxl", "koala-700m"), ("nano-sd-1.5", "sd-tiny")])
def test_what_is_compared_has_one_shape(features: Features, teacher: str, student: str) -> None:
    torch.manual_seed(0)
    whole = new_unet(teacher).eval()
    kept = keep_map(whole.config, student)
    small = carve(whole, kept)
    places = tap_places(whole, small, kept, features)
    with Taps(whole, {name: name for name in places.values()}) as theirs, Taps(small, places) as ours, torch.no_grad():
        call(whole)
        call(small)
        a, b = theirs.take(), ours.take()
    assert {name: feature.shape for name, feature in a.items()} == {name: feature.shape for name, feature in b.items()}


@pytest.mark.parametrize("features", ["layers", "blocks", "self_attention"])
def test_features_and_their_gradients_survive_activation_checkpointing(features: Features) -> None:
    """Which runs modules again in the backward pass, and calls their hooks again."""
    torch.manual_seed(0)
    teacher = new_unet("nano-sd-1.5")
    kept = keep_map(teacher.config, "sd-tiny")
    gradients, caught, calls = [], [], []
    for checkpointing in (False, True):
        student = carve(teacher, kept).train()
        places = tap_places(teacher, student, kept, features)
        again = [0]
        counted = dict(student.named_modules())["down_blocks.0.resnets.0.conv1"]
        counted.register_forward_hook(lambda *_, again=again: again.__setitem__(0, again[0] + 1))
        if checkpointing:
            student.enable_gradient_checkpointing()
        with Taps(student, places) as taps:
            noise = call(student)
            taken = taps.take()
            caught.append({name: feature.detach().clone() for name, feature in taken.items()})
            (noise.pow(2).mean() + sum(feature.pow(2).mean() for feature in taken.values())).backward()
            assert taps.caught == {}, "what ran again left features behind"
        gradients.append({name: weight.grad for name, weight in student.named_parameters()})
        calls.append(again[0])
    assert calls == [1, 2], "nothing was run again: the test shows nothing"
    assert all(torch.equal(caught[0][name], caught[1][name]) for name in caught[0])
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-7) for name in gradients[0])


def test_a_student_with_fewer_layers_is_compared_with_the_layers_it_came_from() -> None:
    torch.manual_seed(0)
    teacher = new_unet("nano-sdxl").eval()
    kept = keep_map(teacher.config, "koala-700m")
    student = carve(teacher, kept)
    places = tap_places(teacher, student, kept)
    assert places["up_blocks.0.attentions.1"] == "up_blocks.0.attentions.2"
    assert not any("mid_block" in name for name in places)
    with Taps(teacher, {name: name for name in places.values()}) as theirs, Taps(student, places) as ours:
        with torch.no_grad():
            call(teacher)
            call(student)
        a, b = theirs.take(), ours.take()
    assert a.keys() == b.keys()
    assert all(a[name].shape == b[name].shape for name in a)
