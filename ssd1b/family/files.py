"""Models as files: diffusers folders, hub ids, registry uris and the shipped nano family, by one kind of name.

A source is
  "nano"            the nano base teacher that ships in this repository
  "nano+retro"      the same with an expert's low-rank delta merged on load
  a path            a folder in diffusers layout
  "models:/..."     an MLflow registry uri; the caller resolves it with ssd1b.tracking, which may import MLflow
  anything else     a Hugging Face hub id
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from torch import Tensor
from transformers.utils import logging as transformers_logging

diffusers_logging.disable_progress_bar()  # bars of milliseconds, one per component, in every job's log
transformers_logging.disable_progress_bar()

NANO = Path(__file__).parents[1] / "assets" / "nano"


def resolve(source: str) -> tuple[str, Path | None]:
    """Return (path or hub id, expert delta or None) of a source.

    Raises:
        ValueError: the source is a path that does not exist, or an expert that does not ship.
    """
    if source.startswith("models:/"):
        raise ValueError(f"{source} is a registry uri: download it with ssd1b.tracking.download first")
    name, plus, expert = source.partition("+")
    if name == "nano":
        delta = NANO / "experts" / f"{expert}.safetensors"
        if plus and not delta.exists():
            known = sorted(path.stem for path in delta.parent.glob("*.safetensors"))
            raise ValueError(f"no expert {expert!r} in the nano family: choose from {known}")
        return str(NANO), delta if plus else None
    if source.startswith((".", "/")) and not Path(source).is_dir():
        raise ValueError(f"no model folder at {source}: give a folder in diffusers layout, a hub id, or 'nano'")
    return source, None


def load_unet(source: str, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """Return the UNet of a source, in eval mode."""
    where, delta = resolve(source)
    unet = UNet2DConditionModel.from_pretrained(where, subfolder="unet", dtype=dtype, **offline(where))
    if delta is not None:
        merge_delta(unet, delta)
    return unet.eval()  # type: ignore[no-any-return]


def load_vae(source: str, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """Return the VAE of a source, in eval mode."""
    where, _ = resolve(source)
    vae = AutoencoderKL.from_pretrained(where, subfolder="vae", dtype=dtype, **offline(where))
    return vae.eval()  # type: ignore[no-any-return]


def load_pipeline(source: str, dtype: torch.dtype = torch.float32, **parts: Any) -> StableDiffusionXLPipeline:
    """Return the whole pipeline of a source; parts replace components (unet=...)."""
    where, delta = resolve(source)
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        where, dtype=dtype, add_watermarker=False, **offline(where), **parts
    )
    if delta is not None and "unet" not in parts:
        merge_delta(pipeline.unet, delta)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def offline(where: str) -> dict[str, bool]:
    """Never ask a hub about a folder that is here."""
    return {"local_files_only": True} if Path(where).is_dir() else {}


@torch.no_grad()
def merge_delta(unet: UNet2DConditionModel, path: Path) -> None:
    """Add a low-rank delta to the weights: W += up @ down for each tensor it names, shapes as W flattened to 2-D.

    Raises:
        ValueError: the delta names a weight the UNet lacks, or of another shape.
    """
    weights = dict(unet.named_parameters())
    with safe_open(path, framework="pt") as file:
        names = sorted(name.removesuffix(".down") for name in file.keys() if name.endswith(".down"))  # noqa: SIM118
        for name in names:
            weight = weights.get(name)
            if weight is None:
                raise ValueError(f"{path} changes {name}, which this UNet does not have")
            up, down = file.get_tensor(f"{name}.up").float(), file.get_tensor(f"{name}.down").float()
            if (up.shape[0], down.shape[1]) != flat(weight).shape:
                raise ValueError(f"{path}: {name} has shape {tuple(weight.shape)}, the delta does not fit it")
            weight += (up @ down).reshape(weight.shape).to(weight.dtype)
        full = [name for name in file.keys() if not name.endswith((".down", ".up"))]  # noqa: SIM118
        for name in full:
            if name not in weights:
                raise ValueError(f"{path} changes {name}, which this UNet does not have")
            weights[name] += file.get_tensor(name).to(weights[name].dtype)


def low_rank_delta(base: UNet2DConditionModel, expert: UNet2DConditionModel, rank: int) -> dict[str, Tensor]:
    """Return expert minus base in fp16: matrices and kernels as a rank-`rank` product (SVD), vectors in full."""
    delta: dict[str, Tensor] = {}
    after = dict(expert.named_parameters())
    for name, before in base.named_parameters():
        change = (after[name] - before).detach()
        if change.ndim < 2:
            delta[name] = change.half()
            continue
        u, s, v = torch.linalg.svd(flat(change), full_matrices=False)
        r = min(rank, len(s))
        delta[f"{name}.up"] = (u[:, :r] * s[:r].sqrt()).half().contiguous()
        delta[f"{name}.down"] = (s[:r].sqrt()[:, None] * v[:r]).half().contiguous()
    return delta


def flat(weight: Tensor) -> Tensor:
    """View a matrix or convolution kernel as (out, everything else)."""
    return weight.reshape(weight.shape[0], -1)


def unet_config(folder: Path) -> dict[str, Any]:
    """Return the UNet config of a diffusers folder as JSON."""
    config: dict[str, Any] = json.loads((folder / "unet" / "config.json").read_text())
    return config
