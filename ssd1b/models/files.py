"""Models by the name of their source: diffusers folders, single files, hub ids, registry uris and the shipped family.

A source is
  "nano"            the nano base teacher that ships in this repository
  "nano+retro"      the same with an expert's low-rank delta merged on load
  a folder          in diffusers layout, or a component folder of one (`unet/`)
  a .safetensors    a whole SGM checkpoint, or a UNet or VAE alone
  "models:/..."     an MLflow registry uri; the caller resolves it with ssd1b.tracking, which may import MLflow
  owner/name        a Hugging Face hub id

Whatever it is, its weights are read without running code, recognised by their names and shapes, and loaded strictly.
"""

from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from ssd1b.command import show
from ssd1b.models.build import TOWERS, build_tower, build_unet, build_vae
from ssd1b.models.delta import low_rank_delta, merge_delta
from ssd1b.models.header import Shape
from ssd1b.models.places import Place, SingleFile, read_json
from ssd1b.models.saving import save_folder, save_single_file
from ssd1b.models.sources import GIVE_DONOR, NANO, giver, placed, resolve
from ssd1b.models.weights import Weights

__all__ = [
    "NANO", "load_pipeline", "load_unet", "load_vae", "low_rank_delta", "merge_delta", "resolve", "save_folder",
    "save_single_file", "shapes_of", "unet_config",
]  # fmt: skip

diffusers_logging.disable_progress_bar()  # bars of milliseconds, one per component, in every job's log
transformers_logging.disable_progress_bar()

Pipeline: TypeAlias = StableDiffusionXLPipeline | StableDiffusionPipeline
SECOND = ("text_encoder_2", "tokenizer_2")
"""What the SDXL line has and the SD-1.5 line has not."""


def load_unet(source: str, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """Return the UNet of a source, in eval mode.

    Raises:
        ValueError: no such source, or weights that are not a whole UNet of this kind; the message says what they are.
    """
    where, delta = resolve(source)
    return unet_at(placed(where, ("unet",), dtype), delta, source, dtype)


def unet_at(place: Place, delta: Path | None, source: str, dtype: torch.dtype) -> UNet2DConditionModel:
    """Return the UNet that lies at a place, with an expert's delta."""
    weights = place.weights("unet", dtype)
    if weights is None:
        only = ", ".join(part for part in ("vae", *TOWERS) if place.has(part))
        raise ValueError(f"{source} has no unet, only {only}: give a UNet, or the folder or file of a whole pipeline")
    unet = build_unet(weights, place.config("unet"), dtype)
    if delta is not None:
        merge_delta(unet, delta)
    return unet


def load_vae(source: str, dtype: torch.dtype = torch.float32, donor: str | None = None) -> AutoencoderKL:
    """Return the VAE of a source, in eval mode. A single file takes the VAE's config from the donor, another source.

    Raises:
        ValueError: no such source, no config, or weights that do not fit it.
    """
    place = placed(resolve(source)[0], ("vae",), dtype)
    weights = place.weights("vae", dtype)
    if weights is None:
        raise ValueError(f"{source} has no vae: give a VAE, or the folder or file of a whole pipeline")
    config = place.config("vae") or giver(place, donor, source, ["config of a VAE"], dtype).config("vae")
    if config is None:
        raise ValueError(f"{source} has no config of its VAE and its donor has none: {GIVE_DONOR}")
    return build_vae(weights, config, dtype)


def load_pipeline(source: str, dtype: torch.dtype = torch.float32, donor: str | None = None, **parts: Any) -> Pipeline:
    """Return the whole pipeline of a source; parts replace components (unet=...), None leaves them out.

    What the source lacks, as a single file lacks tokenizers, a scheduler and configs, comes from the donor, another
    source: by default the shipped nano family at its widths, else SDXL base or SD-1.5 of the hub. A UNet without SDXL's
    added conditions makes a StableDiffusionPipeline; its safety checker is left out unless it is given.

    Raises:
        ValueError: no such source, weights that do not fit, or a part that neither source nor donor has.
    """
    where, delta = resolve(source)
    own = placed(where, [name for name in ("unet", "vae", *TOWERS) if name not in parts], dtype)
    unet = parts.pop("unet") if "unet" in parts else unet_at(own, delta, source, dtype)
    xl = bool(unet.config.addition_embed_type) if unet is not None else own.has("text_encoder_2")
    names = ["vae", "text_encoder", "tokenizer", "scheduler", *(SECOND if xl else ())]
    lacking = [name for name in names if name not in parts and not complete(own, name)]
    other = giver(own, donor, source, lacking, dtype) if lacking else own
    made = {name: parts.pop(name) if name in parts else part_of(name, own, other, source, dtype) for name in names}
    if xl:
        zeros = (own.index or other.index).get("force_zeros_for_empty_prompt", True)
        extra = {"force_zeros_for_empty_prompt": zeros, "add_watermarker": False}
        pipeline = StableDiffusionXLPipeline(unet=unet, **made, **(extra | parts))
    else:
        extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline(unet=unet, **made, **(extra | parts))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline  # type: ignore[no-any-return]


def complete(place: Place, name: str) -> bool:
    """Return whether a place has all that a part is made of."""
    if name in ("vae", *TOWERS):
        return place.has(name) and place.config(name) is not None
    return place.folder(name) is not None


def part_of(name: str, own: Place, other: Place, source: str, dtype: torch.dtype) -> Any:
    """Return a part of a pipeline: what a source has of it, and from the other place what it has not.

    Raises:
        ValueError: neither has it, or what the two have does not fit together.
    """
    if name in ("vae", *TOWERS):
        holder = own if own.has(name) else other
        weights, config = holder.weights(name, dtype), own.config(name) or other.config(name)
        if weights is None or config is None or not holder.has(name):
            raise ValueError(f"neither {source} nor its donor has a whole {name}: {GIVE_DONOR}")
        if holder is not own:
            show(f"{source} has no {name}: it is taken from {weights.where}")
        return build_vae(weights, config, dtype) if name == "vae" else build_tower(name, weights, config, dtype)
    folder = own.folder(name) or other.folder(name)
    if folder is None:
        raise ValueError(f"neither {source} nor its donor has a {name}: {GIVE_DONOR}")
    if name != "scheduler":
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    kind = read_json(folder / "scheduler_config.json").get("_class_name", "")
    if not hasattr(diffusers, kind):
        raise ValueError(f"{folder} names no scheduler that diffusers has ({kind!r}): give scheduler=...")
    scheduler = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    if isinstance(own, SingleFile) and own.schedule:
        return type(scheduler).from_config(scheduler.config, **own.schedule)
    return scheduler


def shapes_of(path: Path) -> dict[str, Shape]:
    """Return the names and shapes of a UNet's weights, or of all a single file holds, without reading them.

    path is a .safetensors file, a component folder or a folder in diffusers layout (its `unet/`).

    Raises:
        ValueError: no weights there, or not whole ones.
    """
    path = Path(path)
    inner = path / "unet"
    return Weights.open(inner if inner.is_dir() else path).shapes


def unet_config(folder: Path) -> dict[str, Any]:
    """Return the UNet config of a diffusers folder as JSON."""
    return read_json(folder / "unet" / "config.json")
