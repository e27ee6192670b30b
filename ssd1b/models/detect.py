"""What a UNet is, from the names and shapes of its weights alone.

Levels, layers, attention and its depth, the mid block, widths, the width of the text, the kind of projection and the
channels all follow from the weights. What does not: the number of attention heads, the groups of the norms, the size of
a time id's embedding and the size of the pictures. These come from config.json where there is one, else from the member
of the family that has the same widths and text width; else heads are 64 wide where the projection is linear (as in
SDXL) and 8 in number where it is not (as in SD-1.5), norms have 32 groups, and time ids 256 numbers.

A config.json may be wrong, as those of distill-sd's own checkpoints are: in what follows from the weights, they win.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.keep import ATTENTION_MID, RESNET_MID, KeepMap, depth_config, everything
from ssd1b.family.table import FAMILY
from ssd1b.models.anatomy import diffusers_anatomy, sgm_anatomy
from ssd1b.models.header import Shape
from ssd1b.models.misfit import foreign, member_shapes, misfit, nearest_member
from ssd1b.models.pairs import Pair, identity, renamed, their_shapes
from ssd1b.models.sgm import unet_modules, unet_pairs

Config = dict[str, Any]

SGM = "model.diffusion_model."
OTHERS = (
    "first_stage_model.", "conditioner.", "cond_stage_model.", "model_ema.", "alphas_cumprod", "betas", "sqrt_",
    "log_one_minus", "posterior_", "denoiser.", "lvlb_weights", "v_pred", "ztsnr",
)  # fmt: skip
"""What else a whole SGM checkpoint holds."""
REFINER = (384, 768, 1536, 1536)
CHANNELS = {
    9: "an inpainting UNet (picture, mask and masked picture)",
    8: "a UNet that edits or sharpens pictures",
}


@dataclass(frozen=True)
class Detected:
    """What the weights of a UNet say it is."""

    layout: str
    """"diffusers" or "sgm": whose names the weights have."""
    prefix: str
    """What stands before every name of the UNet: `model.diffusion_model.` in a whole SGM checkpoint, else nothing."""
    config: Config
    """The diffusers config."""
    member: str | None
    """The member of the family it is; None: a student of one's own."""
    notes: tuple[str, ...] = ()
    """What the given config.json said otherwise."""

    def pairs(self, names: list[str]) -> list[Pair]:
        """Return the pairs of the UNet's names in diffusers and in its file, prefix not counted."""
        return identity(names) if self.layout == "diffusers" else unet_pairs(names, everything(self.config))


def detect(shapes: Mapping[str, Shape], config: Mapping[str, Any] | None = None, where: str = "this") -> Detected:
    """Return what the UNet is whose weights have these names and shapes; config is its config.json, if there is one.

    Raises:
        ValueError: it is something else (the message says what), or its weights do not make a whole UNet.
    """
    if reason := foreign(shapes):
        raise ValueError(f"{where} {reason}")
    prefix = SGM if any(name.startswith(f"{SGM}input_blocks.") for name in shapes) else ""
    layout = "sgm" if prefix or any(name.startswith("input_blocks.") for name in shapes) else "diffusers"
    found = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items() if name.startswith(prefix)}
    anatomy = diffusers_anatomy(found) if layout == "diffusers" else sgm_anatomy(found)
    modules = {theirs: ours for ours, theirs in unet_modules(anatomy).items()} if layout == "sgm" else {}
    ours = {renamed(name, modules) or name: shape for name, shape in found.items()}
    strays = {name: shape for name, shape in shapes.items() if prefix and not name.startswith((prefix, *OTHERS))}
    if not whole(anatomy, ours):
        nearest, sentence = nearest_member(ours)
        kin = member_shapes(nearest or "sdxl")
        names = unet_pairs(list(kin), everything(FAMILY[nearest or "sdxl"])) if layout == "sgm" else identity(kin)
        raise misfit(under(prefix, their_shapes(names, kin)), under(prefix, found) | strays, where, near=sentence)
    derived = facts(ours, anatomy)
    refuse(derived, where)
    try:
        derived |= depth_config(anatomy)
    except ValueError as error:
        raise ValueError(f"{where} is a UNet for which diffusers has no config: {error}") from error
    notes = disagreements(config, derived) if config is not None else ()
    full = completed(derived, config)
    detected = Detected(layout, prefix, full, member_of(full), notes)
    expected = shapes_of_config(full, where)
    theirs = their_shapes(detected.pairs(list(expected)), expected)
    if theirs != found:
        raise misfit(under(prefix, theirs), under(prefix, found) | strays, where, near=nearest_member(ours)[1])
    return detected


def under(prefix: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the names as they stand in the file."""
    return {prefix + name: shape for name, shape in shapes.items()}


def whole(anatomy: KeepMap, ours: Mapping[str, Shape]) -> bool:
    """Return whether the weights are enough of a UNet to say which one."""
    down, up = [len(block.layers) for block in anatomy.down], [len(block.layers) for block in anatomy.up]
    ends = ["conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"]
    first = [f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(len(down))]
    balanced = bool(down) and min(down) > 0 and [n + 1 for n in reversed(down)] == up
    text = [name for name in ours if name.endswith("attn2.to_k.weight")]
    extra = [name for name in ("add_embedding.linear_1.weight", "time_embedding.cond_proj.weight") if name in ours]
    return balanced and bool(text) and all(len(ours.get(name, ())) >= 2 for name in [*ends, *first, *text, *extra])


def facts(ours: Mapping[str, Shape], anatomy: KeepMap) -> Config:
    """Return all config keys that follow from the weights, but those about the depth of attentions."""
    down = [any(layer.blocks is not None for layer in block.layers) for block in anatomy.down]
    up = [any(layer.blocks is not None for layer in block.layers) for block in anatomy.up]
    counts = [len(block.layers) for block in anatomy.down]
    widths = tuple(ours[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(len(down)))
    time_width = ours["time_embedding.linear_1.weight"][0]
    added = ours.get("add_embedding.linear_1.weight")
    lcm = ours.get("time_embedding.cond_proj.weight")
    linear = [len(shape) == 2 for name, shape in ours.items() if name.endswith("proj_in.weight")]
    return {
        "in_channels": ours["conv_in.weight"][1],
        "out_channels": ours["conv_out.weight"][0],
        "conv_in_kernel": ours["conv_in.weight"][-1],
        "conv_out_kernel": ours["conv_out.weight"][-1],
        "block_out_channels": widths,
        "down_block_types": tuple("CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in down),
        "mid_block_type": None if anatomy.mid is None else ATTENTION_MID if anatomy.mid else RESNET_MID,
        "up_block_types": tuple("CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in up),
        "layers_per_block": counts[0] if len(set(counts)) == 1 else tuple(counts),
        "cross_attention_dim": next(shape[1] for name, shape in ours.items() if name.endswith("attn2.to_k.weight")),
        "use_linear_projection": all(linear),
        "time_embedding_dim": None if time_width == 4 * widths[0] else time_width,
        "time_cond_proj_dim": lcm[1] if lcm else None,
        "addition_embed_type": "text_time" if added else None,
        "projection_class_embeddings_input_dim": added[1] if added else None,
    }


def refuse(derived: Config, where: str) -> None:
    """Raise ValueError for UNets of other tasks, whose weights would fit and whose pictures would not."""
    if derived["block_out_channels"] == REFINER:
        raise ValueError(f"{where} is the SDXL refiner, the second stage that repaints pictures: give the base model")
    channels = derived["in_channels"], derived["out_channels"]
    if channels != (4, 4):
        kind = CHANNELS.get(channels[0], "a UNet of another kind of latents")
        raise ValueError(
            f"{where} takes {channels[0]} channels and returns {channels[1]}, so it is {kind}: "
            f"give a text-to-image UNet, which takes and returns 4"
        )


def completed(derived: Config, config: Mapping[str, Any] | None) -> Config:
    """Return the whole config: what follows from the weights, and the rest from config.json or the nearest kin."""
    kin = next((each for each in FAMILY.values() if kinship(each) == kinship(derived)), {})
    linear, widths = derived["use_linear_projection"], derived["block_out_channels"]
    plain = {
        "sample_size": 128 if linear else 64,
        "attention_head_dim": tuple(max(1, width // 64) for width in widths) if linear else 8,
        "norm_num_groups": 32,
        "addition_time_embed_dim": 256 if derived["addition_embed_type"] else None,
    }
    rest = plain | dict(kin)
    if config is not None:
        for key, value in (defaults() | dict(config)).items():
            of_other_levels = "head" in key and isinstance(value, list | tuple) and len(value) != len(widths)
            if not key.startswith("_") and not of_other_levels and (value is not None or key not in rest):
                rest[key] = value
    return rest | derived


def kinship(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(config["block_out_channels"]), config["cross_attention_dim"]


def defaults() -> Config:
    """Return what diffusers assumes of a UNet whose config.json does not say."""
    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters
    return {name: each.default for name, each in parameters.items() if name != "self"}


def disagreements(config: Mapping[str, Any], derived: Config) -> tuple[str, ...]:
    """Return what config.json says otherwise than the weights do."""
    stated = defaults() | dict(config)
    notes = []
    for key, value in derived.items():
        if key not in ("transformer_layers_per_block", "reverse_transformer_layers_per_block", "layers_per_block"):
            said = tuple(stated[key]) if isinstance(stated[key], list) else stated[key]
            if said != value:
                notes.append(f"{key} {said!r} is {value!r}")
    if notes:
        return tuple(notes)
    true = everything(derived)
    try:
        said = everything(stated)
    except (ValueError, TypeError, IndexError) as error:
        return (f"its layers and their depths do not go together ({error})",)
    stated_depths = f"{said.resnets} resnets and {said.depth} transformer blocks, or their places, are"
    return (f"{stated_depths} {true.resnets} and {true.depth}",) if said != true else ()


def member_of(config: Mapping[str, Any]) -> str | None:
    """Return the member of the family that a config describes; None if there is none."""
    return next((name for name, each in FAMILY.items() if likeness(each) == likeness(config)), None)


def likeness(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two configs of one architecture share, however they put it."""
    widths, heads = tuple(config["block_out_channels"]), config.get("attention_head_dim", 8)
    return (
        everything(config), widths, config["cross_attention_dim"], bool(config.get("use_linear_projection")),
        config.get("projection_class_embeddings_input_dim"), config.get("time_cond_proj_dim"),
        [heads] * len(widths) if isinstance(heads, int) else list(heads), config.get("norm_num_groups", 32),
        config.get("num_attention_heads"), config.get("time_embedding_dim"),
    )  # fmt: skip


def shapes_of_config(config: Mapping[str, Any], where: str) -> dict[str, Shape]:
    """Return the shapes of the weights that diffusers makes of a config."""
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(dict(config))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{where}: diffusers makes no UNet of its config ({error}): give its true config.json"
        ) from error
    return {name: tuple(weight.shape) for name, weight in unet.state_dict().items()}
