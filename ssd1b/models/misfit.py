"""Why weights do not fit, said so that a person can act on it: what they are instead, or which are wrong."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

import torch

from ssd1b.family.table import FAMILY, new_unet
from ssd1b.models.header import Shape

SHOWN = 8
LORA = re.compile(r"(^|[._])lora([._]|$)|lora_(A|B|up|down|unet|te)|hada_w|lokr_|dora_scale|lora_magnitude")


def some(*patterns: str) -> Callable[[Iterable[str]], bool]:
    """Return whether any name matches one of the patterns."""
    pattern = re.compile("|".join(patterns))
    return lambda names: any(pattern.search(name) for name in names)


def mostly_lora(names: Iterable[str]) -> bool:
    names = list(names)
    return sum(bool(LORA.search(name)) for name in names) > len(names) / 2


UNET = some(r"(^|\.)down_blocks\.\d+\.resnets\.", r"input_blocks\.\d")
KINDS: tuple[tuple[Callable[[Iterable[str]], bool], str], ...] = (
    (lambda names: not list(names), "holds no tensors: fetch it again"),
    (mostly_lora, "is a LoRA file, low-rank changes and no model: give the model it was made for and apply it there"),
    (
        some("controlnet_", r"^control_model\.", "input_hint_block"),
        "is a ControlNet, which steers a UNet and is none: give the model it steers",
    ),
    (
        some(
            "joint_blocks", "double_blocks", "single_transformer_blocks", r"(^|diffusion_model\.)transformer_blocks\."
        ),
        "is a diffusion transformer (SD3, Flux and the like), which has no UNet: give an SDXL or SD-1.5 line model",
    ),
    (
        lambda names: some(r"^conditioner\.embedders\.0\.model\.")(names) and UNET(names),
        "is the SDXL refiner, the second stage that repaints pictures: give the base model",
    ),
    (some("motion_modules", "temporal_"), "is a video model: give an image model of the SDXL or SD-1.5 line"),
    (some(r"^(image_proj|ip_adapter)\."), "is an IP-Adapter, an addition to a UNet: give the model it belongs to"),
    (
        lambda names: some(r"^(first_stage_model\.)?(encoder|decoder)\.(mid|conv_in)")(names) and not UNET(names),
        "is a VAE and no UNet: give it as the vae, and a UNet here",
    ),
    (
        lambda names: some("token_embedding", "text_model")(names) and not UNET(names),
        "is a text tower and no UNet: give the UNet, or the folder of the whole pipeline",
    ),
)


def foreign(names: Iterable[str]) -> str | None:
    """Return what weights are that are no UNet of this family's kind, and the fix; None if they may be one."""
    names = list(names)
    return next((sentence for applies, sentence in KINDS if applies(names)), None)


def misfit(
    expected: Mapping[str, Shape], found: Mapping[str, Shape], where: str = "these weights", *, near: str | None = None
) -> ValueError:
    """Return the error for weights that are not the expected ones: missing, unexpected and misshaped names.

    near says which member of the family is nearest; for a UNet in diffusers' names it is found here.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shared = sorted(expected.keys() & found.keys())
    misshaped = [
        f"{name} {tuple(found[name])} instead of {tuple(expected[name])}"
        for name in shared
        if tuple(found[name]) != tuple(expected[name])
    ]
    parts = [few(missing, "missing"), few(unexpected, "unexpected"), few(misshaped, "misshaped")]
    hint = renaming(found) or ("fetch it again" if missing and not unexpected and not misshaped else "")
    near = nearest_member(found)[1] if near is None else near
    return ValueError("; ".join(filter(None, [f"{where} does not fit: " + "; ".join(filter(None, parts)), near, hint])))


def few(names: list[str], what: str) -> str:
    """Return a count and the first names."""
    dots = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{dots})" if names else ""


def renaming(found: Mapping[str, Shape]) -> str:
    """Return a hint where a UNet's names all stand under one more name, as after saving a wrapped module."""
    heads = [name.removesuffix("conv_in.weight") for name in found if name.endswith(".conv_in.weight")]
    if len(heads) == 1 and sum(name.startswith(heads[0]) for name in found) > len(found) / 2:
        return f"its names all begin with {heads[0]!r}: save it again without that (a wrapped module's own weights)"
    return ""


def nearest_member(found: Mapping[str, Shape]) -> tuple[str | None, str]:
    """Return the member of the family that shares most weights by name and shape, and a sentence about it."""
    pairs = {(name, tuple(shape)) for name, shape in found.items()}
    best, shared, likeness, total = None, 0, 0.0, 0
    for name in FAMILY:
        theirs = set(member_shapes(name).items())
        common = len(pairs & theirs)
        if common / len(pairs | theirs) > likeness:
            best, shared, likeness, total = name, common, common / len(pairs | theirs), len(theirs)
    if best is None:
        return None, "no member of the family has a weight of such a name and shape"
    return best, f"the nearest member of the family is {best!r}, of whose {total} weights {shared} are there"


@cache
def member_shapes(name: str) -> Mapping[str, Shape]:
    """Return the shapes of a member's weights, without memory for them."""
    with torch.device("meta"):
        return {key: tuple(weight.shape) for key, weight in new_unet(name).state_dict().items()}
