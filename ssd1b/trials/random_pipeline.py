"""A whole pipeline of a member of the SDXL line with random weights, as a folder that loads like any other.

For measuring where no hub can be reached: neither time nor memory depends on what the weights are. Text towers of the
full size have SDXL's shapes, the tokenizer is the nano family's, whose words they have among theirs.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ssd1b.models.sources import NANO
from ssd1b.pruning.full_size import random_unet
from ssd1b.trials.full_size_text import CLIP_L, OPEN_CLIP_G

TOWERS: dict[str, tuple[type[CLIPTextModel | CLIPTextModelWithProjection], dict[str, Any]]] = {
    "text_encoder": (CLIPTextModel, CLIP_L),
    "text_encoder_2": (CLIPTextModelWithProjection, OPEN_CLIP_G),
}


def write_pipeline(folder: Path, teacher: str, seed: int) -> str:
    """Write it, all but its VAE, the UNet in bfloat16; return its source name.

    teacher: the head of the SDXL line, "sdxl" or "nano-sdxl".

    Raises:
        ValueError: no such member, or one of the other line.
    """
    if teacher not in ("sdxl", "nano-sdxl"):
        raise ValueError(f"teacher={teacher!r}: random weights are made of sdxl and nano-sdxl")
    random_unet(teacher, seed).save_pretrained(folder / "unet")
    torch.manual_seed(seed)
    for name, (kind, full_size) in TOWERS.items():
        config = json.loads((NANO / name / "config.json").read_text())
        kind(CLIPTextConfig.from_dict(config | (full_size if teacher == "sdxl" else {}))).save_pretrained(folder / name)
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(NANO / name, folder / name)
    shutil.copy(NANO / "model_index.json", folder)
    return str(folder)
