"""Whole pipelines at nano width: the shipped towers and VAE, and a UNet of any member with random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from ssd1b.family.table import SD15_LINE, new_unet
from ssd1b.models.files import load_pipeline, save_folder

STUDENTS = ("nano-ssd-1b", "nano-sd-tiny")
"""One of the SDXL line and one of the SD-1.5 line."""


def unet_of(member: str) -> nn.Module:
    torch.manual_seed(3)
    return new_unet(member).eval()


def pipeline_of(member: str) -> Any:
    """Return a pipeline of a nano member; of the SD-1.5 line with the first tower alone."""
    unet = unet_of(member)
    if member.removeprefix("nano-") not in SD15_LINE:
        return load_pipeline("nano", unet=unet)
    parts = load_pipeline("nano", unet=None)
    made = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def save_students(root: Path) -> dict[str, Path]:
    """Write the students as folders in fp16; returns where."""
    return {name: save_folder(pipeline_of(name), root / name, torch.float16) for name in STUDENTS}


def weights_of(pipeline: Any) -> dict[str, Tensor]:
    """Return all weights of all parts, by part and name."""
    return {
        f"{part}/{name}": weight
        for part, model in pipeline.components.items()
        if isinstance(model, nn.Module)
        for name, weight in model.state_dict().items()
    }


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether both hold the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def picture(pipeline: Any) -> np.ndarray:
    """Draw two steps at 64 pixels; returns levels as float32."""
    random = torch.Generator().manual_seed(11)
    return pipeline(
        "a red apple", num_inference_steps=2, height=64, width=64, generator=random, output_type="np"
    ).images[0]
