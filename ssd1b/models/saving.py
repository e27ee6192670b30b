"""Pipelines as files that others read: a folder in diffusers layout, or a single file in SGM layout.

Both appear whole or not at all. Nothing in them needs this project.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ssd1b.family.keep import everything
from ssd1b.models.aligned import write_aligned
from ssd1b.models.aside import new_file, new_folder
from ssd1b.models.detect import member_of
from ssd1b.models.misfit import LORA
from ssd1b.models.pairs import Pair, to_theirs
from ssd1b.models.places import PREFIXES
from ssd1b.models.sgm import unet_pairs, vae_pairs
from ssd1b.models.sgm_text import clip_pairs, open_clip_pairs

ARCHITECTURES = {"sdxl": "stable-diffusion-xl-v1-base", "sd-1.5": "stable-diffusion-v1"}


def save_folder(
    pipeline: DiffusionPipeline, folder: Path, dtype: torch.dtype | None = None, variant: str | None = None
) -> Path:
    """Write a pipeline in diffusers layout, which plain diffusers loads, and return the folder.

    dtype: of the weights; None: as they are. variant ("fp16"): a part of the weights' file names, which
    `from_pretrained(variant=...)` asks for. Text towers are written with transformers' older names, and tokenizers also
    in their older files, so that versions before 5 read them too.

    Raises:
        ValueError: the folder is there already, or adapters are loaded that are no part of the model.
    """
    with new_folder(Path(folder)) as aside:
        for name, part in pipeline.components.items():
            if isinstance(part, PreTrainedModel):
                write_tower(part, aside / name, dtype, variant)
            elif isinstance(part, nn.Module):
                part.save_config(aside / name)  # type: ignore[operator]
                tensors = converted(own_weights(part, name), dtype)
                write(tensors, aside / name / file_name("diffusion_pytorch_model", variant), {"format": "pt"})
            elif part is not None:
                part.save_pretrained(aside / name)
                if isinstance(part, PreTrainedTokenizerBase):
                    write_old_tokenizer(aside / name)
        pipeline.save_config(aside)
    return Path(folder)


def write_tower(tower: PreTrainedModel, folder: Path, dtype: torch.dtype | None, variant: str | None) -> None:
    """Write a text tower's config and weights."""
    config = deepcopy(tower.config)
    config.architectures, config.dtype = [type(tower).__name__], dtype or tower.dtype
    config.save_pretrained(folder)
    state = own_weights(tower, folder.name)
    tensors = {pair.theirs: to_theirs(pair, state) for pair in clip_pairs(state)}
    write(converted(tensors, dtype), folder / file_name("model", variant), {"format": "pt"})


def write_old_tokenizer(folder: Path) -> None:
    """Write vocab.json and merges.txt, which transformers before 5 reads, from the one file that 5 writes."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")


def save_single_file(
    pipeline: DiffusionPipeline, path: Path, dtype: torch.dtype | None = None, title: str | None = None
) -> Path:
    """Write a pipeline's UNet, VAE and text towers as one SGM checkpoint and return its path.

    Tokenizers and scheduler have no place in such a file; that the model predicts v or has a terminal SNR of zero is
    kept as the marks `v_pred` and `ztsnr`. The metadata follow Stability's ModelSpec 1.0; title defaults to the file's
    name.

    Raises:
        ValueError: a part is missing, the suffix is another, or adapters are loaded that are no part of the model.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: give a name that ends in .safetensors")
    tensors = converted(sgm_weights(pipeline), dtype)
    with new_file(path) as aside:
        write(tensors, aside, {"format": "pt"} | metadata(pipeline, title or path.stem))
    return path


def sgm_weights(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """Return all weights of a pipeline under SGM's names.

    Raises:
        ValueError: the pipeline lacks a part.
    """
    xl = getattr(pipeline, "text_encoder_2", None) is not None
    towers = ("text_encoder", "text_encoder_2") if xl else ("text_encoder",)
    tensors: dict[str, Tensor] = {}
    for part in ("unet", "vae", *towers):
        model = getattr(pipeline, part)
        if model is None:
            raise ValueError(f"the pipeline has no {part}, and a single file holds it: load the whole pipeline")
        state = own_weights(model, part)
        prefix = PREFIXES[part][-1 if part == "text_encoder" and not xl else 0]
        tensors |= {prefix + pair.theirs: to_theirs(pair, state) for pair in pairs(part, model, list(state))}
    schedule = pipeline.scheduler.config
    if schedule.get("prediction_type") == "v_prediction":
        tensors["v_pred"] = torch.tensor([])
    if schedule.get("rescale_betas_zero_snr"):
        tensors["ztsnr"] = torch.tensor([])
    return tensors


def pairs(part: str, model: Any, names: list[str]) -> list[Pair]:
    """Return the pairs of a part's names and SGM's."""
    if part == "unet":
        return unet_pairs(names, everything(model.config))
    if part == "vae":
        return vae_pairs(names, len(model.config.block_out_channels), model.config.layers_per_block)
    return clip_pairs(names) if part == "text_encoder" else open_clip_pairs(names)


def metadata(pipeline: DiffusionPipeline, title: str) -> dict[str, str]:
    """Return the file's metadata after ModelSpec 1.0, without a date: a model saved again is described alike."""
    config = pipeline.unet.config
    line = "stable-diffusion-xl" if config.addition_embed_type else "stable-diffusion"
    member = member_of(config)
    side = 8 * (config.sample_size or 64)
    values = {
        "sai_model_spec": "1.0.0",
        "architecture": ARCHITECTURES.get(member, member) if member else f"{line}-student",
        "implementation": "sgm",
        "title": title,
        "resolution": f"{side}x{side}",
        "prediction_type": "v" if pipeline.scheduler.config.get("prediction_type") == "v_prediction" else "epsilon",
    }
    return {f"modelspec.{key}": value for key, value in values.items()}


def own_weights(model: nn.Module, part: str) -> dict[str, Tensor]:
    """Return a model's weights.

    Raises:
        ValueError: adapters hang in it.
    """
    state: dict[str, Tensor] = model.state_dict()
    if strange := [name for name in state if LORA.search(name) or ".base_layer." in name]:
        raise ValueError(f"the {part} carries adapters ({strange[0]}, ...): fuse them or unload them, then save")
    return state


def converted(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return tensors ready to be written: on the CPU, contiguous, in the wanted precision."""
    return {name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in tensors.items()}


def write(tensors: dict[str, Tensor], path: Path, labels: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aligned(tensors, path, labels)


def file_name(stem: str, variant: str | None) -> str:
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
