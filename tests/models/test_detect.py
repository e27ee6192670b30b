"""What a UNet is, from names and shapes alone; and what is said of everything that is none."""

import re
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.family.keep import Block, KeepMap, Layer, everything, student_config
from ssd1b.family.table import FAMILY
from ssd1b.models.detect import SGM, Detected, detect
from ssd1b.models.misfit import misfit, nearest_member
from ssd1b.models.pairs import their_shapes
from ssd1b.models.sgm import unet_pairs

Shapes = dict[str, tuple[int, ...]]


def shapes(config: dict[str, Any]) -> Shapes:
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in UNet2DConditionModel(**config).state_dict().items()}


def in_sgm(ours: Shapes, config: dict[str, Any], prefix: str = SGM) -> Shapes:
    theirs = their_shapes(unet_pairs(ours, everything(config)), ours)
    return {prefix + name: shape for name, shape in theirs.items()}


def full(config: dict[str, Any]) -> dict[str, Any]:
    """The config with diffusers' defaults, as it would be saved."""
    with torch.device("meta"):
        whole = dict(UNet2DConditionModel(**config).config)
    return {name: value for name, value in whole.items() if not name.startswith("_")}


@pytest.mark.parametrize("member", FAMILY)
def test_every_member_is_known_in_every_layout(member: str) -> None:
    ours = shapes(FAMILY[member])
    for layout, prefix, found in (
        ("diffusers", "", ours),
        ("sgm", SGM, in_sgm(ours, FAMILY[member])),
        ("sgm", "", in_sgm(ours, FAMILY[member], "")),
    ):
        detected = detect(found)
        assert (detected.member, detected.layout, detected.prefix) == (member, layout, prefix)
    assert full(detected.config) == full(FAMILY[member])


def test_ssd_1b_comes_out_in_its_published_form() -> None:
    config = detect(shapes(FAMILY["ssd-1b"])).config
    assert config["mid_block_type"] == "UNetMidBlock2D"
    assert config["transformer_layers_per_block"] == [[1], [2, 2], [4, 4]]
    assert config["reverse_transformer_layers_per_block"] == [[4, 4, 10], [2, 1, 1], 1]


def some_blocks(draw: st.DrawFn, count: int) -> tuple[int, ...]:
    return tuple(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1))))


@st.composite
def students(draw: st.DrawFn) -> tuple[dict[str, Any], KeepMap]:
    """A nano teacher and what is left of it after carving transformer blocks, layers and the mid block at random."""
    teacher = FAMILY[draw(st.sampled_from(["nano-sdxl", "nano-sd-1.5"]))]
    whole = everything(teacher)
    one_less = draw(st.booleans())

    def carved(blocks: tuple[Block, ...], up: bool) -> tuple[Block, ...]:
        made = []
        for block in blocks:
            layers = block.layers
            if one_less:
                layers = (layers[0], layers[-1]) if up else layers[:1]
            made.append(
                Block(block.index, tuple(
                    Layer(layer.index, layer.blocks and some_blocks(draw, len(layer.blocks))) for layer in layers
                ))
            )  # fmt: skip
        return tuple(made)

    return teacher, KeepMap(carved(whole.down, False), draw(st.sampled_from([(), None])), carved(whole.up, True))


@settings(max_examples=6, deadline=None)
@given(students())
def test_any_student_is_read_back_from_its_weights(student: tuple[dict[str, Any], KeepMap]) -> None:
    config = student_config(*student)
    ours = shapes(config)
    detected = detect(in_sgm(ours, config))
    assert everything(detected.config) == everything(config)
    assert full(detected.config) == full(config)
    assert not detect(ours, config).notes


def test_what_no_shape_says_follows_the_rule_it_states() -> None:
    wide = FAMILY["sdxl"] | {"block_out_channels": (128, 256, 512), "attention_head_dim": (2, 4, 8)}
    found = detect(shapes(wide))
    assert found.member is None
    assert found.config["attention_head_dim"] == (2, 4, 8)
    old = FAMILY["sd-1.5"] | {"block_out_channels": (64, 128, 256, 256)}
    assert detect(shapes(old)).config["attention_head_dim"] == 8
    lcm = FAMILY["nano-ssd-1b"] | {"time_cond_proj_dim": 24, "time_embedding_dim": 96, "conv_in_kernel": 1}
    found = detect(shapes(lcm))
    assert {key: found.config[key] for key in ("time_cond_proj_dim", "time_embedding_dim", "conv_in_kernel")} == {
        "time_cond_proj_dim": 24, "time_embedding_dim": 96, "conv_in_kernel": 1,
    }  # fmt: skip
    assert found.member is None


def test_config_json_gives_what_the_weights_do_not_say() -> None:
    stated = full(FAMILY["nano-sdxl"]) | {"attention_head_dim": [2, 4, 4], "norm_eps": 1e-6, "sample_size": 32}
    found = detect(shapes(FAMILY["nano-sdxl"]), stated | {"_class_name": "UNet2DConditionModel", "decay": 0.9})
    assert (found.config["attention_head_dim"], found.config["norm_eps"], found.config["sample_size"]) == (
        [2, 4, 4],
        1e-6,
        32,
    )
    assert found.member is None
    assert not found.notes


@pytest.mark.parametrize(
    ("wrong", "member", "note"),
    [
        (FAMILY["nano-sd-1.5"], "nano-sd-tiny", "block_out_channels (32, 64, 64, 64) is (32, 64, 64)"),
        (FAMILY["nano-sd-1.5"], "nano-sd-small", "22 resnets and 16 transformer blocks"),
        (FAMILY["nano-sdxl"], "nano-ssd-1b", "mid_block_type 'UNetMidBlock2DCrossAttn' is 'UNetMidBlock2D'"),
        (FAMILY["nano-koala-1b"], "nano-koala-700m", "mid_block_type 'UNetMidBlock2DCrossAttn' is None"),
        (FAMILY["nano-sdxl"] | {"transformer_layers_per_block": (1, 2)}, "nano-sdxl", "do not go together"),
        ({"attention_head_dim": [1, 2]}, "nano-sdxl", "cross_attention_dim 1280 is 128"),
    ],
)  # fmt: skip
def test_a_wrong_config_json_gives_way_to_the_weights(wrong: dict[str, Any], member: str, note: str) -> None:
    found = detect(shapes(FAMILY[member]), wrong)
    assert note in "; ".join(found.notes)
    assert everything(found.config) == everything(FAMILY[member])
    assert tuple(found.config["block_out_channels"]) == FAMILY[member]["block_out_channels"]


NANO = shapes(FAMILY["nano-sdxl"])
REFINER = FAMILY["sdxl"] | {
    "block_out_channels": (384, 768, 1536, 1536), "cross_attention_dim": 1280, "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4, "attention_head_dim": (6, 12, 24, 24),
    "projection_class_embeddings_input_dim": 2560,
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({}, "holds no tensors"),
        ({"lora_unet_mid_block.lora_down.weight": (4, 8), "lora_unet_mid_block.alpha": (),
          "lora_unet_mid_block.lora_up.weight": (8, 4)}, "is a LoRA file"),
        ({"unet.mid_block.attentions.0.to_q.lora_A.weight": (4, 8)}, "is a LoRA file"),
        ({"base_model.model.mid_block.to_q.lora_B.weight": (8, 4)}, "is a LoRA file"),
        ({"joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "is a diffusion transformer"),
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (8, 8)}, "is a diffusion transformer"),
        ({"transformer_blocks.0.attn.to_q.weight": (8, 8)}, "is a diffusion transformer"),
        (NANO | {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "is a ControlNet"),
        ({"control_model.input_blocks.0.0.weight": (32, 4, 3, 3)}, "is a ControlNet"),
        ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.mid_block.resnets.0.norm1.bias": (4,)}, "is a VAE"),
        ({"first_stage_model.decoder.mid.block_1.norm1.bias": (4,)}, "is a VAE"),
        ({"text_model.embeddings.token_embedding.weight": (10, 4)}, "is a text tower"),
        ({"ip_adapter.1.to_k_ip.weight": (8, 8)}, "is an IP-Adapter"),
        ({"down_blocks.0.motion_modules.0.norm.weight": (8,)}, "is a video model"),
        (shapes(REFINER), "is the SDXL refiner"),
        (in_sgm(NANO, FAMILY["nano-sdxl"]) | {"conditioner.embedders.0.model.ln_final.bias": (4,)}, "the SDXL refiner"),
        (shapes(FAMILY["sd-1.5"] | {"in_channels": 9}), "takes 9 channels and returns 4, so it is an inpainting UNet"),
        (shapes(FAMILY["nano-sd-1.5"] | {"in_channels": 8}), "a UNet that edits"),
        ({"some.weight": (3, 3)}, "1 unexpected (some.weight)"),
        ({"module." + name: shape for name, shape in NANO.items()}, "its names all begin with 'module.'"),
    ],
)  # fmt: skip
def test_what_is_no_unet_of_the_family_is_named(found: Shapes, says: str) -> None:
    with pytest.raises(ValueError) as told:  # noqa: PT011  the message is looked at below
        detect(found, where="given.safetensors")
    assert says in str(told.value)
    assert str(told.value).startswith("given.safetensors")


def refused(found: Shapes) -> str:
    with pytest.raises(ValueError, match="does not fit") as told:
        detect(found)
    return str(told.value)


@pytest.mark.parametrize("member", ["nano-ssd-1b", "nano-sd-tiny"])
@pytest.mark.parametrize("layout", ["diffusers", "sgm"])
def test_weights_that_are_gone_are_named_in_the_files_own_names(member: str, layout: str) -> None:
    ours = shapes(FAMILY[member])
    found = ours if layout == "diffusers" else in_sgm(ours, FAMILY[member])
    gone = [name for name in found if name.endswith("attn1.to_q.weight")][1:3]
    message = refused({name: shape for name, shape in found.items() if name not in gone})
    assert f"2 missing ({', '.join(sorted(gone))})" in message
    assert (
        f"the nearest member of the family is {member!r}, of whose {len(ours)} weights {len(ours) - 2} are there"
        in message
    )
    assert message.endswith("fetch it again")


def test_names_that_belong_to_no_part_are_told_when_others_are_missing() -> None:
    found = in_sgm(NANO, FAMILY["nano-sdxl"]) | {"first_stage_model.x": (1,), "alphas_cumprod": (1000,)}
    moved = {f"x.{name}" if "input_blocks.4." in name else name: shape for name, shape in found.items()}
    message = refused(moved)
    assert "58 missing (model.diffusion_model.input_blocks.4.0." in message
    assert "58 unexpected (x.model.diffusion_model.input_blocks.4.0." in message
    assert "the nearest member of the family is 'nano-sdxl'" in message


@settings(max_examples=8, deadline=None)
@given(
    name=st.sampled_from(sorted(NANO)), rename=st.booleans(), lists=st.lists(st.integers(0, 70), max_size=4),
    sgm=st.booleans(), index=st.sampled_from(["7", "60", "9999999999"]),
)  # fmt: skip
def test_any_damage_is_told_and_never_another_error(
    name: str, rename: bool, lists: list[int], sgm: bool, index: str
) -> None:
    damaged = dict(NANO)
    shape = damaged.pop(name)
    if rename:
        damaged[re.sub(r"\d+", index, name, count=1) if re.search(r"\d", name) else f"x{name}"] = shape
    else:
        damaged[name] = (*lists, 71)
    found = in_sgm(damaged, FAMILY["nano-sdxl"]) if sgm and not rename else damaged
    with pytest.raises(ValueError, match=r"^this "):
        detect(found)


def test_half_a_file_is_refused() -> None:
    names = sorted(NANO)
    message = refused({name: NANO[name] for name in names[: len(names) // 2]})
    assert "839 missing" in message
    assert "nano-sdxl" in message


def test_shapes_and_names_that_are_wrong_are_shown_beside_the_right_ones() -> None:
    name = "mid_block.resnets.0.conv1.weight"
    message = refused(NANO | {name: (64, 64, 1, 1), "extra.bias": (3,)})
    assert f"1 misshaped ({name} (64, 64, 1, 1) instead of (64, 64, 3, 3))" in message
    assert "1 unexpected (extra.bias)" in message


def test_a_long_list_is_cut_and_counted() -> None:
    message = str(misfit({f"w{i:02}": (1,) for i in range(30)}, {}, near=""))
    assert "30 missing (w00, w01, w02, w03, w04, w05, w06, w07, ...)" in message


def test_the_nearest_member_is_the_one_that_shares_most() -> None:
    assert nearest_member(shapes(FAMILY["koala-700m"]))[0] == "koala-700m"
    assert nearest_member({"x": (1,)})[0] is None


def test_detected_says_where_a_unet_lies() -> None:
    found = detect(in_sgm(NANO, FAMILY["nano-sdxl"]) | {"first_stage_model.decoder.conv_in.bias": (64,)})
    assert isinstance(found, Detected)
    assert found.prefix == SGM
    assert len(found.pairs(list(NANO))) == len(NANO)
