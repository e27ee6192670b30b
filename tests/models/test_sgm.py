"""SGM's names: one list of pairs for both directions, against diffusers' own converters as the oracle."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders import single_file_utils as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from nano_pipelines import same
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ssd1b.family.keep import everything
from ssd1b.family.table import FAMILY, new_unet
from ssd1b.models.anatomy import diffusers_anatomy, sgm_anatomy
from ssd1b.models.pairs import Pair, renamed, their_shapes, to_ours, to_theirs
from ssd1b.models.sgm import old_vae_pairs, unet_modules, unet_pairs, vae_pairs
from ssd1b.models.sgm_text import clip_pairs, open_clip_pairs

UNET, VAE, SECOND = "model.diffusion_model.", "first_stage_model.", "conditioner.embedders.1.model."
Tensors = dict[str, torch.Tensor]


def shapes(member: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in new_unet(member).state_dict().items()}


def there(pairs: list[Pair], ours: Tensors, prefix: str = "") -> Tensors:
    return {prefix + pair.theirs: to_theirs(pair, ours) for pair in pairs}


def back(pairs: list[Pair], theirs: Tensors, prefix: str = "") -> Tensors:
    return {name: part for pair in pairs for name, part in to_ours(pair, theirs[prefix + pair.theirs]).items()}


@pytest.mark.parametrize("member", FAMILY)
def test_names_of_a_unet_go_there_and_back(member: str) -> None:
    ours = list(shapes(member))
    modules = unet_modules(everything(FAMILY[member]))
    theirs = [renamed(name, modules) for name in ours]
    assert len(set(theirs)) == len(ours)
    inverse = {b: a for a, b in modules.items()}
    assert [renamed(name or "", inverse) for name in theirs] == ours
    assert diffusers_anatomy(ours) == sgm_anatomy(map(str, theirs)) == everything(FAMILY[member])


@pytest.mark.parametrize(
    ("member", "ours", "theirs"),
    [
        ("sd-1.5", "up_blocks.3.resnets.2.conv_shortcut.weight", "output_blocks.11.0.skip_connection.weight"),
        ("sd-1.5", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
         "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"),
        ("sd-1.5", "up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"),
        ("sdxl", "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.weight",
         "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight"),
        ("sdxl", "add_embedding.linear_1.weight", "label_emb.0.0.weight"),
        ("sdxl", "up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
        ("sdxl", "mid_block.resnets.1.conv2.weight", "middle_block.2.out_layers.3.weight"),
        ("ssd-1b", "mid_block.resnets.0.conv1.weight", "middle_block.0.in_layers.2.weight"),
        ("ssd-1b", "up_blocks.0.attentions.2.transformer_blocks.9.norm1.bias",
         "output_blocks.2.1.transformer_blocks.9.norm1.bias"),
        ("koala-1b", "down_blocks.2.attentions.0.proj_in.weight", "input_blocks.5.1.proj_in.weight"),
        ("koala-700m", "up_blocks.1.upsamplers.0.conv.weight", "output_blocks.3.2.conv.weight"),
        ("sd-tiny", "down_blocks.1.downsamplers.0.conv.weight", "input_blocks.4.0.op.weight"),
    ],
)  # fmt: skip
def test_names_that_are_known_from_published_files(member: str, ours: str, theirs: str) -> None:
    """A1111's, ComfyUI's and diffusers' detection rules look for these."""
    assert renamed(ours, unet_modules(everything(FAMILY[member]))) == theirs
    assert ours in shapes(member)


@pytest.mark.parametrize(("member", "middle"), [("ssd-1b", {"0"}), ("sdxl", {"0", "1", "2"}), ("koala-700m", set())])
def test_the_middle_block_is_as_the_wild_has_it(member: str, middle: set[str]) -> None:
    theirs = unet_modules(everything(FAMILY[member])).values()
    assert {path.split(".")[1] for path in theirs if path.startswith("middle_block.")} == middle


@pytest.mark.parametrize("member", [name for name in FAMILY if name.startswith("nano-")])
def test_diffusers_reads_our_unets_as_we_do(member: str) -> None:
    unet = new_unet(member)
    ours = unet.state_dict()
    pairs = unet_pairs(ours, everything(unet.config))
    theirs = there(pairs, ours, UNET)
    assert same(oracle.convert_ldm_unet_checkpoint(dict(theirs), dict(unet.config)), ours)
    assert same(back(pairs, theirs, UNET), ours)


def new_vae(layers: int, widths: tuple[int, ...]) -> Any:
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
    }
    return AutoencoderKL(block_out_channels=widths, norm_num_groups=4, layers_per_block=layers, **kinds)


@pytest.mark.parametrize(("layers", "widths"), [(2, (8, 16, 16, 16)), (1, (8, 16, 16)), (2, (8, 12))])
def test_diffusers_reads_our_vaes_as_we_do(layers: int, widths: tuple[int, ...]) -> None:
    vae = new_vae(layers, widths)
    ours = vae.state_dict()
    pairs = vae_pairs(ours, len(widths), layers)
    theirs = there(pairs, ours, VAE)
    assert theirs[f"{VAE}encoder.mid.attn_1.q.weight"].shape == (widths[-1], widths[-1], 1, 1)
    if layers == 2:  # diffusers' converter looks for no other number of layers on the way up
        assert same(oracle.convert_ldm_vae_checkpoint(dict(theirs), dict(vae.config)), ours)
    assert same(back(pairs, theirs, VAE), ours)
    assert their_shapes(pairs, {n: tuple(w.shape) for n, w in ours.items()}) == {
        name.removeprefix(VAE): tuple(weight.shape) for name, weight in theirs.items()
    }


def test_old_names_of_a_vaes_attention_are_those_that_diffusers_converts() -> None:
    vae = new_vae(1, (8, 16))
    ours = {name: torch.randn_like(weight) for name, weight in vae.state_dict().items()}
    old = there(old_vae_pairs(list(ours)), ours)
    assert {
        "encoder.mid_block.attentions.0.query.weight",
        "decoder.mid_block.attentions.0.proj_attn.bias",
    } <= old.keys()
    vae._fix_state_dict_keys_on_load(old)
    assert same(old, ours)


def new_tower(kind: type, layers: int, width: int, projection: int) -> Any:
    return kind(
        CLIPTextConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
            projection_dim=projection, vocab_size=30, max_position_embeddings=8, bos_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(layers=st.integers(1, 3), width=st.sampled_from([4, 8]), projection=st.sampled_from([4, 6]))
def test_diffusers_reads_our_open_clip_tower_as_we_do(layers: int, width: int, projection: int) -> None:
    tower = new_tower(CLIPTextModelWithProjection, layers, width, projection)
    ours = {name: torch.randn_like(weight) for name, weight in tower.state_dict().items()}
    pairs = open_clip_pairs(ours)
    theirs = there(pairs, ours, SECOND)
    assert theirs[f"{SECOND}text_projection"].shape == (width, projection)
    assert theirs[f"{SECOND}transformer.resblocks.0.attn.in_proj_bias"].shape == (3 * width,)
    assert same(oracle.convert_open_clip_checkpoint(tower, dict(theirs), prefix=SECOND), ours)
    assert same(back(pairs, theirs, SECOND), ours)


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
@pytest.mark.parametrize("prefixed", [True, False])
def test_a_clip_tower_is_read_with_and_without_its_prefix(kind: type, prefixed: bool) -> None:
    ours = new_tower(kind, 2, 8, 4).state_dict()
    written = there(clip_pairs(ours), ours)
    assert all(name.startswith("text_model.") or name == "text_projection.weight" for name in written)
    found = written if prefixed else {name.removeprefix("text_model."): part for name, part in written.items()}
    assert same(back(clip_pairs(ours, found), found), ours)


@pytest.mark.parametrize("prefix", ["conditioner.embedders.0.transformer.", "cond_stage_model.transformer."])
def test_diffusers_reads_our_clip_towers_as_we_do(prefix: str) -> None:
    ours = new_tower(CLIPTextModel, 2, 8, 4).state_dict()
    read = oracle.convert_ldm_clip_checkpoint(there(clip_pairs(ours), ours, prefix))
    assert same({name.removeprefix("text_model."): part for name, part in read.items()}, ours)


def test_a_name_that_the_other_layout_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder_hid_proj\.weight has no name in the other layout"):
        unet_pairs(["encoder_hid_proj.weight"], everything(FAMILY["sdxl"]))
    with pytest.raises(ValueError, match="is in no OpenCLIP tower"):
        open_clip_pairs(["text_model.encoder.layers.0.extra.weight"])
