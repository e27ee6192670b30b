"""Models from weights, strictly: every weight of the model comes from the file, and every one of the file is used.

A model is first made without memory for its weights, and is given copies of the file's tensors, made one by one in the
wanted precision. So at no time do two whole copies exist, for the file's own pages are the system's to drop. The copies
lie where the allocator aligns them: arithmetic on views of a file differs in the last bit with where they begin in it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ssd1b.command import show
from ssd1b.models.detect import detect
from ssd1b.models.misfit import misfit
from ssd1b.models.pairs import Pair, identity, their_shapes, to_ours
from ssd1b.models.sgm import old_vae_pairs, vae_pairs
from ssd1b.models.sgm_text import clip_pairs, open_clip_pairs
from ssd1b.models.weights import Weights

Model = TypeVar("Model", bound=nn.Module)
TOWERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def build_unet(weights: Weights, config: Mapping[str, Any] | None, dtype: torch.dtype) -> UNet2DConditionModel:
    """Return the UNet of weights in diffusers' or SGM's names; config is its config.json, if there is one.

    Raises:
        ValueError: the weights are those of something else, or not whole.
    """
    detected = detect(weights.shapes, config, weights.where)
    if detected.notes:
        show(f"{weights.where}: the weights are right where config.json is not: {'; '.join(detected.notes)}")
    unet = blank(lambda: UNet2DConditionModel.from_config(detected.config))
    return filled(unet, weights.under(detected.prefix), detected.pairs(list(unet.state_dict())), dtype)


def build_vae(weights: Weights, config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKL:
    """Return the VAE of a config, with weights in diffusers' names (new or old) or ldm's.

    Raises:
        ValueError: another kind of VAE, or weights that do not fit the config.
    """
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise ValueError(f"{weights.where} is the weights of a {kind}: give a VAE of the kind AutoencoderKL")
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    vae = blank(lambda: AutoencoderKL.from_config(plain))
    names = list(vae.state_dict())
    if any(name.startswith(("encoder.down.", "decoder.up.")) for name in weights):
        pairs = vae_pairs(names, len(vae.config.block_out_channels), vae.config.layers_per_block)
    else:
        pairs = old_vae_pairs(names) if any(".query." in name for name in weights) else identity(names)
    return filled(vae, weights, pairs, dtype)


def build_tower(
    name: str, weights: Weights, config: Mapping[str, Any], dtype: torch.dtype
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Return the text tower "text_encoder" or "text_encoder_2", with weights in transformers' or OpenCLIP's names.

    Raises:
        ValueError: weights that do not fit the config.
    """
    tower = blank(lambda: TOWERS[name](CLIPTextConfig.from_dict(dict(config))))
    names = list(tower.state_dict())
    open_clip = any(".resblocks." in key for key in weights)
    tower.config.dtype = dtype
    return filled(tower, weights, open_clip_pairs(names) if open_clip else clip_pairs(names, weights), dtype)


def blank(make: Callable[[], Model]) -> Model:
    """Return a model without memory for its weights."""
    with init_empty_weights(include_buffers=False):
        return make()


def filled(model: Model, weights: Weights, pairs: Sequence[Pair], dtype: torch.dtype) -> Model:
    """Return the model with the weights as its own, in eval mode.

    Raises:
        ValueError: names or shapes differ, or weights are whole numbers, as quantised ones are.
    """
    expected = their_shapes(pairs, {name: tuple(weight.shape) for name, weight in model.state_dict().items()})
    if expected != weights.shapes:
        raise misfit(expected, weights.shapes, weights.where, near="")
    if whole := [name for name, kind in weights.dtypes.items() if not kind.is_floating_point]:
        raise ValueError(
            f"{weights.where}: {len(whole)} weights are whole numbers ({whole[0]}, ...), so they are quantised: "
            f"give the weights in float16 or float32"
        )
    state = {
        name: part.to(dtype, copy=True, memory_format=torch.contiguous_format)
        for pair in pairs
        for name, part in to_ours(pair, weights[pair.theirs]).items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()
